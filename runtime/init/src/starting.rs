// SPDX-License-Identifier: Apache-2.0
//! A process between its clone and its exec, as its parent sees it: the status pipe closes by itself
//! when the exec goes through, and carries a [`StepError`] when something failed before.

use crate::plan::{Step, StepError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::fd::{AsFd as _, OwnedFd};

/// Longest report, in bytes: fits a pipe's buffer, so that it is written at once.
const REPORT_BYTES_MAX: usize = 4096;

/// A process that is on its way.
#[derive(Debug)]
pub struct Starting {
    /// In our pid namespace.
    pub pid: i32,
    /// The process, for waiting and signals.
    pub pidfd: OwnedFd,
    /// Readable when there is news; see [`Starting::poll`].
    pub status: OwnedFd,
    report: Vec<u8>,
}

/// The two ends of a status pipe.
pub(crate) fn status_pipe() -> Result<(OwnedFd, OwnedFd), StepError> {
    let failed = |errno: Errno| StepError::new(Step::Pipe, errno, "pipe2(CLOEXEC)");
    let (news, report) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    rustix::io::ioctl_fionbio(&news, true).map_err(failed)?;
    Ok((news, report))
}

/// In the child: tells what failed, and ends.
pub(crate) fn fail(report: &OwnedFd, error: &StepError) -> ! {
    if let Ok(mut bytes) = borsh::to_vec(error) {
        bytes.truncate(REPORT_BYTES_MAX);
        // With the parent gone there is nobody to tell.
        let _gone = write(report, &bytes);
    }
    hull_sys::exit_now(127)
}

/// What a status pipe has to tell, or `None` while the process is on its way. Never blocks.
fn look(status: &OwnedFd, so_far: &mut Vec<u8>) -> Option<Result<(), StepError>> {
    let mut chunk = [0; REPORT_BYTES_MAX];
    loop {
        match read(status.as_fd(), &mut chunk) {
            Ok(0) if so_far.is_empty() => return Some(Ok(())),
            Ok(0) => return Some(Err(decode(so_far))),
            Ok(got) => so_far.extend_from_slice(&chunk[..got]),
            Err(Errno::AGAIN) => return None,
            Err(Errno::INTR) => {}
            Err(errno) => return Some(Err(StepError::new(Step::Pipe, errno, "read(status)"))),
        }
    }
}

/// Likewise, but blocks until it is known.
pub(crate) fn reported(status: &OwnedFd, so_far: &mut Vec<u8>) -> Result<(), StepError> {
    loop {
        if let Some(done) = look(status, so_far) {
            return done;
        }
        let mut fds = [PollFd::new(status, PollFlags::IN)];
        // Interrupted: looked at again above.
        let _woken = poll(&mut fds, None);
    }
}

fn decode(report: &[u8]) -> StepError {
    borsh::from_slice(report)
        .unwrap_or_else(|_| StepError::new(Step::Pipe, Errno::BADMSG, "read(status)"))
}

impl Starting {
    pub(crate) fn new(pid: i32, pidfd: OwnedFd, status: OwnedFd) -> Self {
        Self { pid, pidfd, status, report: Vec::new() }
    }

    /// How it went, or `None` while it is on its way. Never blocks.
    pub fn poll(&mut self) -> Option<Result<(), StepError>> {
        look(&self.status, &mut self.report)
    }

    /// Blocks until it is known how it went.
    pub fn wait(&mut self) -> Result<(), StepError> {
        reported(&self.status, &mut self.report)
    }

    /// Ends it, and takes it off the list of our children.
    pub(crate) fn kill(&self) {
        let kill = rustix::process::Signal::KILL;
        let _ended = rustix::process::pidfd_send_signal(&self.pidfd, kill);
        let _ended = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }

    /// What failed, of a process that has ended and whose report nobody else writes to.
    pub(crate) fn failure(status: OwnedFd, pidfd: OwnedFd) -> StepError {
        let nothing = || StepError::new(Step::Pipe, Errno::PIPE, "read(status)");
        match Self::new(0, pidfd, status).poll() {
            Some(Err(error)) => error,
            Some(Ok(())) | None => nothing(),
        }
    }
}

impl StepError {
    pub(crate) fn new(step: Step, errno: Errno, call: impl Into<String>) -> Self {
        Self { step, errno: errno.raw_os_error(), call: call.into() }
    }

    pub(crate) fn of(step: Step) -> impl Fn(hull_sys::Error) -> Self {
        move |err| Self::new(step, err.errno(), err.to_string())
    }
}
