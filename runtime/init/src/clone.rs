// SPDX-License-Identifier: Apache-2.0
//! One clone with everything that belongs to it: cgroup, namespaces, id maps, and the child's first calls.

use crate::attributes;
use crate::id_maps::write_maps;
use crate::namespaces::{enter_pid_namespace, enter_user_namespace_of};
use crate::options::WriteMaps;
use crate::pending_process::{PendingProcess, fail, status_pipe};
use crate::plan::{HINT, IdMaps, NamespaceKind, Step, StepError};
use crate::process::{self, Birth};
use hull_cgroup::{Cgroup, CgroupFs};
use hull_sys::{BirthSlot, ForkResult, clone3, flags};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::cell::Cell;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// With the causes that the errno does not say, and the hint: a report has only this text. The bounds and usage that
/// the hint names are those of this moment.
pub(crate) fn cgroup_error(err: &hull_cgroup::Error) -> StepError {
    let mut call = err.to_string();
    if let Some(source) = std::error::Error::source(err).filter(|of| !of.is::<std::io::Error>()) {
        call = format!("{call}: {source}");
    }
    if let Some(hint) = err.hint() {
        call = format!("{call}{HINT}{hint}");
    }
    StepError { step: Step::Cgroup, errno: err.errno(), call }
}

/// The arguments of a clone.
pub(crate) struct CloneArgs<'a> {
    pub(crate) host: &'a CgroupFs,
    pub(crate) cgroup: &'a Cgroup,
    /// `CLONE_NEW*` flags of the new namespaces.
    pub(crate) flags: u64,
    /// A descriptor whose pid namespace the program will be in.
    pub(crate) pid: Option<BorrowedFd<'a>>,
    /// A user namespace that the process enters, and that owns what it creates.
    pub(crate) user: Option<BorrowedFd<'a>>,
    /// Maps of the new user namespace, if `flags` has one.
    pub(crate) maps: &'a IdMaps,
    /// Set before a user namespace is entered, since it cannot be lowered there.
    pub(crate) oom_score_adj: Option<i32>,
    /// The file `tasks` of the group of resctrl that the process enters.
    pub(crate) resctrl: Option<BorrowedFd<'a>>,
    /// Other places in hierarchies of cgroup v1: controller and path.
    pub(crate) hierarchies: &'a [(String, String)],
    /// Writes the maps instead of this process: see [`LaunchOptions`](crate::LaunchOptions).
    pub(crate) write_maps: Option<WriteMaps>,
    /// Whether the user namespace of the process that `pid` names is entered before its pid namespace: only there is the
    /// right to.
    pub(crate) user_of_pid: bool,
    /// Where the parent's copy of the pipe for the report is kept, for a process beside the child that reports, too.
    pub(crate) report_beside: Option<&'a Cell<Option<OwnedFd>>>,
}

