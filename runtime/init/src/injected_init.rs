// SPDX-License-Identifier: Apache-2.0
//! An init as the first process of a container, and the container's program as its child.
//!
//! ```text
//! first process ── fork ──▶ child: a session of its own, waits ······▶ last steps ── execve ─▶ program
//!       └─ filter ── execveat(init) ─────────────────────────┘          init: forwards signals, reaps
//! ```
//!
//! The rule: nothing of the container runs before the first process has become the init. Until then its memory is a copy of
//! the monitor's. The init has the rights, the filter and the environment of the program; its file is alone in a read-only
//! mount that the container cannot see, so `/proc/1/exe` leads to nothing that could be changed.

use crate::attributes::{die_with_parent, lead_session};
use crate::plan::{Step, StepError};
use hull_sys::{CStringArray, ForkResult};
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::BorrowedFd;

/// Becomes the init behind `file`, and returns in its child. `confine` installs what the process does not have yet.
pub(crate) fn become_init(
    file: BorrowedFd<'_>,
    env: &CStringArray,
    report: BorrowedFd<'_>,
    outlives: bool,
    confine: impl FnOnce() -> Result<(), StepError>,
) -> Result<(), StepError> {
    let failed = |call: &'static str| move |errno| StepError::new(Step::Clone, errno, call);
    let own = rustix::process::getpid();
    // The init forwards what comes from now on. The child unblocks all, as every process before its exec.
    hull_sys::reset_signals().map_err(StepError::at(Step::Clone))?;
    hull_sys::block_all_signals().map_err(StepError::at(Step::Clone))?;
    let (becomes, until_then) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe2(init)"))?;
    match hull_sys::fork().map_err(|err| failed("clone(init)")(err.errno()))? {
        ForkResult::Parent { pid, pidfd } => {
            drop((becomes, pidfd));
            if !outlives {
                die_with_parent(report)?;
            }
            confine()?;
            // The exec closes `until_then`.
            let error = hull_sys::execveat_with_number(file, c"init", pid, env);
            Err(StepError::new(Step::Clone, error.errno(), error.to_string()))
        }
        ForkResult::Child => {
            drop(until_then);
            hull_sys::close_now(file);
            lead_session()?;
            let kill = rustix::process::Signal::KILL;
            rustix::process::set_parent_process_death_signal(Some(kill))
                .map_err(failed("prctl(PDEATHSIG)"))?;
            while read(&becomes, &mut [0]) == Err(Errno::INTR) {}
            if rustix::process::getppid() != Some(own) {
                // The init is gone, maybe before its death would have been a signal.
                return Err(failed("getppid(): the init is gone")(Errno::CHILD));
            }
            Ok(())
        }
    }
}
