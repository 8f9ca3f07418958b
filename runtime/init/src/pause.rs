// SPDX-License-Identifier: Apache-2.0
//! The pod's pause process: it holds the namespaces, and its whole mount namespace is one tmpfs, the
//! pod's /dev/shm.
//!
//! So the host has no mount for it, it goes with the pod whatever is killed, and what a container
//! could reach through /proc/1/root of a shared pid namespace is that tmpfs and nothing else.

use crate::apply::become_container_root;
use crate::attributes::{die_with_parent, not_traceable};
use crate::clone::{CloneArgs, cgroup_error};
use crate::ids;
use crate::mount::{MS_PRIVATE, attach, clone_fd_errno, new_mount};
use crate::pending_process::{PendingProcess, fail};
use crate::plan::{Attrs, IdMaps, Namespace, NamespaceKind, PausePlan, Step, StepError};
use crate::procfs::{PodProcfs, identity};
use crate::sysctl;
use hull_cgroup::{Cgroup, CgroupFs};
use hull_sys::{Attr, flags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, read, write};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, unmount,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, ThreadNameSpaceType,
    move_into_link_name_space, move_into_thread_name_spaces,
};
use std::cell::Cell;
use std::convert::Infallible;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// A pause process that is being started.
#[derive(Debug)]
pub struct StartedPause {
    /// The pause process.
    pub pending: PendingProcess,
    /// The procfs of its pid namespace if that is new, for the containers that join it.
    pub procfs: Option<PodProcfs>,
}

/// Starts the pause process from the program behind `exe`. With `netns` it joins that network, else
/// it gets a new one if the plan says so.
pub fn pause(
    host: &CgroupFs,
    plan: &PausePlan,
    netns: Option<OwnedFd>,
    exe: BorrowedFd<'_>,
) -> Result<StartedPause, StepError> {
    let cgroup = Cgroup::at(host, &plan.cgroup.path).map_err(|err| cgroup_error(&err))?;
    cgroup.create(&plan.cgroup.limits).map_err(|err| cgroup_error(&err))?;
    let mut new = flags::NEWNS;
    for (of, flag) in [
        (&plan.namespaces.ipc, flags::NEWIPC),
        (&plan.namespaces.uts, flags::NEWUTS),
        (&plan.namespaces.pid, flags::NEWPID),
        (&plan.namespaces.user, flags::NEWUSER),
    ] {
        if *of == Namespace::New {
            new |= flag;
        }
    }
    // One of its own belongs to its user namespace, so that the pod may configure it; one that comes
    // along belongs to the host.
    if plan.namespaces.net == Namespace::New && netns.is_none() {
        new |= flags::NEWNET;
    }
    let maps = if plan.namespaces.user == Namespace::New {
        plan.id_maps.clone()
    } else {
        IdMaps::default()
    };
    let clone = CloneArgs {
        host,
        cgroup: &cgroup,
        flags: new,
        pid: None,
        user: None,
        maps: &maps,
        oom_score_adj: plan.oom_score_adj,
        resctrl: None,
        hierarchies: &[],
        write_maps: None,
        user_of_pid: false,
        report_beside: None,
    };
    let handover = (plan.namespaces.pid == Namespace::New).then(Handover::new).transpose()?;
    let pending = clone.run(|report, _| {
        // Without a name: the pod's own, which no other process can join.
        leave_keyring()?;
        if let Some(netns) = &netns {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
                |errno| StepError::new(Step::Join(NamespaceKind::Net), errno, "setns(NEWNET)"),
            )?;
        }
        child(plan, exe, handover.as_ref(), report.as_fd())
    })?;
    let procfs = handover.map_or(Ok(None), |handover| handover.take(&pending))?;
    Ok(StartedPause { pending, procfs })
}

