// SPDX-License-Identifier: Apache-2.0
//! What goes beyond a plan: whether the process outlives its maker, what it waits for, the hooks on its
//! way.
//!
//! ```text
//! maker                              child
//!   │ clone                            │ mounts
//!   │◀──────────── ready ──────────────┤
//!   │ prestart, createRuntime          │
//!   ├───────────── go on ─────────────▶│ createContainer, the new root, identity
//!   │◀──────── ready (end of file) ────┤ waits at the gate; the maker may end
//! whoever starts it ── go on, report ─▶│ startContainer, exec
//! ```

use crate::gate;
use crate::hooks::{HookKind, Hooks};
use crate::namespaces::Processes;
use crate::plan::{Step, StepError};
use crate::procfs::PodProcfs;
use crate::starting::Starting;
use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::cell::Cell;
use std::os::fd::{BorrowedFd, OwnedFd};

/// How a process is launched. The default is a monitor's: it goes at once, and ends with its maker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Launch<'a> {
    /// It lives on when its maker ends.
    pub outlives: bool,
    /// Where it waits, with everything but the exec done; see [`gate`].
    pub gate: Option<BorrowedFd<'a>>,
    /// How many descriptors from 3 on the program gets.
    pub kept_fds: u32,
    /// The session keyring that it gets instead of its maker's: one of this name, made if missing.
    pub keyring: Option<&'a str>,
    /// Processes whose namespaces the plan joins; `None` when it names them by any path.
    pub processes: Option<Processes<'a>>,
    /// The procfs of the pod's shared pid namespace, for a plan that joins it.
    pub procfs: Option<&'a PodProcfs>,
    /// Programs that run on the way.
    pub hooks: Option<&'a Hooks>,
}

impl Launch<'_> {
    /// In the child: leaves the maker's session keyring.
    pub(crate) fn leave_keyring(&self) -> Result<(), StepError> {
        let Some(name) = self.keyring else { return Ok(()) };
        match hull_sys::join_session_keyring(Some(name)) {
            // A kernel without keys has none to keep apart.
            Err(err) if err.errno() == Errno::NOSYS => Ok(()),
            other => other.map_err(StepError::of(Step::Identity)),
        }
    }

    /// In the child, with everything but the exec done: waits to be told, then runs the hooks that
    /// belong to the start.
    pub(crate) fn wait(&self, report: &mut OwnedFd) -> Result<(), StepError> {
        if let Some(gate) = self.gate {
            gate::wait(gate, report)?;
        }
        self.run(&[HookKind::StartContainer], "created")
    }

    /// In the child: the number in the state is the one that its own namespace has for it.
    fn run(&self, kinds: &[HookKind], status: &str) -> Result<(), StepError> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        self.hooks.map_or(Ok(()), |hooks| hooks.run(kinds, status, pid))
    }
}

/// Hooks of the maker, while the child waits; nothing when there are none.
pub(crate) struct Turn {
    /// The maker's and the child's: each side takes its own, and closes the other.
    ends: Option<(End, End)>,
}

type End = Cell<Option<OwnedFd>>;

const OF_MAKER: [HookKind; 2] = [HookKind::Prestart, HookKind::CreateRuntime];

impl Turn {
    pub(crate) fn of(how: &Launch<'_>) -> Result<Self, StepError> {
        if !how.hooks.is_some_and(|hooks| hooks.has(&OF_MAKER)) {
            return Ok(Self { ends: None });
        }
        let (flags, kind) = (SocketFlags::CLOEXEC, SocketType::STREAM);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None)
            .map_err(|errno| StepError::new(Step::Pipe, errno, "socketpair()"))?;
        Ok(Self { ends: Some((Cell::new(Some(ours)), Cell::new(Some(theirs)))) })
    }

    /// The child's side, between its mounts and its new root.
    pub(crate) fn child(&self, how: &Launch<'_>) -> Result<(), StepError> {
        if let Some((ours, theirs)) = &self.ends {
            drop(ours.take());
            let end = theirs.take().ok_or_else(broken)?;
            write(&end, b"r").map_err(|_| broken())?;
            if read(&end, &mut [0]) != Ok(1) {
                return Err(broken());
            }
        }
        how.run(&[HookKind::CreateContainer], "creating")
    }

    /// The maker's side.
    pub(crate) fn parent(
        &self,
        how: &Launch<'_>,
        mut started: Starting,
    ) -> Result<Starting, StepError> {
        let Some((ours, theirs)) = &self.ends else { return Ok(started) };
        drop(theirs.take());
        let end = ours.take().ok_or_else(broken)?;
        if read(&end, &mut [0]) != Ok(1) {
            // It has ended; its report says why.
            return Ok(started);
        }
        let ran = how.hooks.map_or(Ok(()), |hooks| hooks.run(&OF_MAKER, "creating", started.pid));
        if let Err(error) = ran {
            started.kill_and_reap();
            return Err(error);
        }
        // One that ended meanwhile has left its report.
        let _told = write(&end, b"g");
        Ok(started)
    }
}

fn broken() -> StepError {
    StepError::new(Step::Pipe, Errno::PIPE, "waiting for the maker's hooks")
}
