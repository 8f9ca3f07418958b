// SPDX-License-Identifier: Apache-2.0
//! Further processes in containers.

use crate::pending_start::{self, PendingStart};
use hull_proto::id::ContainerId;
use std::os::fd::OwnedFd;

/// A further process in a container.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) pending: Option<PendingStart>,
    pub(crate) container: ContainerId,
    /// The number of out-of-memory kills that were reported of its container before it; `None` where nobody watches.
    pub(crate) oom_kills_before: Option<u64>,
}

impl Exec {
    /// Updates the state of its start; see [`PendingStart::update`].
    pub(crate) fn update(&mut self) {
        if let Some((pid, pidfd)) = self.pending.as_mut().and_then(PendingStart::update) {
            (self.pid, self.pidfd) = (pid, pidfd);
        }
    }

    /// As [`Self::update`], before the child `ended` of this process is reaped.
    pub(crate) fn update_before_reaping(&mut self, ended: i32) {
        let pending = self.pending.as_mut();
        if let Some((pid, pidfd)) = pending.and_then(|of| of.update_before_reaping(ended)) {
            (self.pid, self.pidfd) = (pid, pidfd);
        }
    }

    /// Kills it, in whatever state its start is.
    pub(crate) fn kill(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.process.kill();
        }
        self.update();
        pending_start::kill(&self.pidfd);
    }
}
