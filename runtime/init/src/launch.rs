// SPDX-License-Identifier: Apache-2.0
//! Launching a process: cgroup, clone, the parent's part, and the child's path to the exec.
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
//! are the container's. Until then `/proc/<pid>/root` would be the host's. Of its messages only the reason of a
//! failure is trusted: its pid comes from the kernel.

use crate::clone::{CloneArgs, cgroup_error};
use crate::hook_sync::HookPhase;
use crate::id_maps::{to_host_id, user_namespace};
use crate::inside_maps::MapPhase;
use crate::namespaces::{
    JoinedNamespaces, enter_time, join_all, join_differing, leave_time, new_flags,
};
use crate::options::LaunchOptions;
use crate::pending_process::{PendingProcess, Silence};
use crate::plan::{IdMaps, Namespace, NamespaceKind, Plan, Process, Step, StepError};
use crate::process::{self, Birth, PreMountFiles};
use crate::streams::Io;
use crate::terminal::NewTerminal;
use crate::{apply, attributes, intermediate_process, mount_sources, procfs};
use hull_cgroup::{Cgroup, CgroupFs};
use hull_sys::flags;
use rustix::fs::{CWD, Mode, OFlags};
use std::cell::Cell;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// A running container that a further process joins.
#[derive(Debug)]
pub struct ExecTarget<'a> {
    /// The container's first process.
    pub pidfd: BorrowedFd<'a>,
    /// Maps of its user namespace, if that is not ours.
    pub id_maps: Option<&'a IdMaps>,
    /// Path of its cgroup, from the root of each hierarchy.
    pub cgroup: &'a str,
}

/// Starts a container's first process.
///
/// The cgroup is created first, and still exists when this fails: the caller removes it. `slots` are the
/// detached mounts to which the plan's binds refer by number.
pub fn spawn(
    host: &CgroupFs,
    plan: &Plan,
    io: Io,
    slots: &[OwnedFd],
) -> Result<PendingProcess, StepError> {
    launch(host, plan, io, slots, &LaunchOptions::default())
}

/// As [`spawn`], with options. With hooks of the kinds prestart or createRuntime it returns when those have run;
/// if one fails, the process is killed. With [`LaunchOptions::hooks_beside`] it does not wait for them.
pub fn launch(
    host: &CgroupFs,
    plan: &Plan,
    io: Io,
    slots: &[OwnedFd],
    how: &LaunchOptions<'_>,
) -> Result<PendingProcess, StepError> {
    let cgroup = create_cgroup(host, plan, how).map_err(|err| cgroup_error(&err))?;
    let mut joined = JoinedNamespaces::open(&plan.namespaces, how.processes)?;
    let mut new = new_flags(&plan.namespaces);
    if joined.pid.is_some() && new & flags::NEWUSER != 0 {
        // A process in a new user namespace may not enter a pid namespace of the host any more.
        let made = user_namespace(&plan.id_maps);
        joined.user = Some(made.map_err(|failed| failed.at(Step::IdMaps))?);
        new &= !flags::NEWUSER;
    }
    let user = joined.user.as_ref().map(|file| file.as_fd());
    let mut sources = mount_sources::open(plan, user, how.write_maps.is_some())?;
    let map_phase = MapPhase::new(plan, &mut sources)?;
    let procfs = procfs(&joined, how)?;
    io.chown_stdio_of(plan);
    let time = enter_time(&plan.namespaces)?;
    let (hook_phase, report) = (HookPhase::new(how, &plan.namespaces)?, Cell::new(None));
    let clone = CloneArgs {
        host,
        cgroup: &cgroup,
        flags: new,
        pid: joined.pid.as_ref().map(|file| file.as_fd()),
        user: joined.user.as_ref().map(|file| file.as_fd()),
        maps: &plan.id_maps,
        oom_score_adj: plan.process.oom_score_adj,
        resctrl: how.resctrl,
        hierarchies: &[],
        write_maps: how.write_maps,
        user_of_pid: false,
        report_beside: hook_phase.is_beside(how).then_some(&report),
    };
    let work = |report: &mut OwnedFd, birth: Birth<'_>| {
        // The host's /proc, which no process of the container can have changed.
        let pre_mount = PreMountFiles::open(&plan.process)?;
        how.leave_keyring()?;
        joined.enter()?;
        if plan.namespaces.cgroup == Namespace::New {
            hull_sys::unshare(flags::NEWCGROUP)
                .map_err(StepError::at(Step::Join(NamespaceKind::Cgroup)))?;
        }
        let terminal = io.new_terminal();
        let (host_devices, mapper) = (how.host_devices, map_phase.child());
        let before_pivot = || hook_phase.child(how);
        let pre_pivot = apply::PrePivot { procfs, host_devices, mapper, terminal, before_pivot };
        let slave = apply::all(host, plan, sources, slots, pre_pivot)?.map(Io::Terminal);
        let io = slave.as_ref().unwrap_or(&io);
        process::exec_process(&plan.process, io, pre_mount, report, how, birth)
    };
    let started = match (clone.pid, clone.user) {
        (None, Some(user)) => {
            let early = || joined.enter_early();
            intermediate_process::run(&clone, user, early, work)
        }
        _ => clone.run(work),
    };
    if let Some(before) = time {
        leave_time(&before)?;
    }
    let started = started?.with_silence(Silence::of(how.start_socket.is_some()));
    map_phase.parent();
    hook_phase.parent(how, started, report.take())
}