/// In the child; returns only if it failed, and then before its descriptors are closed.
fn child(
    plan: &PausePlan,
    exe: BorrowedFd<'_>,
    handover: Option<&Handover>,
    report: BorrowedFd<'_>,
) -> Result<Infallible, StepError> {
    if plan.namespaces.user == Namespace::New {
        become_container_root()?;
    }
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(|errno| {
            StepError::new(Step::Hostname, errno, format!("sethostname({name})"))
        })?;
    }
    for (at, (name, value)) in plan.sysctls.iter().enumerate() {
        let step = Step::Op(u32::try_from(at).unwrap_or(u32::MAX));
        sysctl::write(name, value).map_err(|(errno, call)| StepError::new(step, errno, call))?;
    }
    if let Some(score) = plan.oom_score_adj {
        // Refused without CAP_SYS_RESOURCE; then it keeps ours.
        let _refused = fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    stdio()?;
    let root_failed = |(errno, call)| StepError::new(Step::PauseRoot, errno, call);
    match handover {
        Some(handover) => {
            let procfs = new_procfs().map_err(root_failed)?;
            root(plan.shm_bytes).map_err(root_failed)?;
            handover.give(&procfs)?;
        }
        None => root(plan.shm_bytes).map_err(root_failed)?,
    }
    drop_rights(plan)?;
    // Changed credentials may have undone it.
    not_traceable()?;
    die_with_parent(report)?;
    hull_sys::reset_signals().map_err(StepError::at(Step::Exec))?;
    let args = hull_sys::CStringArray::new(&[b"pause".to_vec()])
        .map_err(|errno| StepError::new(Step::Exec, errno, "arguments"))?;
    let env = hull_sys::CStringArray::new(&[])
        .map_err(|errno| StepError::new(Step::Exec, errno, "environment"))?;
    hull_sys::close_all_but(3, &[exe, report]).map_err(StepError::at(Step::Stdio))?;
    // Nothing that is owned may be dropped from here on.
    let error = hull_sys::execveat(exe, &args, &env);
    fail(report, &StepError::new(Step::Exec, error.errno(), error.to_string()))
}

fn leave_keyring() -> Result<(), StepError> {
    match hull_sys::join_session_keyring(None) {
        // A kernel without keyrings has nothing to separate.
        Err(err) if err.errno() == Errno::NOSYS => Ok(()),
        other => other.map_err(StepError::at(Step::Identity)),
    }
}

/// Passes the monitor a descriptor of the mount namespace with the pod's procfs: the child stops in that
/// namespace, and continues in a copy of it without the procfs.
struct Handover {
    /// Socket of the monitor, and that of the child: each side takes its own, and closes the other.
    ends: (Cell<Option<OwnedFd>>, Cell<Option<OwnedFd>>),
}

fn broken() -> StepError {
    StepError::new(Step::Pipe, Errno::PIPE, "handing over the pod's procfs")
}

impl Handover {
    fn new() -> Result<Self, StepError> {
        let (flags, kind) = (SocketFlags::CLOEXEC, SocketType::STREAM);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None)
            .map_err(|errno| StepError::new(Step::Pipe, errno, "socketpair()"))?;
        Ok(Self { ends: (Cell::new(Some(ours)), Cell::new(Some(theirs))) })
    }

    /// The child's side: the procfs goes on top of the pod's /dev/shm, and is left behind.
    fn give(&self, procfs: &OwnedFd) -> Result<(), StepError> {
        let failed = |call: &'static str| move |errno| StepError::new(Step::PauseRoot, errno, call);
        drop(self.ends.0.take());
        let end = self.ends.1.take().ok_or_else(broken)?;
        let root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open(/)"))?;
        attach(procfs, root.as_fd()).map_err(failed("move_mount(procfs)"))?;
        write(&end, b"r").map_err(|_| broken())?;
        if read(&end, &mut [0]) != Ok(1) {
            return Err(broken());
        }
        hull_sys::unshare(flags::NEWNS).map_err(StepError::at(Step::PauseRoot))?;
        // `..` of the root is what is mounted on top of it.
        unmount("/..", UnmountFlags::DETACH).map_err(failed("umount2(procfs)"))
    }

    /// The monitor's side.
    fn take(&self, pending: &PendingProcess) -> Result<Option<PodProcfs>, StepError> {
        drop(self.ends.1.take());
        let end = self.ends.0.take().ok_or_else(broken)?;
        if read(&end, &mut [0]) != Ok(1) {
            // The child has ended; its report has the reason.
            return Ok(None);
        }
        // Our child, which waits: the pid is its own.
        let open = |name: &str| {
            let path = format!("/proc/{}/ns/{name}", pending.pid);
            fs::File::open(&path).map_err(|err| {
                let errno = Errno::from_io_error(&err).unwrap_or(Errno::IO);
                StepError::new(Step::PauseRoot, errno, format!("open({path})"))
            })
        };
        let (holder, pid) = (open("mnt")?.into(), open("pid")?);
        let namespace = identity(pid.as_fd())
            .map_err(|errno| StepError::new(Step::PauseRoot, errno, "fstat(pid namespace)"))?;
        write(&end, b"g").map_err(|_| broken())?;
        Ok(Some(PodProcfs { holder, namespace }))
    }
}

