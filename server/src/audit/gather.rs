// SPDX-License-Identifier: Apache-2.0
//! Facts of a running container from the kernel.
//!
//! Everything of a process is read by a descriptor of its directory in /proc, which never means another
//! process when the number is used again; whether it still runs is asked last.

use super::facts::{DeviceRules, Facts, Given, HostMount, Lsm, Shared, Thread};
use super::inside;
use super::judge::kernel_paths;
use super::listeners;
use super::mounts::Table;
use super::origin::{self, Origin};
use super::status;
use hull_cgroup::{Cgroup, Host, Version};
use hull_sys::text::shown;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// Most that is read of a file of the kernel: a table of some hundred thousand mounts.
pub(super) const FILE_BYTES_MAX: u64 = 32 << 20;
/// Most threads that are looked at.
const THREADS_MAX: usize = 4096;
/// Most entries of a directory of the host that are looked at for sockets.
const SOCKETS_MAX: usize = 1024;
/// Longest path and label that is shown, in characters.
const SHOWN_MAX: usize = 200;
/// Kinds of namespaces, `namespaces(7)`.
const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
/// Where runtimes and the kubelet's helpers listen.
const SOCKETS: [&str; 8] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/hull/hull.sock",
    "/run/podman/podman.sock",
    "/run/cri-dockerd.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/nri/nri.sock",
];
/// Filesystems that may take forever to answer.
const ANSWERS_SLOWLY: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "autofs"];

/// Why a container cannot be audited. Each text reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("audit it: its process has ended")]
    Ended,
    #[error("{doing}")]
    Kernel { doing: String, source: Errno },
    #[error("read {path}")]
    Read { path: String, source: io::Error },
    #[error("read {path}: it is not what the kernel writes there")]
    Form { path: String },
    #[error("find its cgroups")]
    Cgroup { source: hull_cgroup::Error },
    #[error("leave the host's mount namespace")]
    Namespace { source: hull_sys::Error },
    #[error("start a thread")]
    Thread { source: io::Error },
    #[error("look at its /dev: there was no answer in {seconds} s")]
    NoAnswer { seconds: u64 },
}

impl Error {
    pub(super) fn kernel(doing: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| match source {
            // What procfs says of a process that went away.
            Errno::SRCH => Self::Ended,
            source => Self::Kernel { doing: doing.into(), source },
        }
    }

    /// What helps.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Kernel { source: Errno::PERM | Errno::ACCESS, .. } => {
                Some("run it as root, on the node, in the host's pid namespace")
            }
            Self::Ended => Some("`hull ps -a` says how it ended"),
            Self::NoAnswer { .. } => Some(
                "something mounted in the container does not answer; the other findings need it, so stop the container",
            ),
            Self::Kernel { .. }
            | Self::Read { .. }
            | Self::Form { .. }
            | Self::Cgroup { .. }
            | Self::Namespace { .. }
            | Self::Thread { .. } => None,
        }
    }
}

/// A file of the kernel below a directory that is held. Bytes that are no UTF-8 are replaced.
pub(super) fn read_at(dir: BorrowedFd<'_>, path: &str, limit: u64) -> Result<String, Error> {
    let opened =
        openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty());
    let file = File::from(opened.map_err(Error::kernel(format!("open {path}")))?);
    let mut bytes = Vec::new();
    match file.take(limit).read_to_end(&mut bytes) {
        Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(source) if source.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
            Err(Error::Ended)
        }
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// A process that cannot be mistaken for another of its number.
struct Held {
    pidfd: OwnedFd,
    dir: OwnedFd,
}

impl Held {
    fn open(pid: i32) -> Result<Self, Error> {
        let number = Pid::from_raw(pid).filter(|_| pid > 0).ok_or(Error::Ended)?;
        let pidfd =
            pidfd_open(number, PidfdFlags::empty()).map_err(Error::kernel("open a pidfd"))?;
        let path = format!("/proc/{pid}");
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match openat(CWD, path.as_str(), how, Mode::empty()) {
            Err(Errno::NOENT) => return Err(Error::Ended),
            other => other.map_err(Error::kernel(format!("open {path}")))?,
        };
        let held = Self { pidfd, dir };
        // The directory is of the process of the pidfd if that has not ended by now.
        held.still_runs()?;
        Ok(held)
    }

