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
        let is_born = self.process.update();
        self.program(is_born)
    }

    /// As [`Self::update`]; see [`PendingProcess::update_before_reaping`].
    pub(crate) fn update_before_reaping(&mut self, ended: i32) -> Option<(i32, OwnedFd)> {
        let is_born = self.process.update_before_reaping(ended);
        self.program(is_born)
    }

    /// The process of the program, if it is new.
    fn program(&self, is_born: bool) -> Option<(i32, OwnedFd)> {
        let pidfd = is_born.then(|| self.process.pidfd.try_clone().ok()).flatten()?;
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