/// A procfs of our pid namespace, while the host's is seen (as it must be in a user namespace).
fn new_procfs() -> Result<OwnedFd, (Errno, String)> {
    let attrs = Attrs { nosuid: true, nodev: true, noexec: true, ..Attrs::default() };
    new_mount("proc", "proc", &attrs, &[]).map_err(|failed| (failed.errno, failed.call))
}

/// A pipe from itself to itself: pause neither reads nor writes, and nothing of the host may be there.
fn stdio() -> Result<(), StepError> {
    let failed = |errno| StepError::new(Step::Stdio, errno, "pipe2(CLOEXEC)");
    let (reads, writes) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    rustix::stdio::dup2_stdin(&reads).map_err(failed)?;
    rustix::stdio::dup2_stdout(&writes).map_err(failed)?;
    rustix::stdio::dup2_stderr(&writes).map_err(failed)
}

/// Makes a tmpfs the root, and the only mount, of this mount namespace.
fn root(bytes: u64) -> Result<(), (Errno, String)> {
    fn errno_context(call: &str) -> impl FnOnce(Errno) -> (Errno, String) {
        let call = call.to_owned();
        move |errno| (errno, call)
    }
    let host = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(errno_context("open(/)"))?;
    let private = Attr { propagation: MS_PRIVATE, ..Attr::default() };
    hull_sys::mount_setattr(host.as_fd(), true, &private)
        .map_err(|err| (err.errno(), err.to_string()))?;
    let context =
        fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno_context("fsopen(tmpfs)"))?;
    fsconfig_set_string(&context, "source", "shm").map_err(errno_context("fsconfig(source)"))?;
    fsconfig_set_string(&context, "size", bytes.to_string())
        .map_err(errno_context("fsconfig(size)"))?;
    fsconfig_set_string(&context, "mode", "1777").map_err(errno_context("fsconfig(mode)"))?;
    fsconfig_create(&context).map_err(errno_context("fsconfig(create)"))?;
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
        .map_err(errno_context("fsmount(tmpfs)"))?;
    // Any directory will do: only this namespace sees it, and only until the pivot.
    let place = rustix::fs::openat(CWD, "/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(errno_context("open(/proc)"))?;
    attach(&mount, place.as_fd()).map_err(errno_context("move_mount(shm)"))?;
    rustix::process::fchdir(&mount).map_err(errno_context("fchdir(shm)"))?;
    rustix::process::pivot_root(".", ".").map_err(errno_context("pivot_root(., .)"))?;
    unmount(".", UnmountFlags::DETACH).map_err(errno_context("umount2(., DETACH)"))?;
    rustix::process::chdir("/").map_err(errno_context("chdir(/)"))
}

fn drop_rights(plan: &PausePlan) -> Result<(), StepError> {
    let failed = |call: &'static str| move |errno| StepError::new(Step::Capabilities, errno, call);
    for capability in 0..=63 {
        let bit = CapabilitySet::from_bits_retain(1 << capability);
        match rustix::thread::remove_capability_from_bounding_set(bit) {
            Err(Errno::INVAL) => break,
            other => other.map_err(failed("prctl(CAPBSET_DROP)"))?,
        }
    }
    rustix::thread::set_thread_groups(&[]).map_err(failed("setgroups()"))?;
    let (uid, gid) = (ids::user(plan.uid), ids::group(plan.gid));
    let (uid, gid) = uid.zip(gid).ok_or_else(|| failed("setresuid()")(Errno::INVAL))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("setresgid()"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("setresuid()"))?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).map_err(failed("capset()"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("prctl(NO_NEW_PRIVS)"))
}

/// A detached copy of the pod's /dev/shm, to be mounted in a container.
///
/// Only what is in one's own mount namespace can be cloned (before Linux 6.15 not even a detached
/// mount): so this goes into the pause process's namespace and comes back. The caller is
/// single-threaded, and its root is the host's.
pub fn pod_shm(pause: BorrowedFd<'_>) -> Result<OwnedFd, hull_sys::Error> {
    let error = |call: &'static str| move |errno| hull_sys::Error::new(errno, call);
    let home = fs::File::open("/proc/self/ns/mnt")
        .map_err(hull_sys::Error::of_io(|| "open(/proc/self/ns/mnt)"))?;
    move_into_thread_name_spaces(pause, ThreadNameSpaceType::MOUNT)
        .map_err(error("setns(pause, NEWNS)"))?;
    let root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let shm = root.and_then(|root| clone_fd_errno(root.as_fd(), false));
    // Back first, also after an error: nothing else may happen in there.
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(error("setns(back, NEWNS)"))?;
    shm.map_err(error("open_tree(shm, CLONE)"))
}
