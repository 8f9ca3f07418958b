// SPDX-License-Identifier: Apache-2.0
//! A process born into a user namespace that exists, such as its pod's, with a pid namespace of its own.
//!
//! ```text
//! monitor ─ clone3 ─▶ in between: cgroups, score, setns(user) ─ clone3(PARENT) ─▶ container
//!    ▲                     └─ tells the container's number, ends
//!    └── parent of both
//! ```
//!
//! What a process makes belongs to the user namespace that it is in, and the container's mounts and pid
//! namespace must belong to the pod's; but who enters a user namespace loses the rights to come back.
//! So somebody in between enters, and the container is made as its sibling.

use crate::child::{Clone, cgroup_error};
use crate::plan::{NamespaceKind, Step, StepError};
use crate::process::{Birth, lead_session, not_traceable, set_oom_score};
use crate::starting::{Starting, fail, status_pipe};
use hull_sys::{ForkResult, clone3, flags};
use rustix::io::{read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::convert::Infallible;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

impl Clone<'_> {
    /// As [`Clone::run`], inside of `user`.
    pub(crate) fn run_inside(
        &self,
        user: BorrowedFd<'_>,
        work: impl FnOnce(&mut OwnedFd, Birth<'_>) -> Result<Infallible, StepError>,
    ) -> Result<Starting, StepError> {
        let (news, mut report) = status_pipe()?;
        let (told, tell) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|errno| StepError::new(Step::Pipe, errno, "pipe2(CLOEXEC)"))?;
        let into = self.cgroup.dir_fd().map_err(|err| cgroup_error(&err))?;
        let forked = clone3(0, into.as_ref().map(OwnedFd::as_fd));
        match forked.map_err(StepError::of(Step::Clone))? {
            ForkResult::Parent { pidfd, .. } => {
                drop((report, tell));
                let mut number = [0; 4];
                let got = read(&told, &mut number).unwrap_or(0);
                // It has nothing left to do; the loop must not take it for one of the pod's.
                let _ended = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                let pid = i32::from_ne_bytes(number);
                match Pid::from_raw(pid).filter(|_| got == number.len()) {
                    // Ours, and not waited for yet: the number is still its own.
                    Some(made) => rustix::process::pidfd_open(made, PidfdFlags::empty())
                        .map(|pidfd| Starting::new(pid, pidfd, news, None))
                        .map_err(|errno| StepError::new(Step::Clone, errno, "pidfd_open()")),
                    None => Err(Starting::failure(news, pidfd)),
                }
            }
            ForkResult::Child => {
                drop((news, told));
                match self.enter_and_clone(user) {
                    Ok(ForkResult::Parent { pid, .. }) => {
                        // Without this word nobody learns of the child, which then must not go on.
                        let said = write(&tell, &pid.to_ne_bytes());
                        if said.is_err()
                            && let Some(pid) = Pid::from_raw(pid)
                        {
                            let kill = rustix::process::Signal::KILL;
                            let _gone = rustix::process::kill_process(pid, kill);
                        }
                        hull_sys::exit_now(0)
                    }
                    Ok(ForkResult::Child) => {
                        drop(tell);
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

    fn enter_and_clone(&self, user: BorrowedFd<'_>) -> Result<ForkResult, StepError> {
        not_traceable()?;
        self.enter_cgroups()?;
        set_oom_score("self/oom_score_adj", self.oom_score_adj)?;
        move_into_link_name_space(user, Some(LinkNameSpaceType::User)).map_err(|errno| {
            StepError::new(Step::Join(NamespaceKind::User), errno, "setns(NEWUSER)")
        })?;
        clone3(self.flags | flags::PARENT, None).map_err(StepError::of(Step::Clone))
    }
}

fn born() -> Result<(), StepError> {
    // Changed credentials may have undone it.
    not_traceable()?;
    lead_session()
}
