// SPDX-License-Identifier: Apache-2.0
//! A process born into a user namespace that exists, such as its pod's, with a pid namespace of its own.
//!
//! ```text
//! monitor ─ clone3 ─▶ intermediate: cgroups, score, setns(user) ─ clone3(PARENT) ─▶ container
//!    ▲                     └─ sends the container's pid, ends
//!    └── parent of both
//! ```
//!
//! Mounts and namespaces belong to the user namespace of the process that creates them, and the container's must
//! belong to the pod's. But a process that enters a user namespace loses the rights to come back. So an
//! intermediate process enters, and creates the container as its sibling.

use crate::attributes::{lead_session, not_traceable};
use crate::clone::{CloneArgs, cgroup_error};
use crate::pending_process::{PendingProcess, fail, status_pipe};
use crate::plan::{NamespaceKind, Step, StepError};
use crate::process::{Birth, set_oom_score};
use hull_sys::{ForkResult, clone3, flags};
use rustix::io::{read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::convert::Infallible;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// As [`CloneArgs::run`], inside of the user namespace `user`. `early` is called before it is entered.
pub(crate) fn run(
    args: &CloneArgs<'_>,
    user: BorrowedFd<'_>,
    early: impl FnOnce(),
    work: impl FnOnce(&mut OwnedFd, Birth<'_>) -> Result<Infallible, StepError>,
) -> Result<PendingProcess, StepError> {
    let (news, mut report) = status_pipe()?;
    let (pid_reader, pid_writer) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| StepError::new(Step::Pipe, errno, "pipe2(CLOEXEC)"))?;
    let into = args.cgroup.dir_fd().map_err(|err| cgroup_error(&err))?;
    let forked = clone3(0, into.as_ref().map(OwnedFd::as_fd));
    match forked.map_err(StepError::at(Step::Clone))? {
        ForkResult::Parent { pidfd, .. } => {
            drop(pid_writer);
            args.keep_report(report);
            let mut number = [0; 4];
            let got = read(&pid_reader, &mut number).unwrap_or(0);
            // The event loop must not reap it as a process of the pod.
            let _ended = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            let pid = i32::from_ne_bytes(number);
            match Pid::from_raw(pid).filter(|_| got == number.len()) {
                // Our child, and not reaped yet: the pid is still its own.
                Some(made) => rustix::process::pidfd_open(made, PidfdFlags::empty())
                    .map(|pidfd| PendingProcess::new(pid, pidfd, news, None))
                    .map_err(|errno| StepError::new(Step::Clone, errno, "pidfd_open()")),
                None => Err(PendingProcess::failure(news, pidfd)),
            }
        }
        ForkResult::Child => {
            drop((news, pid_reader));
            match enter_and_clone(args, user, early) {
                Ok(ForkResult::Parent { pid, .. }) => {
                    // Without this message the monitor would not know the child, which then must not continue.
                    let sent = write(&pid_writer, &pid.to_ne_bytes());
                    if sent.is_err()
                        && let Some(pid) = Pid::from_raw(pid)
                    {
                        let kill = rustix::process::Signal::KILL;
                        let _gone = rustix::process::kill_process(pid, kill);
                    }
                    hull_sys::exit_now(0)
                }
                Ok(ForkResult::Child) => {
                    drop(pid_writer);
                    match born().and_then(|()| work(&mut report, Birth::InPlace)) {
                        Err(error) => fail(&report, &error),
                        Ok(never) => match never {},
                    }
                }
                Err(error) => fail(&report, &error),
            }
        }
    }
}

fn enter_and_clone(
    args: &CloneArgs<'_>,
    user: BorrowedFd<'_>,
    early: impl FnOnce(),
) -> Result<ForkResult, StepError> {
    not_traceable()?;
    args.enter_resctrl()?;
    args.enter_cgroups()?;
    set_oom_score("self/oom_score_adj", args.oom_score_adj)?;
    early();
    move_into_link_name_space(user, Some(LinkNameSpaceType::User)).map_err(|errno| {
        StepError::new(Step::Join(NamespaceKind::User), errno, "setns(NEWUSER)")
    })?;
    clone3(args.flags | flags::PARENT, None).map_err(StepError::at(Step::Clone))
}

fn born() -> Result<(), StepError> {
    // Changed credentials may have undone it.
    not_traceable()?;
    lead_session()
}
