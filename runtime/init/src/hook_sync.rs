// SPDX-License-Identifier: Apache-2.0
//! The child waits while the parent runs its hooks, and what its caller has to do before them.
//!
//! ```text
//! parent, or a process beside it      child
//!   │ clone                              │ mounts
//!   │◀──────────── ready ────────────────┤
//!   │ prepare, prestart, createRuntime   │ killed meanwhile: the parent's side reports the hook
//!   ├────── continue, or the error ─────▶│ createContainer, the new root, identity
//!   │◀──────── ready (end of file) ──────┤ waits at the start socket; the parent may end
//! process that starts it ─ continue, report ─▶│ startContainer, exec
//! ```
//!
//! A child in another pid namespace does not run its createContainer hooks itself: its own children are visible there,
//! to others now or to the program later, and the root and the program of such a hook are the host's. Then a process of
//! the parent's side enters the container's other namespaces, and runs them.

use crate::apply::become_container_root;
use crate::attributes::not_traceable;
use crate::hook_process::{Lock, end_with_parent};
use crate::hooks::{HookKind, Leftovers, Surroundings};
use crate::namespaces::{enter_user_namespace_of, join_all, join_differing};
use crate::options::LaunchOptions;
use crate::pending_process::{PendingProcess, encode, fail, reported, status_pipe};
use crate::plan::{Namespace, Namespaces, Step, StepError};
use hull_sys::{ForkResult, fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitId, WaitIdOptions, getpid, waitid};
use std::cell::Cell;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Tells the child to continue. Everything else is the error with which it ends.
const CONTINUE: &[u8] = b"g";
/// Longest error that the child reads, in bytes.
const ERROR_BYTES_MAX: usize = 4096;

/// The phase of a launch in which the parent runs hooks and the child waits. Without such hooks and without
/// [`Prepare`](crate::options::Prepare) it does nothing.
pub(crate) struct HookPhase {
    /// Socket of the parent, and that of the child: each side takes its own, and closes the other.
    sides: Option<(HookSide, HookSide)>,
    /// The createContainer hooks are run from the parent's side.
    from_outside: bool,
    /// The child is in another user namespace.
    other_user: bool,
}

/// The socket of one side, until that side takes it.
type HookSide = Cell<Option<OwnedFd>>;

/// Kinds that the parent runs.
const FROM_PARENT: [HookKind; 2] = [HookKind::Prestart, HookKind::CreateRuntime];

