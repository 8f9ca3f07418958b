// SPDX-License-Identifier: Apache-2.0
//! A memory limit around a running daemon, by a cgroup of the test's own.

use crate::expect::ExpectExt;
use crate::host::hierarchies;
use crate::paths;
use std::fs;
use std::path::PathBuf;

/// A cgroup with a memory limit; its processes are moved out when this is dropped.
#[derive(Debug)]
pub struct Limit {
    root: PathBuf,
    dir: PathBuf,
    is_v2: bool,
}

impl Limit {
    /// Moves `pid` into a cgroup that may have so many bytes. `None` where there is no memory controller, which is said.
    #[must_use]
    pub fn around(test: &str, pid: i32, bytes: u64) -> Option<Self> {
        let all = hierarchies();
        let v1 = all.iter().find(|at| at.join("memory.limit_in_bytes").is_file());
        let v2 = all.iter().find(|at| {
            let controllers = fs::read_to_string(at.join("cgroup.controllers"));
            controllers.is_ok_and(|all| all.split_whitespace().any(|one| one == "memory"))
        });
        let Some(root) = v1.or(v2).cloned() else {
            paths::cannot_run(test, "the memory controller");
            return None;
        };
        let is_v2 = v1.is_none();
        if is_v2 {
            // It is on already where an init has set the hierarchy up.
            drop(fs::write(root.join("cgroup.subtree_control"), "+memory"));
        }
        let dir = root.join(format!("hull-test-memory-{pid}"));
        fs::create_dir(&dir).or_fail("make a cgroup");
        let limit = Self { root, dir, is_v2 };
        let file = if is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(limit.dir.join(file), bytes.to_string()).or_fail("limit memory");
        fs::write(limit.dir.join("cgroup.procs"), pid.to_string()).or_fail("move a process");
        Some(limit)
    }

    /// How many processes the kernel has killed in it for want of memory.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.dir.join(file)).or_fail("read what was killed");
        let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        killed
            .and_then(|count| count.trim().parse().ok())
            .or_fail(format!("find oom_kill in {text}"))
    }

    /// The most that was used, in bytes.
    #[must_use]
    pub fn peak(&self) -> u64 {
        let file = if self.is_v2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let members = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            // It may have ended meanwhile.
            drop(fs::write(self.root.join("cgroup.procs"), pid));
        }
        drop(fs::remove_dir(&self.dir));
    }
}
