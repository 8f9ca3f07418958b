// SPDX-License-Identifier: Apache-2.0
//! The cgroups of a machine: one directory in each hierarchy, with the groups of its services below.
//!
//! ```text
//! /<machine>/system     PID 1 and the programs of Kubernetes
//! /<machine>/runtime    the container runtime: Hull with its monitors, or containerd with its shims
//! /<machine>/kubepods   pods: the kubelet makes it
//! ```
//!
//! On version 2 no process is in the machine's own group, so its controllers can be given to those below.

use crate::eventually;
use crate::expect::ExpectExt;
use crate::host;
use std::fs;
use std::path::{Path, PathBuf};

/// The group of PID 1 and of the programs of Kubernetes.
pub const SYSTEM: &str = "system";
/// The group of the container runtime and its helpers.
pub const RUNTIME: &str = "runtime";

/// The cgroups of one machine.
#[derive(Debug, Clone)]
pub struct Cgroups {
    name: String,
}

impl Cgroups {
    /// The groups of the machine `name`, which may not be there yet.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Makes them in every hierarchy.
    pub fn make(&self) {
        for hierarchy in host::hierarchies() {
            make_group(&hierarchy, &self.name);
            let machine = hierarchy.join(&self.name);
            for group in [SYSTEM, RUNTIME] {
                make_group(&machine, group);
            }
        }
    }

    /// The machine's group as a path from the root of the hierarchy.
    #[must_use]
    pub fn root(&self) -> String {
        format!("/{}", self.name)
    }

    /// The files that a process writes its number to, to join `group`, separated by newlines.
    #[must_use]
    pub fn procs(&self, group: &str) -> String {
        let file = |hierarchy: PathBuf| {
            hierarchy.join(&self.name).join(group).join("cgroup.procs").display().to_string()
        };
        let files: Vec<String> = host::hierarchies().into_iter().map(file).collect();
        files.join("\n")
    }

    /// Removes them once their processes are gone. Processes that PID 1's end has killed may take a moment.
    pub fn remove(&self) {
        let removed = eventually::blocking(eventually::deadline(), || {
            for dir in host::cgroups(&self.root()) {
                drop(fs::remove_dir(dir));
            }
            let tops = host::hierarchies().into_iter().map(|at| at.join(&self.name));
            let left: Vec<PathBuf> = tops
                .filter(|dir| fs::remove_dir(dir).is_err())
                .filter(|dir| dir.is_dir())
                .collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        removed.map_err(std::io::Error::other).or_fail("remove the cgroups of a machine");
    }
}

/// Makes the group `name` in the directory `parent`, with the controllers or sets of its parent.
fn make_group(parent: &Path, name: &str) {
    let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // A controller that the parent cannot give, as in a container, is missed by the kubelet, which names it.
        drop(fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}")));
    }
    let dir = parent.join(name);
    fs::create_dir_all(&dir).or_fail(format!("make the cgroup {}", dir.display()));
    for set in ["cpuset.cpus", "cpuset.mems"] {
        // Version 1 begins with empty sets, in which no process can run.
        let Ok(text) = fs::read_to_string(parent.join(set)) else { continue };
        if controllers.is_empty() {
            fs::write(dir.join(set), text.trim()).or_fail(format!("write {set} of {name}"));
        }
    }
}