impl CloneArgs<'_> {
    /// Clones; the child runs `work`, which returns only if it failed.
    pub(crate) fn run(
        &self,
        work: impl FnOnce(&mut OwnedFd, Birth<'_>) -> Result<std::convert::Infallible, StepError>,
    ) -> Result<PendingProcess, StepError> {
        let slot = self.pid.map(|_| BirthSlot::new()).transpose();
        let slot = slot.map_err(StepError::at(Step::Clone))?;
        let (news, mut report) = status_pipe()?;
        let into = self.cgroup.dir_fd().map_err(|err| cgroup_error(&err))?;
        let flags = if self.pid.is_some() { 0 } else { self.flags };
        let handshake = (flags & flags::NEWUSER != 0)
            .then(|| pipe_with(PipeFlags::CLOEXEC))
            .transpose()
            .map_err(|errno| StepError::new(Step::Pipe, errno, "pipe2(CLOEXEC)"))?;
        let forked = clone3(flags, into.as_ref().map(OwnedFd::as_fd));
        match forked.map_err(StepError::at(Step::Clone))? {
            ForkResult::Parent { pid, pidfd } => {
                self.keep_report(report);
                let mut started = PendingProcess::new(pid, pidfd, news, slot);
                // Later processes must not inherit the page: a tracer could write into it there.
                if let Err(err) = started.keep_slot_from_others() {
                    started.kill_and_reap();
                    return Err(StepError::at(Step::Clone)(err));
                }
                if let Some((_, go)) = handshake {
                    // The child waits; if this fails, the closed pipe ends it.
                    self.cgroup.add(pid, false).map_err(|err| cgroup_error(&err))?;
                    self.write_maps.unwrap_or(write_maps)(pid, self.maps)?;
                    process::set_oom_score(&format!("{pid}/oom_score_adj"), self.oom_score_adj)?;
                    write(&go, b"g")
                        .map_err(|errno| StepError::new(Step::Pipe, errno, "write(go)"))?;
                }
                Ok(started)
            }
            ForkResult::Child => {
                drop((news, into));
                let wait = handshake.map(|(wait, go)| {
                    drop(go);
                    wait
                });
                let birth = slot.as_ref().map_or(Birth::InPlace, Birth::Sibling);
                let failed = self.child(wait).and_then(|()| work(&mut report, birth));
                match failed {
                    Err(error) => fail(&report, &error),
                    Ok(never) => match never {},
                }
            }
        }
    }

    /// In the parent: keeps its copy of the report's end of the status pipe where that is asked for, and closes it else.
    pub(crate) fn keep_report(&self, report: OwnedFd) {
        if let Some(place) = self.report_beside {
            place.set(Some(report));
        }
    }

    /// The first calls of every child.
    fn child(&self, wait: Option<OwnedFd>) -> Result<(), StepError> {
        self.enter_resctrl()?;
        // A parent of the same user writes the maps, through files that are root's once we are not traceable.
        if self.write_maps.is_none() {
            attributes::not_traceable()?;
        }
        match wait {
            Some(wait) => {
                if read(&wait, &mut [0]) != Ok(1) {
                    return Err(StepError::new(Step::IdMaps, Errno::CANCELED, "read(go)"));
                }
            }
            None => self.enter_cgroups()?,
        }
        attributes::not_traceable()?;
        let Some(pid) = self.pid else { return attributes::lead_session() };
        if self.user_of_pid {
            enter_user_namespace_of(pid)?;
            attributes::not_traceable()?;
        }
        // Before rights over it are lost. It applies to our children, not to us.
        enter_pid_namespace(pid)?;
        if let Some(user) = self.user {
            // `work` sets it too, but cannot lower it in a user namespace.
            process::set_oom_score("self/oom_score_adj", self.oom_score_adj)?;
            let link = LinkNameSpaceType::User;
            move_into_link_name_space(user, Some(link)).map_err(|errno| {
                StepError::new(Step::Join(NamespaceKind::User), errno, "setns(NEWUSER)")
            })?;
            attributes::not_traceable()?;
        }
        if self.flags == 0 {
            return Ok(());
        }
        hull_sys::unshare(self.flags).map_err(StepError::at(Step::Clone))
    }

    /// The calling process enters its group of resctrl, which its children inherit.
    pub(crate) fn enter_resctrl(&self) -> Result<(), StepError> {
        let Some(tasks) = self.resctrl else { return Ok(()) };
        // 0 is the writing process.
        write(tasks, b"0\n").map(drop).map_err(|errno| {
            StepError::new(Step::Cgroup, errno, "write(tasks of its group of resctrl)")
        })
    }

    /// The calling process enters the v1 trees; the v2 tree was entered by its clone, if there is one.
    pub(crate) fn enter_cgroups(&self) -> Result<(), StepError> {
        if self.host.hierarchies().is_empty() {
            return Ok(());
        }
        let cloned_into = self.host.unified().is_some();
        // 0 is the writing process.
        self.cgroup.add_at(0, !cloned_into, self.hierarchies).map_err(|err| cgroup_error(&err))
    }
}
