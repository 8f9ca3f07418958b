// SPDX-License-Identifier: Apache-2.0
//! Making the process: cgroup, clone, what the parent has to do for it, and the child's way to the
//! exec.
//!
//! ```text
//! a pid namespace of its own, or the host's        one that others are in (an exec, a shared one)
//!
//! parent ─ clone3 ─▶ mounts, root, identity        parent ─ clone3 ─▶ mounts, root, identity,
//!                    exec                                             descriptors closed
//!                                                             └─ clone(PARENT) ─▶ exec
//! ```
//!
//! The rule: nobody is seen in a pid namespace of others before its root, its identity and its descriptors
//! are the container's. Until then `/proc/<pid>/root` would be the host's. Nothing that it says is believed but
//! the reason of a failure: its number comes from the kernel.

use crate::launch::{Launch, Turn};
use crate::namespaces::{
    JoinedNamespaces, enter_pid_namespace, enter_time, join_all, leave_time, new_flags,
};
use crate::plan::{IdMaps, Namespace, NamespaceKind, Plan, Process, Step, StepError};
use crate::process::Birth;
use crate::starting::{Starting, fail, status_pipe};
use crate::streams::Io;
use crate::{apply, process, procfs, sources};
use hull_cgroup::{Cgroup, CgroupFs};
use hull_sys::{BirthSlot, ForkResult, clone3, flags};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// A running container that a further process joins.
#[derive(Debug)]
pub struct ExecTarget<'a> {
    /// Its first process.
    pub pidfd: BorrowedFd<'a>,
    /// Maps of its user namespace, when it has one that is not ours.
    pub id_maps: Option<&'a IdMaps>,
    /// Its cgroup.
    pub cgroup: &'a str,
}

/// Starts a container's first process.
///
/// The cgroup is made first and is there when this fails too: the caller removes it. `slots` are the
/// detached mounts that the plan's binds name by number.
pub fn spawn(
    host: &CgroupFs,
    plan: &Plan,
    io: Io,
    slots: &[OwnedFd],
) -> Result<Starting, StepError> {
    launch(host, plan, io, slots, &Launch::default())
}

/// As [`spawn`], with what goes beyond a plan. With hooks for the time before the root is changed it
/// comes back when those have run; when one fails the process is gone.
pub fn launch(
    host: &CgroupFs,
    plan: &Plan,
    io: Io,
    slots: &[OwnedFd],
    how: &Launch<'_>,
) -> Result<Starting, StepError> {
    let cgroup = cgroup(host, &plan.cgroup.path)?;
    cgroup.create(&plan.cgroup.limits).map_err(|err| cgroup_error(&err))?;
    if let Some((uid, gid)) = root_outside(plan) {
        cgroup.delegate(uid, gid).map_err(|err| cgroup_error(&err))?;
    }
    let mut joined = JoinedNamespaces::open(&plan.namespaces, how.processes)?;
    let mut new = new_flags(&plan.namespaces);
    if joined.pid.is_some() && new & flags::NEWUSER != 0 {
        // Who is in a new user namespace may not enter a pid namespace of the host's any more.
        let made = sources::user_namespace(&plan.id_maps);
        joined.user = Some(made.map_err(|failed| failed.at(Step::IdMaps))?);
        new &= !flags::NEWUSER;
    }
    let sources = sources::open(plan, joined.user.as_ref().map(|file| file.as_fd()))?;
    let procfs = procfs(&joined, how)?;
    io.chown_for(plan);
    let time = enter_time(&plan.namespaces)?;
    let clone = Clone {
        host,
        cgroup: &cgroup,
        flags: new,
        pid: joined.pid.as_ref().map(|file| file.as_fd()),
        user: joined.user.as_ref().map(|file| file.as_fd()),
        maps: &plan.id_maps,
        oom_score_adj: plan.process.oom_score_adj,
    };
    let turn = Turn::of(how)?;
    let started = clone.run(|report, birth| {
        // The host's /proc, which nobody in the container can have changed.
        let early = process::Early::open(&plan.process)?;
        how.leave_keyring()?;
        joined.enter()?;
        if plan.namespaces.cgroup == Namespace::New {
            hull_sys::unshare(flags::NEWCGROUP)
                .map_err(StepError::of(Step::Join(NamespaceKind::Cgroup)))?;
        }
        let console = match &io {
            Io::Terminal { path, .. } => Some(path.as_str()),
            Io::Streams { .. } => None,
        };
        let before_pivot = || turn.child(how);
        let last = apply::Last { procfs, console, before_pivot };
        apply::all(host, plan, sources, slots, last)?;
        process::become_program(&plan.process, &io, early, report, how, birth)
    });
    if let Some(before) = time {
        leave_time(&before)?;
    }
    turn.parent(how, started?)
}