    fn still_runs(&self) -> Result<(), Error> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::Ended),
            Err(errno) => Err(Error::kernel("poll its pidfd")(errno)),
        }
    }
}

/// All facts about the container that `given` names. `is_same` asks the daemon, once the process is
/// held, whether it is still the container's.
pub(crate) async fn gather<E: From<Error>>(
    given: &Given,
    is_same: impl AsyncFnOnce() -> Result<bool, E>,
) -> Result<Facts, E> {
    let held = Held::open(given.pid)?;
    if !is_same().await? {
        return Err(Error::Ended.into());
    }
    let facts = facts(given, &held)?;
    held.still_runs()?;
    Ok(facts)
}

fn facts(given: &Given, held: &Held) -> Result<Facts, Error> {
    let dir = held.dir.as_fd();
    let namespaces = namespaces(dir, &given.of_pod)?;
    let host = Table::parse(&read_at(CWD, "/proc/self/mountinfo", FILE_BYTES_MAX)?);
    let mount_namespace = openat(dir, "ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let inside = inside::look(mount_namespace.map_err(Error::kernel("open its mount namespace"))?)?;
    let cgroups = Host::detect().map_err(|source| Error::Cgroup { source })?;
    let (threads, more_threads, sockets) = threads(given, &cgroups, dir, &namespaces)?;
    let of_host = |kind: &str| namespaces.get(kind) == Some(&Shared::Host);
    let listening = if of_host("net") { listeners::listening(dir, &sockets) } else { Vec::new() };
    let host_mounts = host_mounts(given, &inside.mounts, &host, of_host("ipc"));
    Ok(Facts {
        pid: given.pid,
        threads,
        more_threads,
        uid_map: status::id_map(&read_at(dir, "uid_map", 1 << 16)?),
        gid_map: status::id_map(&read_at(dir, "gid_map", 1 << 16)?),
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

/// Of the host's own /proc and /sys.
fn is_there(path: &str) -> bool {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// The kernel's name of a namespace, such as `net:[4026531840]`.
fn namespace(dir: BorrowedFd<'_>, kind: &str) -> Option<String> {
    readlinkat(dir, format!("ns/{kind}"), Vec::new()).ok()?.into_string().ok()
}

fn namespaces(
    dir: BorrowedFd<'_>,
    of_pod: &[i32],
) -> Result<BTreeMap<&'static str, Shared>, Error> {
    let open = |pid: &str| {
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, format!("/proc/{pid}"), how, Mode::empty()).ok()
    };
    // Init's and our own: where the daemon runs in a container, its host is that one.
    let host: Vec<OwnedFd> = ["1", "self"].iter().filter_map(|pid| open(pid)).collect();
    let pod: Vec<OwnedFd> = of_pod.iter().filter_map(|pid| open(&pid.to_string())).collect();
    let has = |of: &[OwnedFd], kind: &str, name: &str| {
        of.iter().any(|dir| namespace(dir.as_fd(), kind).as_deref() == Some(name))
    };
    let mut all = BTreeMap::new();
    for kind in KINDS {
        let Some(name) = namespace(dir, kind) else {
            // A kernel that has no such kind has it for nobody.
            match host.iter().any(|dir| namespace(dir.as_fd(), kind).is_some()) {
                true => return Err(Error::Ended),
                false => continue,
            }
        };
        let whose = match (has(&host, kind, &name), has(&pod, kind, &name)) {
            (true, _) => Shared::Host,
            (false, true) => Shared::Pod,
            (false, false) => Shared::Own,
        };
        let _before = all.insert(kind, whose);
    }
    Ok(all)
}

type Threads = (Vec<Thread>, bool, BTreeSet<u64>);

/// All threads of all processes of the container's cgroup, and the sockets that they hold if those are
/// on the host's network.
fn threads(
    given: &Given,
    cgroups: &Host,
    first: BorrowedFd<'_>,
    namespaces: &BTreeMap<&'static str, Shared>,
) -> Result<Threads, Error> {
    let own_user = namespace(first, "user");
    let on_host = namespaces.get("net") == Some(&Shared::Host);
    let (mut all, mut sockets) = (Vec::new(), BTreeSet::new());
    let mut more = false;
    let mut add = |dir: BorrowedFd<'_>| {
        let nested = namespace(dir, "user") != own_user;
        more |= !threads_of(dir, nested, &mut all);
        if on_host {
            listeners::sockets(dir, &mut sockets);
        }
    };
    add(first);
    let procs = Cgroup::at(cgroups, &given.cgroup).and_then(|cgroup| cgroup.procs());
    for pid in procs.map_err(|source| Error::Cgroup { source })? {
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // One that went away meanwhile is none of the container's any more.
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

/// Adds the threads of a process. False when there are more than are looked at.
fn threads_of(dir: BorrowedFd<'_>, nested: bool, all: &mut Vec<Thread>) -> bool {
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
        // A zombie has rights no more, but still shows them.
        let ended =
            text.lines().any(|line| line.starts_with("State:\tZ") || line.starts_with("State:\tX"));
        all.extend(status::thread(&text, nested).filter(|_| !ended));
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
        // By its own file where several modules are stacked (Linux 5.1).
        let label = label("attr/apparmor/current").or_else(|_| label("attr/current"))?;
        return Ok(Lsm::AppArmor(label));
    }
    if is_there("/sys/fs/selinux/enforce") {
        return Ok(Lsm::SELinux(label("attr/current")?));
    }
    Ok(Lsm::None)
}

/// Rules of the cgroup that the process is in, on the host.
fn rules(dir: BorrowedFd<'_>, cgroups: &Host) -> Result<DeviceRules, Error> {
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
    // The kernel's own path; one of a cgroup outside our view begins with `/..`.
    let path = path.filter(|path| !path.split('/').any(|part| part == "..")).ok_or_else(form)?;
    let file = hierarchy.mountpoint.join(path.trim_start_matches('/')).join("devices.list");
    let list = read_at(CWD, &file.to_string_lossy(), 1 << 20)?;
    Ok(DeviceRules::V1(list.lines().map(str::to_owned).collect()))
}

fn host_mounts(given: &Given, inside: &Table, host: &Table, host_ipc: bool) -> Vec<HostMount> {
    let mut all = Vec::new();
    for mount in inside.visible() {
        let Origin::Host(path) = origin::of(mount, host, given, host_ipc) else { continue };
        all.push(HostMount {
            container_path: shown(&mount.point, SHOWN_MAX),
            sockets: sockets(&path, host, &given.socket),
            host_path: shown(&path, SHOWN_MAX),
            writable: !mount.read_only,
            idmapped: mount.idmapped,
            shared: mount.shared,
        });
    }
    all
}

/// Sockets at a path of the host, in it, and those of runtimes below it.
fn sockets(path: &str, host: &Table, own: &str) -> Vec<String> {
    let is_socket = |path: &str| kind_of(path, host) == Some(FileType::Socket);
    let mut found = BTreeSet::new();
    if is_socket(path) {
        let _before = found.insert(shown(path, SHOWN_MAX));
    }
    for socket in SOCKETS.iter().copied().chain([own]) {
        if super::mounts::is_within(socket, path) && is_socket(socket) {
            let _before = found.insert(shown(socket, SHOWN_MAX));
        }
    }
    if kind_of(path, host) == Some(FileType::Directory) {
        let names = names_in(path);
        let sockets = names.iter().filter(|name| name.ends_with(".sock"));
        let paths = sockets.map(|name| format!("{}/{name}", path.trim_end_matches('/')));
        found.extend(paths.filter(|path| is_socket(path)).map(|path| shown(&path, SHOWN_MAX)));
    }
    found.into_iter().collect()
}

/// What lies at a path of the host, links not followed. Not asked where that may take forever.
fn kind_of(path: &str, host: &Table) -> Option<FileType> {
    let on = host.at(path)?;
    if on.fstype.starts_with("fuse") || ANSWERS_SLOWLY.contains(&on.fstype.as_str()) {
        return None;
    }
    let found = open_on_host(path, OFlags::PATH | OFlags::NOFOLLOW).and_then(fstat).ok()?;
    Some(FileType::from_raw_mode(found.st_mode))
}

fn open_on_host(path: impl AsRef<Path>, how: OFlags) -> Result<OwnedFd, Errno> {
    let no_links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path.as_ref(), how | OFlags::CLOEXEC, Mode::empty(), no_links)
}

fn names_in(path: &str) -> Vec<String> {
    let open = open_on_host(path, OFlags::RDONLY | OFlags::DIRECTORY).and_then(Dir::new);
    let Ok(entries) = open else { return Vec::new() };
    let names = entries.flatten().take(SOCKETS_MAX);
    names.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned)).collect()
}
