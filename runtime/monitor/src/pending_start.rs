// SPDX-License-Identifier: Apache-2.0
//! Starts that are not finished: of the pause process, of containers, of execs.

use crate::connection::RequestId;
use crate::event_loop::EventLoop;
use hull_init::{PendingProcess, StepError};
use rustix::process::{Signal, pidfd_send_signal};
use std::os::fd::{AsFd as _, OwnedFd};

/// A process between clone and exec, and the request that waits for it.
#[derive(Debug)]
pub(crate) struct PendingStart {
    pub(crate) process: PendingProcess,
    /// Of its status pipe in the loop.
    pub(crate) token: u64,
    pub(crate) request: RequestId,
}

impl PendingStart {
    /// Updates its state. Returns the new pid and descriptor when these have become the program's; see
    /// [`PendingProcess::update`].
    pub(crate) fn update(&mut self) -> Option<(i32, OwnedFd)> {
        if !self.process.update() {
            return None;
        }
        let pidfd = self.process.pidfd.try_clone().ok()?;
        Some((self.process.pid, pidfd))
    }

    /// The result of the start, if it is known.
    pub(crate) fn poll(&mut self) -> Option<Result<(), StepError>> {
        self.process.poll()
    }

    /// Removes its status pipe from the loop.
    pub(crate) fn unwatch(&self, events: &mut EventLoop) {
        events.remove(self.process.status.as_fd(), self.token);
    }
}

/// Kills a process. One that has ended needs nothing.
pub(crate) fn kill(pidfd: &OwnedFd) {
    let _gone = pidfd_send_signal(pidfd, Signal::KILL);
}
