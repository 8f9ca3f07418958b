// SPDX-License-Identifier: Apache-2.0
//! Gathers the facts about a running container from the kernel.
//!
//! Everything about a process is read beneath a descriptor of its directory in /proc, which never refers to
//! another process when the pid is reused. The last step checks that the process still runs.

use super::error::Error;
use super::facts::{DaemonFacts, DeviceRules, Facts, HostMount, Lsm, NamespaceOwner, Thread};
use super::judge::kernel_paths;
use super::listeners;
use super::mount_view;
use super::mounts::{MountTable, is_within};
use super::origin::{self, Origin};
use super::procfs::{
    FILE_BYTES_MAX, ProcessHandle, SHOWN_MAX, has_ended, live_thread, namespace, open_live_thread,
    read_at,
};
use super::sockets::Search;
use super::status;
use hull_cgroup::{Cgroup, CgroupFs, Version};
use hull_sys::text::shown;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, statat};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Limit on the number of threads that are read.
const THREADS_MAX: usize = 4096;
/// The kinds of namespaces, `namespaces(7)`.
const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// Gathers all facts about the container of `given`. `is_same` asks the daemon, after the process was
/// opened, whether it is still the process of the container.
pub(crate) async fn gather<E: From<Error>>(
    given: &DaemonFacts,
    is_same: impl AsyncFnOnce() -> Result<bool, E>,
) -> Result<Facts, E> {
    let held = ProcessHandle::open(given.pid)?;
    if !is_same().await? {
        return Err(Error::Ended.into());
    }
    let facts = facts(given, &held)?;
    held.check_running()?;
    Ok(facts)
}

fn facts(given: &DaemonFacts, held: &ProcessHandle) -> Result<Facts, Error> {
    let dir = held.thread.as_fd();
    // That of the pod: the first process may have created one of its own, in which its privileges mean nothing here.
    let pause = (given.pause > 0).then(|| open_live_thread(&given.pause.to_string())).flatten();
    let of_user = pause.as_ref().map_or(dir, |pause| pause.as_fd());
    let namespaces = namespaces(dir, of_user, &given.of_pod)?;
    let host = MountTable::parse(&read_at(CWD, "/proc/self/mountinfo", FILE_BYTES_MAX)?);
    let mount_namespace = openat(dir, "ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mount_namespace = mount_namespace.map_err(Error::kernel("open its mount namespace"))?;
    let inside = mount_view::view(mount_namespace, given.devices.clone())?;
    let cgroups = CgroupFs::detect().map_err(|source| Error::Cgroup { source })?;
    let own_user = namespace(of_user, "user")?;
    let (threads, more_threads, sockets) =
        threads(given, &cgroups, held.dir.as_fd(), own_user.as_deref(), &namespaces)?;
    let of_host = |kind: &str| namespaces.get(kind) == Some(&NamespaceOwner::Host);
    let listening = if of_host("net") { listeners::listening(dir, &sockets) } else { Vec::new() };
    let host_mounts = host_mounts(given, &inside.mounts, &host, of_host("ipc"));
    Ok(Facts {
        pid: given.pid,
        pid_namespace: namespace(dir, "pid")?.unwrap_or_default(),
        threads,
        more_threads,
        uid_map: status::id_map(&read_at(of_user, "uid_map", 1 << 16)?),
        gid_map: status::id_map(&read_at(of_user, "gid_map", 1 << 16)?),
        lsm: lsm(dir)?,
        host_mounts,
        mounts: inside.mounts,
        nodes: inside.nodes,
        unseen: inside.unseen,
        rules: rules(dir, &cgroups)?,
        listening,
        kernel_has: kernel_paths().filter(|path| is_there(path)).collect(),
        host_ports: given.host_ports.clone(),
        sysctls: given.sysctls.iter().map(|name| shown(name, SHOWN_MAX)).collect(),
        namespaces,
    })
}

/// Whether a path of the host's own /proc or /sys exists.
fn is_there(path: &str) -> bool {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn namespaces(
    dir: BorrowedFd<'_>,
    of_user: BorrowedFd<'_>,
    of_pod: &[i32],
) -> Result<BTreeMap<&'static str, NamespaceOwner>, Error> {
    let seen = |dir: BorrowedFd<'_>, kind: &str| namespace(dir, kind).ok().flatten();
    // Those of init and our own: for a daemon in a container, the host is that container.
    let host: Vec<OwnedFd> = ["1", "self"].iter().filter_map(|pid| open_live_thread(pid)).collect();
    let pod: Vec<OwnedFd> =
        of_pod.iter().filter_map(|pid| open_live_thread(&pid.to_string())).collect();
    let has = |of: &[OwnedFd], kind: &str, name: &str| {
        of.iter().any(|dir| seen(dir.as_fd(), kind).as_deref() == Some(name))
    };
    let mut all = BTreeMap::new();
    for kind in KINDS {
        let of = if kind == "user" { of_user } else { dir };
        let Some(name) = namespace(of, kind)? else {
            // If the host has no such namespace, the kernel does not support this kind.
            match host.iter().any(|dir| seen(dir.as_fd(), kind).is_some()) {
                true => return Err(Error::Ended),
                false => continue,
            }
        };
        let whose = match (has(&host, kind, &name), has(&pod, kind, &name)) {
            (true, _) => NamespaceOwner::Host,
            (false, true) => NamespaceOwner::Pod,
            (false, false) => NamespaceOwner::Own,
        };
        let _before = all.insert(kind, whose);
    }
    Ok(all)
}

type Threads = (Vec<Thread>, bool, BTreeSet<u64>);

/// All threads of all processes in the cgroup of the container, and their sockets if the container is on
/// the host network.
fn threads(
    given: &DaemonFacts,
    cgroups: &CgroupFs,
    first: BorrowedFd<'_>,
    own_user: Option<&str>,
    namespaces: &BTreeMap<&'static str, NamespaceOwner>,
) -> Result<Threads, Error> {
    let on_host = namespaces.get("net") == Some(&NamespaceOwner::Host);
    let (mut all, mut sockets) = (Vec::new(), BTreeSet::new());
    let mut more = false;
    let mut add = |dir: BorrowedFd<'_>| {
        more |= !threads_of(dir, own_user, &mut all);
        if let (true, Ok(live)) = (on_host, live_thread(dir)) {
            listeners::sockets(live.as_fd(), &mut sockets);
        }
    };
    add(first);
    let procs = Cgroup::at(cgroups, &given.cgroup).and_then(|cgroup| cgroup.procs());
    for pid in procs.map_err(|source| Error::Cgroup { source })? {
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // A process that has ended meanwhile is skipped.
        let dir = openat(CWD, format!("/proc/{pid}"), how, Mode::empty());
        if let (true, Ok(dir)) = (pid != given.pid, dir) {
            add(dir.as_fd());
        }
    }
    if all.is_empty() {
        return Err(Error::Ended);
    }
    Ok((all, more, sockets))
}