/// Where the procfs of a joined pid namespace comes from.
fn procfs(
    joined: &JoinedNamespaces,
    how: &Launch<'_>,
) -> Result<Option<procfs::Procfs>, StepError> {
    let Some(pid) = &joined.pid else { return Ok(None) };
    let same = |of_pod: &&procfs::PodProcfs| {
        procfs::identity(pid.as_fd()).is_ok_and(|of| of == of_pod.namespace)
    };
    let found = match how.procfs.filter(same) {
        Some(of_pod) => of_pod.copy(),
        None => procfs::of_namespace(pid.as_fd()),
    };
    found.map(Some).map_err(StepError::of(Step::Join(NamespaceKind::Pid)))
}

/// Whom root of the container's own user namespace is outside.
fn root_outside(plan: &Plan) -> Option<(u32, u32)> {
    let IdMaps { uids, gids } = &plan.id_maps;
    if plan.namespaces.user == Namespace::Inherit || plan.namespaces.cgroup != Namespace::New {
        return None;
    }
    sources::outside(uids, 0).zip(sources::outside(gids, 0))
}

/// Starts a further process in a container.
pub fn exec(
    host: &CgroupFs,
    target: &ExecTarget<'_>,
    process: &Process,
    io: &Io,
) -> Result<Starting, StepError> {
    launch_exec(host, target, process, io, &Launch::default())
}

/// As [`exec`], with what goes beyond a process. Its hooks are not looked at.
pub fn launch_exec(
    host: &CgroupFs,
    target: &ExecTarget<'_>,
    process: &Process,
    io: &Io,
    how: &Launch<'_>,
) -> Result<Starting, StepError> {
    let cgroup = cgroup(host, target.cgroup)?;
    let maps = IdMaps::default();
    io.chown_inside(process.uid, process.gid, target.id_maps);
    let clone = Clone {
        host,
        cgroup: &cgroup,
        flags: 0,
        pid: Some(target.pidfd),
        // Entered with all others: none is made.
        user: None,
        maps: &maps,
        oom_score_adj: process.oom_score_adj,
    };
    clone.run(|report, birth| {
        let early = process::Early::open(process)?;
        how.leave_keyring()?;
        join_all(target.pidfd, target.id_maps.is_some())?;
        process::become_program(process, io, early, report, how, birth)
    })
}

fn cgroup(host: &CgroupFs, path: &str) -> Result<Cgroup, StepError> {
    Cgroup::at(host, path).map_err(|err| cgroup_error(&err))
}

/// With the chain of causes: what reads the report has nothing else.
pub(crate) fn cgroup_error(err: &hull_cgroup::Error) -> StepError {
    let mut call = err.to_string();
    if let Some(source) = std::error::Error::source(err) {
        call = format!("{call}: {source}");
    }
    if let Some(hint) = err.hint() {
        call = format!("{call} ({hint})");
    }
    StepError { step: Step::Cgroup, errno: err.errno(), call }
}

/// A clone with everything that belongs to it.
pub(crate) struct Clone<'a> {
    pub(crate) host: &'a CgroupFs,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) flags: u64,
    /// A descriptor whose pid namespace the program will be in.
    pub(crate) pid: Option<BorrowedFd<'a>>,
    /// A user namespace that the process enters, and what it makes belongs to.
    pub(crate) user: Option<BorrowedFd<'a>>,
    /// Of a user namespace that `flags` makes.
    pub(crate) maps: &'a IdMaps,
    /// Set before a user namespace is entered, where nobody may lower it.
    pub(crate) oom_score_adj: Option<i32>,
}

