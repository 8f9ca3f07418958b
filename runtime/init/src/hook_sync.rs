// SPDX-License-Identifier: Apache-2.0
//! The child waits while the parent runs its hooks, and what its caller has to do before them.
//!
//! ```text
//! parent                               child
//!   │ clone                              │ mounts
//!   │◀──────────── ready ────────────────┤
//!   │ prepare, prestart, createRuntime   │
//!   ├──────────── continue ─────────────▶│ createContainer, the new root, identity
//!   │◀──────── ready (end of file) ──────┤ waits at the start socket; the parent may end
//! process that starts it ─ continue, report ─▶│ startContainer, exec
//! ```

use crate::hooks::HookKind;
use crate::options::LaunchOptions;
use crate::pending_process::PendingProcess;
use crate::plan::{Step, StepError};
use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::cell::Cell;
use std::os::fd::OwnedFd;

/// The phase of a launch in which the parent runs hooks and the child waits. Without such hooks and without
/// [`Prepare`](crate::options::Prepare) it does nothing.
pub(crate) struct HookPhase {
    /// Socket of the parent, and that of the child: each side takes its own, and closes the other.
    sides: Option<(HookSide, HookSide)>,
}

/// The socket of one side, until that side takes it.
type HookSide = Cell<Option<OwnedFd>>;

/// Kinds that the parent runs.
const FROM_PARENT: [HookKind; 2] = [HookKind::Prestart, HookKind::CreateRuntime];

impl HookPhase {
    pub(crate) fn new(how: &LaunchOptions<'_>) -> Result<Self, StepError> {
        if how.prepare.is_none() && !how.hooks.is_some_and(|hooks| hooks.has(&FROM_PARENT)) {
            return Ok(Self { sides: None });
        }
        let (flags, kind) = (SocketFlags::CLOEXEC, SocketType::STREAM);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None)
            .map_err(|errno| StepError::new(Step::Pipe, errno, "socketpair()"))?;
        Ok(Self { sides: Some((Cell::new(Some(ours)), Cell::new(Some(theirs)))) })
    }

    /// The child's side, between its mounts and its new root.
    pub(crate) fn child(&self, how: &LaunchOptions<'_>) -> Result<(), StepError> {
        if let Some((ours, theirs)) = &self.sides {
            drop(ours.take());
            let side = theirs.take().ok_or_else(broken)?;
            write(&side, b"r").map_err(|_| broken())?;
            if read(&side, &mut [0]) != Ok(1) {
                return Err(broken());
            }
        }
        how.run_hooks(&[HookKind::CreateContainer], "creating")
    }

    /// The parent's side.
    pub(crate) fn parent(
        &self,
        how: &LaunchOptions<'_>,
        mut started: PendingProcess,
    ) -> Result<PendingProcess, StepError> {
        let Some((ours, theirs)) = &self.sides else { return Ok(started) };
        drop(theirs.take());
        let side = ours.take().ok_or_else(broken)?;
        if read(&side, &mut [0]) != Ok(1) {
            // The child has ended; its report has the reason.
            return Ok(started);
        }
        let ran = how.prepare.map_or(Ok(()), |prepare| (prepare.0)(started.pid)).and_then(|()| {
            how.hooks.map_or(Ok(()), |hooks| hooks.run(&FROM_PARENT, "creating", started.pid))
        });
        if let Err(error) = ran {
            started.kill_and_reap();
            return Err(error);
        }
        // A process that ended meanwhile has left its report.
        let _sent = write(&side, b"g");
        Ok(started)
    }
}

fn broken() -> StepError {
    StepError::new(Step::Pipe, Errno::PIPE, "waiting for the parent's hooks")
}
