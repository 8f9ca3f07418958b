// SPDX-License-Identifier: Apache-2.0
//! The processes that a hook started, also those that left its process group: while a hook runs they become children of
//! the process that runs it when their parent ends.

use crate::sysctl::read_proc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, child_subreaper, getpid, pidfd_open,
    pidfd_send_signal, set_child_subreaper, waitid,
};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Generations of processes that are killed. Each ends the parents of the next.
const GENERATIONS_MAX: usize = 64;
/// How long all killed processes together may take to end.
const LIMIT: Duration = Duration::from_secs(2);

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

    /// Leaves orphans to others again; with `kill`, kills all that are new before. False if some of those are left.
    pub(crate) fn release(self, kill: bool) -> bool {
        let are_gone = !kill || self.end_new(Instant::now() + LIMIT);
        let _refused = set_child_subreaper(self.was_subreaper);
        are_gone
    }

    fn end_new(&self, until: Instant) -> bool {
        for _ in 0..GENERATIONS_MAX {
            if self.has_no_new() || Instant::now() >= until {
                break;
            }
            // Not reaped yet, so the numbers are still theirs.
            let new: Vec<OwnedFd> = self
                .since()
                .into_iter()
                .filter_map(Pid::from_raw)
                .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
                .collect();
            for pidfd in &new {
                let _gone = pidfd_send_signal(pidfd, Signal::KILL);
            }
            for pidfd in &new {
                let left = until.saturating_duration_since(Instant::now());
                let left = Timespec::try_from(left).ok();
                let _woken = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], left.as_ref());
                let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                let _reaped = waitid(WaitId::PidFd(pidfd.as_fd()), ended);
            }
        }
        self.has_no_new()
    }

    /// The kernel's list may lack a child while another one ends. So the kernel itself is asked where no other child can
    /// be: that is also the answer of a kernel that lists none.
    fn has_no_new(&self) -> bool {
        if !self.before.is_empty() {
            return self.since().is_empty();
        }
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::All, look), Err(Errno::CHILD))
    }

    fn since(&self) -> Vec<i32> {
        let mut new = children();
        new.retain(|pid| !self.before.contains(pid));
        new
    }
}

/// None where the kernel does not list them.
fn children() -> Vec<i32> {
    let text = read_proc("thread-self/children").unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