impl Clone<'_> {
    /// Clones; the child runs `work`, which does not come back unless it failed.
    pub(crate) fn run(
        &self,
        work: impl FnOnce(&mut OwnedFd, Birth<'_>) -> Result<std::convert::Infallible, StepError>,
    ) -> Result<Starting, StepError> {
        if let (None, Some(user)) = (self.pid, self.user) {
            return self.run_inside(user, work);
        }
        let slot = self.pid.map(|_| BirthSlot::new()).transpose();
        let slot = slot.map_err(StepError::of(Step::Clone))?;
        let (news, mut report) = status_pipe()?;
        let into = self.cgroup.dir_fd().map_err(|err| cgroup_error(&err))?;
        let flags = if self.pid.is_some() { 0 } else { self.flags };
        let handshake = (flags & flags::NEWUSER != 0)
            .then(|| pipe_with(PipeFlags::CLOEXEC))
            .transpose()
            .map_err(|errno| StepError::new(Step::Pipe, errno, "pipe2(CLOEXEC)"))?;
        let forked = clone3(flags, into.as_ref().map(OwnedFd::as_fd));
        match forked.map_err(StepError::of(Step::Clone))? {
            ForkResult::Parent { pid, pidfd } => {
                drop(report);
                let mut started = Starting::new(pid, pidfd, news, slot);
                // Processes that are made from now on must not have the page: a tracer could write into it there.
                if let Err(err) = started.keep_slot_from_others() {
                    started.kill_and_reap();
                    return Err(StepError::of(Step::Clone)(err));
                }
                if let Some((_, go)) = handshake {
                    // The child waits; when this fails the closed pipe ends it.
                    self.cgroup.add(pid, false).map_err(|err| cgroup_error(&err))?;
                    write_maps(pid, self.maps)?;
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

    /// What every child does first.
    fn child(&self, wait: Option<OwnedFd>) -> Result<(), StepError> {
        process::not_traceable()?;
        match wait {
            Some(wait) => {
                if read(&wait, &mut [0]) != Ok(1) {
                    return Err(StepError::new(Step::IdMaps, Errno::CANCELED, "read(go)"));
                }
            }
            None => self.enter_cgroups()?,
        }
        let Some(pid) = self.pid else { return process::lead_session() };
        // While the rights over it are there. It is our children's, not ours.
        enter_pid_namespace(pid)?;
        if let Some(user) = self.user {
            // The work sets it too, but in a user namespace it has no right to lower it any more.
            process::set_oom_score("self/oom_score_adj", self.oom_score_adj)?;
            let link = LinkNameSpaceType::User;
            move_into_link_name_space(user, Some(link)).map_err(|errno| {
                StepError::new(Step::Join(NamespaceKind::User), errno, "setns(NEWUSER)")
            })?;
            process::not_traceable()?;
        }
        if self.flags == 0 {
            return Ok(());
        }
        hull_sys::unshare(self.flags).map_err(StepError::of(Step::Clone))
    }

    /// The calling process enters the v1 trees; the v2 tree was entered by its clone, if there is one.
    pub(crate) fn enter_cgroups(&self) -> Result<(), StepError> {
        if self.host.hierarchies().is_empty() {
            return Ok(());
        }
        let cloned_into = self.host.unified().is_some();
        // 0 is whoever writes.
        self.cgroup.add(0, !cloned_into).map_err(|err| cgroup_error(&err))
    }
}

/// `user_namespaces(7)`: each map in one write.
pub(crate) fn write_maps(pid: i32, maps: &IdMaps) -> Result<(), StepError> {
    for (file, ranges) in [("uid_map", &maps.uids), ("gid_map", &maps.gids)] {
        let path = format!("/proc/{pid}/{file}");
        let text: String = ranges
            .iter()
            .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.length))
            .collect();
        fs::write(&path, text).map_err(|err| {
            let errno = Errno::from_io_error(&err).unwrap_or(Errno::IO);
            StepError::new(Step::IdMaps, errno, format!("write({path})"))
        })?;
    }
    Ok(())
}
