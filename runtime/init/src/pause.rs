// SPDX-License-Identifier: Apache-2.0
//! The pod's pause process: it holds the namespaces, and its whole mount namespace is one tmpfs, the
//! pod's /dev/shm.
//!
//! So the host has no mount for it, it goes with the pod whatever is killed, and what a container
//! could reach through /proc/1/root of a shared pid namespace is that tmpfs and nothing else.

use crate::apply::become_root_inside;
use crate::child::{Clone, cgroup_error};
use crate::ids;
use crate::mount::{MS_PRIVATE, attach, clone_fd_errno};
use crate::plan::{IdMaps, Namespace, NamespaceKind, PausePlan, Step, StepError};
use crate::process::die_with_parent;
use crate::starting::Starting;
use crate::sysctl;
use hull_cgroup::{Cgroup, Host};
use hull_sys::{Attr, flags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, unmount,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, ThreadNameSpaceType,
    move_into_link_name_space, move_into_thread_name_spaces,
};
use std::convert::Infallible;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Starts the pause process from the program behind `exe`. With `netns` it joins that network, else
/// it gets a new one if the plan says so.
pub fn pause(
    host: &Host,
    plan: &PausePlan,
    netns: Option<OwnedFd>,
    exe: BorrowedFd<'_>,
) -> Result<Starting, StepError> {
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
    let clone = Clone {
        host,
        cgroup: &cgroup,
        flags: new,
        pid: None,
        user: None,
        maps: &maps,
        oom_score_adj: plan.oom_score_adj,
    };
    clone.run(|report| {
        if let Some(netns) = &netns {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
                |errno| StepError::new(Step::Join(NamespaceKind::Net), errno, "setns(NEWNET)"),
            )?;
        }
        child(plan, exe, report.as_fd())
    })
}

fn child(
    plan: &PausePlan,
    exe: BorrowedFd<'_>,
    report: BorrowedFd<'_>,
) -> Result<Infallible, StepError> {
    if plan.namespaces.user == Namespace::New {
        become_root_inside()?;
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
    root(plan.shm_bytes).map_err(|(errno, call)| StepError::new(Step::PauseRoot, errno, call))?;
    drop_rights(plan)?;
    die_with_parent(report)?;
    hull_sys::reset_signals().map_err(StepError::of(Step::Exec))?;
    hull_sys::close_range_on_exec(3).map_err(StepError::of(Step::Stdio))?;
    let args = hull_sys::Strings::new(&[b"pause".to_vec()])
        .map_err(|errno| StepError::new(Step::Exec, errno, "arguments"))?;
    let env = hull_sys::Strings::new(&[])
        .map_err(|errno| StepError::new(Step::Exec, errno, "environment"))?;
    let error = hull_sys::execveat(exe, &args, &env);
    Err(StepError::new(Step::Exec, error.errno(), error.to_string()))
}

fn stdio() -> Result<(), StepError> {
    let failed = |errno| StepError::new(Step::Stdio, errno, "open(/dev/null)");
    let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    rustix::stdio::dup2_stdin(&null).map_err(failed)?;
    rustix::stdio::dup2_stdout(&null).map_err(failed)?;
    rustix::stdio::dup2_stderr(&null).map_err(failed)
}

/// Makes a tmpfs the root, and the only mount, of this mount namespace.
fn root(bytes: u64) -> Result<(), (Errno, String)> {
    fn of(call: &str) -> impl FnOnce(Errno) -> (Errno, String) {
        let call = call.to_owned();
        move |errno| (errno, call)
    }
    let host = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(of("open(/)"))?;
    let private = Attr { propagation: MS_PRIVATE, ..Attr::default() };
    hull_sys::mount_setattr(host.as_fd(), true, &private)
        .map_err(|err| (err.errno(), err.to_string()))?;
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(of("fsopen(tmpfs)"))?;
    fsconfig_set_string(&context, "source", "shm").map_err(of("fsconfig(source)"))?;
    fsconfig_set_string(&context, "size", bytes.to_string()).map_err(of("fsconfig(size)"))?;
    fsconfig_set_string(&context, "mode", "1777").map_err(of("fsconfig(mode)"))?;
    fsconfig_create(&context).map_err(of("fsconfig(create)"))?;
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount =
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attrs).map_err(of("fsmount(tmpfs)"))?;
    // Any directory will do: only this namespace sees it, and only until the pivot.
    let place = rustix::fs::openat(CWD, "/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(of("open(/proc)"))?;
    attach(&mount, place.as_fd()).map_err(of("move_mount(shm)"))?;
    rustix::process::fchdir(&mount).map_err(of("fchdir(shm)"))?;
    rustix::process::pivot_root(".", ".").map_err(of("pivot_root(., .)"))?;
    unmount(".", UnmountFlags::DETACH).map_err(of("umount2(., DETACH)"))?;
    rustix::process::chdir("/").map_err(of("chdir(/)"))
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
    // Back first, whatever came of it: nothing else may happen in there.
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(error("setns(back, NEWNS)"))?;
    shm.map_err(error("open_tree(shm, CLONE)"))
}
