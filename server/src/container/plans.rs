// SPDX-License-Identifier: Apache-2.0
//! Plans on disk: everything that CreateContainer resolved, kept for the life of the container.
//!
//! ```text
//! <state_dir>/plans/<container-id>    "hull plan 1\n", then the plan of its start (borsh)
//! ```
//!
//! The rule: profiles, device files, plugins' wishes, users and the node's settings are looked at
//! once, by CreateContainer. Its start and every exec use what came of that, whichever daemon makes
//! them and whatever has become of a profile's file or of `default_seccomp` since. So an exec is
//! confined as its container is.
//!
//! The encoding is the one that plans travel to monitors in, which monitors of other releases read as
//! well. Containers of releases that kept no plan have none.

use crate::records;
use hull_plan::Plan;
use hull_proto::id::ContainerId;
use hull_records::{Durability, Location, PRIVATE};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tracing::{error, warn};

/// Begins every file; the number is the encoding's.
const HEADER: &[u8] = b"hull plan 1\n";
/// Longest plan that is read, in bytes: far more than a call's message can bring about.
const PLAN_BYTES_MAX: u64 = 128 << 20;

/// The directory of kept plans.
#[derive(Debug)]
pub(crate) struct Plans {
    dir: PathBuf,
}

impl Plans {
    /// Opens the directory, and makes it when missing.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, records::Error> {
        records::create_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Keeps the plan of a container.
    pub(crate) fn save(&self, id: &str, plan: &Plan) -> Result<(), records::Error> {
        let bytes = [HEADER, &hull_plan::encode(plan)].concat();
        let (path, scratch) = (self.path(id), self.dir.join(format!("{id}.new")));
        let (file, scratch) = (Location::at(&path), Location::at(&scratch));
        hull_records::replace(file, scratch, &bytes, PRIVATE, Durability::Process)
            .map_err(|source| records::Error::Write { path: path.clone(), source })
    }

    /// The plan of a container; `None` when none was kept, or none that this release can read.
    pub(crate) fn load(&self, id: &str) -> Option<Plan> {
        let path = self.path(id);
        let bytes = match Location::at(&path).read(PLAN_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(err) if err.is_not_found() => return None,
            Err(err) => {
                warn!(path = %path.display(), error = %err, "kept plan not read");
                return None;
            }
        };
        let plan = bytes.strip_prefix(HEADER).and_then(hull_plan::decode_plan);
        // A container's cgroup has its id as its name; with another it is a copy of another container's plan.
        let plan = plan.filter(|plan| Path::new(&plan.cgroup.path).ends_with(id));
        if plan.is_none() {
            warn!(path = %path.display(), "kept plan is of another release or another container, or damaged");
        }
        plan
    }

    /// Removes the plan of a container; none counts as removed.
    pub(crate) fn remove(&self, id: &str) -> Result<(), records::Error> {
        let path = self.path(id);
        let removed = Location::at(&path).remove();
        removed.map_err(|source| records::Error::Remove { path: path.clone(), source })
    }

    /// The containers that have a plan here.
    pub(crate) fn ids(&self) -> Vec<ContainerId> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| ContainerId::parse(&name).ok()).collect()
    }

    /// Removes what belongs to none of `containers`.
    pub(crate) fn sweep(&self, containers: &BTreeSet<String>) {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(err) => {
                error!(dir = %self.dir.display(), error = %err, "kept plans not listed");
                return;
            }
        };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let is_ours = name.ends_with(".new") || ContainerId::parse(&name).is_ok();
            if is_ours
                && !containers.contains(&name)
                && let Err(err) = self.remove(&name)
            {
                error!(name, error = %err, "left plan not removed");
            }
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        Path::new(&self.dir).join(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn plan(id: &str) -> Plan {
        let spec = serde_json::json!({
            "ociVersion": "1.2.1",
            "root": {"path": "rootfs"},
            "process": {"args": ["/x"], "cwd": "/", "user": {"uid": 7, "gid": 8}},
            "linux": {"namespaces": [{"type": "mount"}], "cgroupsPath": format!("/pod/{id}")},
        });
        let options = hull_plan::Options {
            root: hull_plan::Root::Bundle("/b".into()),
            sources: Vec::new(),
            host: hull_plan::HostFacts::default(),
            further_phases: Vec::new(),
        };
        hull_plan::plan(&serde_json::from_value(spec).unwrap(), &options).unwrap()
    }

    #[test]
    fn a_plan_is_kept_whole_for_its_owner_alone_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let plans = Plans::open(dir.path().join("plans")).unwrap();
        let (ours, others) = ("a".repeat(64), "b".repeat(64));
        assert_eq!(plans.load(&ours), None);
        plans.save(&ours, &plan(&ours)).unwrap();
        plans.save(&others, &plan(&others)).unwrap();
        assert_eq!(plans.load(&ours), Some(plan(&ours)));
        let mode = fs::metadata(plans.path(&ours)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        plans.sweep(&[ours.clone()].into());
        assert_eq!((plans.load(&others), plans.load(&ours)), (None, Some(plan(&ours))));
        plans.remove(&ours).unwrap();
        plans.remove(&ours).unwrap();
        assert_eq!(plans.load(&ours), None);
    }

    #[test]
    fn what_cannot_be_read_counts_as_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let plans = Plans::open(dir.path().to_owned()).unwrap();
        plans.save("x", &plan("x")).unwrap();
        let whole = fs::read(plans.path("x")).unwrap();
        for bytes in
            [&whole[..whole.len() - 1], &whole[HEADER.len()..], &[&whole[..], b"x"].concat()]
        {
            fs::write(plans.path("x"), bytes).unwrap();
            assert_eq!(plans.load("x"), None);
        }
    }

    /// Its execs would have the rights of the other one.
    #[test]
    fn the_plan_of_another_container_counts_as_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let plans = Plans::open(dir.path().to_owned()).unwrap();
        let (ours, others) = ("a".repeat(64), "b".repeat(64));
        plans.save(&others, &plan(&others)).unwrap();
        fs::copy(plans.path(&others), plans.path(&ours)).unwrap();
        assert_eq!(plans.load(&ours), None);
    }
}
