// SPDX-License-Identifier: Apache-2.0
//! A cgroup that somebody else has put processes in, in one hierarchy alone. Needs root and the host's hierarchies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says by its panic what is wrong"
)]

use hull_cgroup::{Cgroup, CgroupFs};
use std::fs;
use std::process::Command;
use std::time::Duration;

#[test]
fn a_process_in_any_one_hierarchy_makes_a_cgroup_populated() {
    let host = CgroupFs::detect().unwrap();
    let v1 = host.hierarchies().iter().map(|of| of.mountpoint.as_path());
    let roots: Vec<_> = v1.chain(host.unified()).collect();
    for (at, root) in roots.into_iter().enumerate() {
        // A cpuset takes no process before it has CPUs.
        if root.join("cpuset.cpus").is_file() && root.join("tasks").is_file() {
            continue;
        }
        let path = format!("/hull-test-hierarchies-{}-{at}", std::process::id());
        let cgroup = Cgroup::at(&host, &path).unwrap();
        assert!(!cgroup.is_populated_anywhere().unwrap(), "it is not there");
        let dir = root.join(path.trim_start_matches('/'));
        fs::create_dir(&dir).unwrap();
        assert!(!cgroup.is_populated_anywhere().unwrap(), "it is empty");
        #[allow(clippy::disallowed_methods, reason = "a process to put into a cgroup")]
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let moved = fs::write(dir.join("cgroup.procs"), child.id().to_string());
        let found = cgroup.is_populated_anywhere();
        child.kill().unwrap();
        child.wait().unwrap();
        cgroup.kill_and_remove(Duration::from_secs(10)).unwrap();
        moved.unwrap();
        assert!(found.unwrap(), "{}", dir.display());
    }
}