fn create_cgroup(
    host: &CgroupFs,
    plan: &Plan,
    how: &LaunchOptions<'_>,
) -> Result<Cgroup, hull_cgroup::Error> {
    let cgroup = Cgroup::at(host, &plan.cgroup.path)?;
    cgroup.create(&plan.cgroup.limits)?;
    if let Some(limits) = how.further_limits {
        cgroup.apply_further(limits)?;
    }
    if let Some((uid, gid)) = host_root(plan) {
        cgroup.delegate(uid, gid)?;
    }
    Ok(cgroup)
}

/// The procfs of a joined pid namespace.
fn procfs(
    joined: &JoinedNamespaces,
    how: &LaunchOptions<'_>,
) -> Result<Option<procfs::Procfs>, StepError> {
    let Some(pid) = &joined.pid else { return Ok(None) };
    let same = |of_pod: &&procfs::PodProcfs| {
        procfs::identity(pid.as_fd()).is_ok_and(|of| of == of_pod.namespace)
    };
    let found = match how.procfs.filter(same) {
        Some(of_pod) => of_pod.copy(),
        None => procfs::of_namespace(pid.as_fd()),
    };
    found.map(Some).map_err(StepError::at(Step::Join(NamespaceKind::Pid)))
}

/// The ids on the host of root in the container's own user namespace.
fn host_root(plan: &Plan) -> Option<(u32, u32)> {
    let IdMaps { uids, gids } = &plan.id_maps;
    if plan.namespaces.user == Namespace::Inherit || plan.namespaces.cgroup != Namespace::New {
        return None;
    }
    to_host_id(uids, 0).zip(to_host_id(gids, 0))
}

/// Starts a further process in a container.
pub fn exec(
    host: &CgroupFs,
    target: &ExecTarget<'_>,
    process: &Process,
    io: &Io,
) -> Result<PendingProcess, StepError> {
    launch_exec(host, target, process, io, &LaunchOptions::default())
}

/// As [`exec`], with options; their hooks are ignored.
pub fn launch_exec(
    host: &CgroupFs,
    target: &ExecTarget<'_>,
    process: &Process,
    io: &Io,
    how: &LaunchOptions<'_>,
) -> Result<PendingProcess, StepError> {
    let cgroup = cgroup(host, target.cgroup)?;
    let maps = IdMaps::default();
    io.chown_stdio(process.uid, process.gid, target.id_maps);
    let clone = CloneArgs {
        host,
        cgroup: &cgroup,
        flags: 0,
        pid: Some(target.pidfd),
        // Joined together with all others.
        user: None,
        maps: &maps,
        oom_score_adj: process.oom_score_adj,
        resctrl: how.resctrl,
        hierarchies: how.hierarchies,
        write_maps: how.write_maps,
        user_of_pid: how.write_maps.is_some() && target.id_maps.is_some(),
        report_beside: None,
    };
    clone.run(|report, birth| {
        let pre_mount = PreMountFiles::open(process)?;
        how.leave_keyring()?;
        match how.write_maps {
            // Its user namespace was entered first.
            Some(_) => join_differing(target.pidfd)?,
            None => join_all(target.pidfd, target.id_maps.is_some())?,
        }
        let slave = match io {
            Io::NewTerminal(new) => Some(Io::Terminal(open_inside(new, process)?)),
            Io::Terminal(_) | Io::Streams { .. } => None,
        };
        let io = slave.as_ref().unwrap_or(io);
        process::exec_process(process, io, pre_mount, report, how, birth)
    })
}

/// In the mount and user namespaces of a container: opens a terminal there, as the container's root.
fn open_inside(new: &NewTerminal, process: &Process) -> Result<OwnedFd, StepError> {
    apply::become_container_root()?;
    // Changed credentials may have undone it.
    attributes::not_traceable()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, "/", flags, Mode::empty())
        .map_err(|errno| StepError::new(Step::Stdio, errno, "open(/)"))?;
    new.open(root.as_fd(), process)
}

fn cgroup(host: &CgroupFs, path: &str) -> Result<Cgroup, StepError> {
    Cgroup::at(host, path).map_err(|err| cgroup_error(&err))
}