impl HookPhase {
    pub(crate) fn new(how: &LaunchOptions<'_>, namespaces: &Namespaces) -> Result<Self, StepError> {
        let has = |kinds: &[HookKind]| how.hooks.is_some_and(|hooks| hooks.has(kinds));
        let from_outside =
            namespaces.pid != Namespace::Inherit && has(&[HookKind::CreateContainer]);
        let other_user = namespaces.user != Namespace::Inherit;
        if let Some(hooks) = how.hooks.filter(|_| !from_outside) {
            hooks.check(&[HookKind::CreateContainer])?;
        }
        if how.prepare.is_none() && !has(&FROM_PARENT) && !from_outside {
            return Ok(Self { sides: None, from_outside, other_user });
        }
        let (flags, kind) = (SocketFlags::CLOEXEC, SocketType::STREAM);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None)
            .map_err(|errno| StepError::new(Step::Pipe, errno, "socketpair()"))?;
        let sides = Some((Cell::new(Some(ours)), Cell::new(Some(theirs))));
        Ok(Self { sides, from_outside, other_user })
    }

    /// The child's side, between its mounts and its new root, which is its working directory.
    pub(crate) fn child(&self, how: &LaunchOptions<'_>) -> Result<(), StepError> {
        if let Some((ours, theirs)) = &self.sides {
            drop(ours.take());
            let side = theirs.take().ok_or_else(broken)?;
            self.announce(&side).map_err(|_| broken())?;
            allowed(&side)?;
        }
        if self.from_outside {
            return Ok(());
        }
        how.run_hooks_in_mounts(&[HookKind::CreateContainer], "creating")
    }

    /// In the child: it is ready. With the container's root, where the parent's side needs that.
    fn announce(&self, side: &OwnedFd) -> Result<(), Errno> {
        if !self.from_outside {
            return write(side, b"r").map(drop);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, ".", flags, Mode::empty())?;
        hull_sys::send_fd(side.as_fd(), b"r", root.as_fd()).map_err(|err| err.errno())
    }

    /// Waits until the child is ready. Its root, if it was to be sent; `None` if it has ended.
    fn announced(&self, side: &OwnedFd) -> Option<Option<OwnedFd>> {
        if !self.from_outside {
            return (read(side, &mut [0]) == Ok(1)).then_some(None);
        }
        let mut fds = [PollFd::new(side, PollFlags::IN)];
        while poll(&mut fds, None) == Err(Errno::INTR) {}
        hull_sys::receive_fd(side.as_fd()).ok().flatten().map(Some)
    }

    /// Whether a process of its own has the parent's side.
    pub(crate) fn is_beside(&self, how: &LaunchOptions<'_>) -> bool {
        self.sides.is_some() && how.hooks_beside.is_some()
    }

    /// The parent's side. With [`LaunchOptions::hooks_beside`] a process of its own has it, and this returns at once:
    /// the child reports what failed there, or that process does through `report`, if the child was killed.
    pub(crate) fn parent(
        &self,
        how: &LaunchOptions<'_>,
        mut started: PendingProcess,
        report: Option<OwnedFd>,
    ) -> Result<PendingProcess, StepError> {
        let Some((ours, theirs)) = &self.sides else { return Ok(started) };
        drop(theirs.take());
        let side = ours.take().ok_or_else(broken)?;
        let done = match (how.hooks_beside, report) {
            (Some(dir), Some(report)) => self.beside(how, &started, &side, (dir, report)),
            _ => self.serve(how, &started, &side).map(|()| continue_child(&side)),
        };
        if let Err(error) = done {
            started.kill_and_reap();
            return Err(error);
        }
        Ok(started)
    }

    /// Has a process of its own serve the child.
    fn beside(
        &self,
        how: &LaunchOptions<'_>,
        started: &PendingProcess,
        side: &OwnedFd,
        (dir, report): (BorrowedFd<'_>, OwnedFd),
    ) -> Result<(), StepError> {
        let parent = getpid();
        match fork().map_err(StepError::at(Step::Clone))? {
            // It is reaped with all other children.
            ForkResult::Parent { .. } => Ok(()),
            ForkResult::Child => {
                let kept = [side.as_fd(), started.pidfd.as_fd(), dir, report.as_fd()];
                let served = end_with_parent(parent, &kept).and_then(|()| {
                    // Until hooks have ended: what follows a failed start waits for it.
                    let _lock = Lock::take(dir)?;
                    self.serve(how, started, side)
                });
                match served {
                    Ok(()) => {
                        // First: the pipe's end is to be the child's exec.
                        drop(report);
                        continue_child(side);
                    }
                    Err(error) => {
                        // A child that was killed reports nothing.
                        let to = if has_ended(&started.pidfd) { &report } else { side };
                        let _gone = write(to, &encode(&error).unwrap_or_default());
                    }
                }
                hull_sys::exit_now(0)
            }
        }
    }

    fn serve(
        &self,
        how: &LaunchOptions<'_>,
        started: &PendingProcess,
        side: &OwnedFd,
    ) -> Result<(), StepError> {
        let Some(root) = self.announced(side) else {
            // The child has ended; its report has the reason.
            return Ok(());
        };
        how.prepare.map_or(Ok(()), |prepare| (prepare.0)(started.pid))?;
        if let Some(hooks) = how.hooks {
            let surroundings = Surroundings {
                leftovers: Leftovers::OfNode,
                container: Some(started.pidfd.as_fd()),
                directory: how.hooks_directory,
                ..Surroundings::default()
            };
            hooks.run_as(&FROM_PARENT, "creating", started.pid, &surroundings)?;
        }
        if let Some(root) = root {
            self.create_container(how, started, &root)?;
        }
        Ok(())
    }

    /// Runs the createContainer hooks in all namespaces of the child but that of pids.
    fn create_container(
        &self,
        how: &LaunchOptions<'_>,
        started: &PendingProcess,
        root: &OwnedFd,
    ) -> Result<(), StepError> {
        let kinds = [HookKind::CreateContainer];
        let hooks = how.hooks.ok_or_else(broken)?;
        hooks.check(&kinds)?;
        let (status, report) = status_pipe()?;
        let parent = getpid();
        match fork().map_err(StepError::at(Step::Clone))? {
            ForkResult::Parent { pidfd, .. } => {
                drop(report);
                let done = reported(&status);
                let _reaped = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                done
            }
            ForkResult::Child => {
                let (pidfd, kept) = (started.pidfd.as_fd(), root.as_fd());
                let done = end_with_parent(parent, &[pidfd, kept, report.as_fd()])
                    .and_then(|()| self.enter(how, pidfd, kept))
                    .and_then(|()| {
                        let surroundings = Surroundings {
                            leftovers: Leftovers::Killed,
                            container: Some(pidfd),
                            ..Surroundings::default()
                        };
                        hooks.run_as(&kinds, "creating", started.pid, &surroundings)
                    });
                match done {
                    Ok(()) => hull_sys::exit_now(0),
                    Err(error) => fail(&report, &error),
                }
            }
        }
    }

    fn enter(
        &self,
        how: &LaunchOptions<'_>,
        process: BorrowedFd<'_>,
        root: BorrowedFd<'_>,
    ) -> Result<(), StepError> {
        match how.write_maps {
            Some(_) => {
                if self.other_user {
                    enter_user_namespace_of(process)?;
                }
                join_differing(process)?;
            }
            None => join_all(process, self.other_user)?,
        }
        if self.other_user {
            become_container_root()?;
        }
        not_traceable()?;
        let failed = |errno| StepError::new(Step::Pipe, errno, "fchdir(root)");
        rustix::process::fchdir(root).map_err(failed)
    }
}

/// Lets the child continue. One that ended meanwhile has left its report.
fn continue_child(side: &OwnedFd) {
    let _sent = write(side, CONTINUE);
}

/// Whether a process has ended, by its pidfd.
fn has_ended(process: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// Waits for the parent's side; the error that it sends is the child's own.
fn allowed(side: &OwnedFd) -> Result<(), StepError> {
    let (mut answer, mut chunk) = (Vec::new(), [0; ERROR_BYTES_MAX]);
    loop {
        match read(side, &mut chunk) {
            Ok(0) => break,
            Ok(got) => answer.extend_from_slice(&chunk[..got]),
            Err(Errno::INTR) => continue,
            Err(_) => return Err(broken()),
        }
        if answer == CONTINUE {
            return Ok(());
        }
        if answer.len() > ERROR_BYTES_MAX {
            break;
        }
    }
    Err(borsh::from_slice(&answer).unwrap_or_else(|_| broken()))
}

fn broken() -> StepError {
    StepError::new(Step::Pipe, Errno::PIPE, "waiting for the parent's hooks")
}
