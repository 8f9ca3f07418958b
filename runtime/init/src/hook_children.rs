// SPDX-License-Identifier: Apache-2.0
//! The processes that a hook started, also those that left its process group: while a hook runs they become children of
//! the process that runs it when their parent ends.

use crate::sysctl::read_proc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, child_subreaper, getpid, pidfd_open,
    pidfd_send_signal, set_child_subreaper, waitid,
};
use std::os::fd::AsFd as _;

/// Generations of processes that are killed. Each ends the parents of the next.
const GENERATIONS_MAX: usize = 64;
/// How long a killed process may take to end.
const LIMIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The children that this process had before a hook.
pub(crate) struct Children {
    before: Vec<i32>,
    was_subreaper: Option<Pid>,
}

impl Children {
    /// Makes this process the parent of orphans.
    pub(crate) fn adopt() -> Self {
        let was_subreaper = child_subreaper().ok().flatten();
        // Without it only the hook's group is killed.
        let _refused = set_child_subreaper(Some(getpid()));
        Self { before: children(), was_subreaper }
    }

    /// Leaves orphans to others again; with `kill`, kills all that are new.
    pub(crate) fn release(self, kill: bool) {
        for _ in 0..if kill { GENERATIONS_MAX } else { 0 } {
            let mut new = children();
            new.retain(|pid| !self.before.contains(pid));
            if new.is_empty() {
                break;
            }
            // Not reaped yet, so the numbers are still theirs.
            let new: Vec<_> = new
                .into_iter()
                .filter_map(Pid::from_raw)
                .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
                .collect();
            for pidfd in &new {
                let _gone = pidfd_send_signal(pidfd, Signal::KILL);
            }
            for pidfd in &new {
                let _woken = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&LIMIT));
                let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                let _reaped = waitid(WaitId::PidFd(pidfd.as_fd()), ended);
            }
        }
        let _refused = set_child_subreaper(self.was_subreaper);
    }
}

/// None where the kernel does not list them.
fn children() -> Vec<i32> {
    let text = read_proc("thread-self/children").unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
