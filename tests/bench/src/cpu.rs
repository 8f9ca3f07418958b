// SPDX-License-Identifier: Apache-2.0
//! CPU time of a whole runtime: its daemon, its helpers however short they live and whatever their
//! parent becomes, and what its containers do before they are the program that was asked for.
//!
//! The kernel counts it per cgroup, below it too, and what has ended stays counted. So it is exact where
//! sums over `/proc` are not, and costs one read.
//!
//! Not here: work that the kernel puts off to its own threads, such as tearing down network namespaces.

use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The files that count the CPU time of some cgroups.
#[derive(Debug, Clone)]
pub struct Meter(Vec<Count>);

#[derive(Debug, Clone)]
enum Count {
    /// `cpuacct.usage` of v1: nanoseconds.
    V1(PathBuf),
    /// `cpu.stat` of v2: microseconds behind `usage_usec`.
    V2(PathBuf),
}

impl Meter {
    /// A meter for the cgroups at `paths` below the hierarchies' mounts.
    ///
    /// # Errors
    /// When one of them is in no hierarchy that counts CPU time.
    pub fn of(paths: &[&str]) -> Result<Self> {
        let hierarchies = hull_tests::host::hierarchies();
        let counts = paths.iter().map(|path| Count::of(&hierarchies, path));
        counts.collect::<Result<_>>().map(Self)
    }

    /// The CPU time used so far.
    ///
    /// # Errors
    /// A cgroup no longer exists.
    pub fn read(&self) -> Result<Duration> {
        self.0.iter().map(Count::read).sum()
    }
}

impl Count {
    fn of(hierarchies: &[PathBuf], cgroup: &str) -> Result<Self> {
        for hierarchy in hierarchies {
            let dir = hierarchy.join(cgroup.trim_start_matches('/'));
            let v1 = dir.join("cpuacct.usage");
            if v1.is_file() {
                return Ok(Self::V1(v1));
            }
        }
        for hierarchy in hierarchies {
            let v2 = hierarchy.join(cgroup.trim_start_matches('/')).join("cpu.stat");
            if v2.is_file() && hierarchy.join("cgroup.controllers").is_file() {
                return Ok(Self::V2(v2));
            }
        }
        let mounts = Path::new("/proc/self/mountinfo").to_owned();
        Err(Error::Content { what: format!("cgroup {cgroup}, below a hierarchy"), path: mounts })
    }

    fn read(&self) -> Result<Duration> {
        let (Self::V1(path) | Self::V2(path)) = self;
        let text = fs::read_to_string(path).map_err(|source| Error::File {
            act: "read",
            path: path.clone(),
            source,
        })?;
        let value = match self {
            Self::V1(_) => text.trim().parse().ok().map(Duration::from_nanos),
            Self::V2(_) => text
                .lines()
                .find_map(|line| line.strip_prefix("usage_usec "))
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_micros),
        };
        value.ok_or_else(|| Error::Content { what: "CPU time".into(), path: path.clone() })
    }
}
