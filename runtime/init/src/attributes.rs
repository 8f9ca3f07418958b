// SPDX-License-Identifier: Apache-2.0
//! Attributes that every process has before it becomes a program: its own session, nobody who traces it, an end with its
//! parent.

use crate::plan::{Step, StepError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

/// Our memory is a copy of the monitor's: no process that sees us may trace us or read it. The exec allows both
/// again for the program.
pub(crate) fn not_traceable() -> Result<(), StepError> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|errno| StepError::new(Step::Clone, errno, "prctl(SET_DUMPABLE)"))
}

/// `setsid(2)`: a session of its own, for the terminal and for signals to a group.
pub(crate) fn lead_session() -> Result<(), StepError> {
    rustix::process::setsid()
        .map(drop)
        .map_err(|errno| StepError::new(Step::Stdio, errno, "setsid()"))
}

/// Has the kernel kill this process when its parent dies, since nothing would supervise it then. Called when the
/// credentials are final: the kernel clears the setting when they change.
///
/// A parent that died before is detected by the status pipe, which has no reader then: in a pid namespace of its
/// own a process cannot see its parent.
pub(crate) fn die_with_parent(report: BorrowedFd<'_>) -> Result<(), StepError> {
    let failed = |call: &'static str| move |errno| StepError::new(Step::Pipe, errno, call);
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(failed("prctl(PDEATHSIG)"))?;
    let mut fds = [PollFd::from_borrowed_fd(report, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).map_err(failed("ppoll(status)"))?;
    if fds[0].revents().contains(PollFlags::ERR) {
        return Err(failed("ppoll(status): the parent is gone")(Errno::PIPE));
    }
    Ok(())
}