/// Adds the threads of a process. False if there are more than the limit.
fn threads_of(dir: BorrowedFd<'_>, own_user: Option<&str>, all: &mut Vec<Thread>) -> bool {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(tasks) = openat(dir, "task", how, Mode::empty()).and_then(Dir::new) else { return true };
    for task in tasks.flatten() {
        let Ok(number) = task.file_name().to_str() else { continue };
        if number.starts_with('.') {
            continue;
        }
        if all.len() >= THREADS_MAX {
            return false;
        }
        let Ok(text) = read_at(dir, &format!("task/{number}/status"), 1 << 20) else { continue };
        if has_ended(&text) {
            continue;
        }
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(task) = openat(dir, format!("task/{number}"), how, Mode::empty()) else { continue };
        // If the thread ended meanwhile, its privileges that were read count.
        let user = namespace(task.as_fd(), "user").ok().flatten();
        let nested = user.is_some() && user.as_deref() != own_user;
        all.extend(status::thread(&text, nested));
    }
    true
}

fn lsm(dir: BorrowedFd<'_>) -> Result<Lsm, Error> {
    let apparmor = read_at(CWD, "/sys/module/apparmor/parameters/enabled", 16).unwrap_or_default();
    let label = |path: &str| {
        let text = read_at(dir, path, 4096)?;
        Ok(shown(text.trim_end_matches(['\n', '\0']), SHOWN_MAX))
    };
    if apparmor.starts_with('Y') {
        // AppArmor has a file of its own where several modules are stacked (Linux 5.1).
        let label = label("attr/apparmor/current").or_else(|_| label("attr/current"))?;
        return Ok(Lsm::AppArmor(label));
    }
    if is_there("/sys/fs/selinux/enforce") {
        return Ok(Lsm::SELinux(label("attr/current")?));
    }
    Ok(Lsm::None)
}

/// The device rules of the cgroup that the process is in.
fn rules(dir: BorrowedFd<'_>, cgroups: &CgroupFs) -> Result<DeviceRules, Error> {
    let hierarchy =
        cgroups.hierarchies().iter().find(|of| of.controllers.iter().any(|name| name == "devices"));
    let (Some(hierarchy), Version::V1 | Version::Hybrid) = (hierarchy, cgroups.version()) else {
        return Ok(DeviceRules::Ebpf);
    };
    let text = read_at(dir, "cgroup", 1 << 20)?;
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == "devices").then_some(path)
    });
    let form = || Error::Form { path: "/proc/<pid>/cgroup".into() };
    // A path by the kernel; that of a cgroup outside of our view begins with `/..`.
    let path = path.filter(|path| !path.split('/').any(|part| part == "..")).ok_or_else(form)?;
    let file = hierarchy.mountpoint.join(path.trim_start_matches('/')).join("devices.list");
    let list = read_at(CWD, &file.to_string_lossy(), 1 << 20)?;
    Ok(DeviceRules::V1(list.lines().map(str::to_owned).collect()))
}

fn host_mounts(
    given: &DaemonFacts,
    inside: &MountTable,
    host: &MountTable,
    host_ipc: bool,
) -> Vec<HostMount> {
    let mut all = Vec::new();
    let mut search = Search::new(host, given);
    for mount in inside.visible() {
        let Origin::Host(path) = origin::find(mount, host, given, host_ipc) else { continue };
        let (sockets, search_cut) = search.sockets(&path);
        let covers = |dir: &String| is_within(&path, dir) || is_within(dir, &path);
        all.push(HostMount {
            container_path: shown(&mount.point, SHOWN_MAX),
            sockets,
            search_cut,
            of_daemon: given.daemon_dirs.iter().any(covers),
            owned: search.owned(&path),
            host_path: shown(&path, SHOWN_MAX),
            writable: !mount.read_only,
            idmapped: mount.idmapped,
            shared: mount.shared,
        });
    }
    all
}
