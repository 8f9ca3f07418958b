// SPDX-License-Identifier: Apache-2.0
//! The OOM score of a container that runs: an update changes that of its processes, since the kernel has none for a
//! cgroup. `proc_pid_oom_score_adj(5)`, KEP-1287.

use hull_cgroup::Cgroup;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, write};
use std::os::fd::OwnedFd;

/// How often the list of processes is read: those that were forked meanwhile have the score of their parent, and a
/// second look finds those whose parent had the old one.
const LOOKS: usize = 3;

/// Gives every process this score. `false` if it is lower than theirs and this daemon may not lower it
/// (CAP_SYS_RESOURCE).
///
/// # Errors
/// The processes of the cgroup cannot be read.
pub(crate) fn set(cgroup: &Cgroup, score: i64) -> Result<bool, hull_cgroup::Error> {
    let mut done = Vec::new();
    for _ in 0..LOOKS {
        let new: Vec<_> = cgroup.procs()?.into_iter().filter(|pid| !done.contains(pid)).collect();
        if new.is_empty() {
            return Ok(true);
        }
        for pid in new {
            match set_of(pid, score) {
                // It has ended.
                Ok(()) | Err(Errno::NOENT | Errno::SRCH) => done.push(pid),
                Err(_) => return Ok(false),
            }
        }
    }
    Ok(true)
}

fn set_of(pid: i32, score: i64) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process: OwnedFd = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(&process, "oom_score_adj", flags, Mode::empty())?;
    write(&file, score.to_string().as_bytes()).map(drop)
}
