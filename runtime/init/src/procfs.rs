// SPDX-License-Identifier: Apache-2.0
//! A procfs of a pid namespace that the mounting process is not in.
//!
//! The rule (see [`process`](crate::process)): a container that joins a pid namespace is put together by a
//! process outside of it, so that nobody in there can reach the host through `/proc/<pid>/root` meanwhile.
//! A new procfs belongs to the pid namespace of the process that mounts it, so this one has other sources:
//!
//! - of a pod: its pause process mounted one before anybody else was there, in a mount namespace that only
//!   the monitor's descriptor holds ([`PodProcfs`]);
//! - else by the mount option `pidns` (Linux 6.17), or as a clone of the /proc of a process in there.

use crate::mount::{
    Result, bits, clone_fd, clone_fd_errno, errno_context, finish, open_context, set_option,
};
use crate::plan::Attrs;
use hull_sys::Attr;
use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat, stat};
use rustix::io::Errno;
use rustix::mount::fsconfig_set_fd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// `PROC_SUPER_MAGIC`, include/uapi/linux/magic.h.
const PROC_MAGIC: rustix::fs::FsWord = 0x9fa0;

/// The source of the procfs of a joined pid namespace.
#[derive(Debug)]
pub(crate) enum Procfs {
    /// A detached mount of it.
    Mount(OwnedFd),
    /// The namespace itself, for the mount option.
    Namespace(OwnedFd),
}

impl Procfs {
    /// A detached mount with these flags and options. `first` is one that is attached already.
    pub(crate) fn mount(
        &self,
        first: Option<BorrowedFd<'_>>,
        attrs: &Attrs,
        options: &[(String, Option<String>)],
    ) -> Result<OwnedFd> {
        let mount = match self {
            Self::Namespace(namespace) => {
                let context = open_context("proc", "proc")?;
                fsconfig_set_fd(&context, "pidns", namespace)
                    .map_err(errno_context("fsconfig(proc, pidns)"))?;
                for (key, value) in options {
                    set_option(&context, "proc", key, value.as_deref())?;
                }
                return finish(&context, "proc", attrs);
            }
            Self::Mount(_) if let Some((key, _)) = options.first() => {
                let call = format!("fsconfig(proc, {key}) of a pid namespace that is shared");
                return Err(errno_context(call)(Errno::OPNOTSUPP));
            }
            Self::Mount(mount) => match first {
                Some(first) => clone_fd(first, false)?,
                None => rustix::io::fcntl_dupfd_cloexec(mount, 3)
                    .map_err(errno_context("dup(procfs)"))?,
            },
        };
        let known = Attr::RDONLY | Attr::NOSUID | Attr::NODEV | Attr::NOEXEC;
        let set = bits(attrs);
        let attr = Attr { set, clear: known & !set, ..Attr::default() };
        hull_sys::mount_setattr(mount.as_fd(), false, &attr)?;
        Ok(mount)
    }
}

/// The procfs of a pod's own pid namespace: a mount namespace, held by this descriptor alone, whose
/// topmost root it is. Nothing in the pod can name it.
#[derive(Debug)]
pub struct PodProcfs {
    pub(crate) holder: OwnedFd,
    /// Device and inode of its pid namespace.
    pub(crate) namespace: (u64, u64),
}

/// Device and inode of a namespace.
pub(crate) fn identity(namespace: BorrowedFd<'_>) -> Result<(u64, u64), Errno> {
    rustix::fs::fstat(namespace).map(|stat| (stat.st_dev, stat.st_ino))
}

impl PodProcfs {
    /// A detached copy of it. The caller is single-threaded, and its root is the host's.
    pub(crate) fn copy(&self) -> Result<Procfs, hull_sys::Error> {
        visit(self.holder.as_fd(), || {
            let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            verified(root)
        })
        .map(Procfs::Mount)
    }
}

/// The procfs of the pid namespace `of`. The caller is single-threaded, and its root is the host's.
pub(crate) fn of_namespace(namespace: BorrowedFd<'_>) -> Result<Procfs, hull_sys::Error> {
    let number = namespace.as_raw_fd();
    let name = rustix::fs::readlink(format!("/proc/self/fd/{number}"), Vec::new())
        .map_err(hull_sys::Error::of(|| "readlink(pid namespace)"))?;
    if !name.as_bytes().starts_with(b"pid:[") {
        return Err(hull_sys::Error::new(Errno::INVAL, "setns(NEWPID): not a pid namespace"));
    }
    let context = open_context("proc", "proc")
        .map_err(|failed| hull_sys::Error::new(failed.errno, failed.call))?;
    if fsconfig_set_fd(&context, "pidns", namespace).is_ok() {
        let namespace = rustix::io::fcntl_dupfd_cloexec(namespace, 3);
        return namespace
            .map(Procfs::Namespace)
            .map_err(hull_sys::Error::of(|| "dup(pid namespace)"));
    }
    let wanted = identity(namespace).map_err(hull_sys::Error::of(|| "fstat(pid namespace)"))?;
    for pid in processes() {
        if let Some(found) = of_process(pid, wanted) {
            return Ok(Procfs::Mount(found));
        }
    }
    let call = "mount(proc) of the pid namespace to join: no process in there has one to copy, and \
                this kernel has no mount option pidns (Linux 6.17)";
    Err(hull_sys::Error::new(Errno::OPNOTSUPP, call))
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A copy of the /proc of a process, if it is in that pid namespace and its /proc belongs to it.
fn of_process(pid: i32, wanted: (u64, u64)) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let own = stat(format!("/proc/{pid}/ns/pid")).ok()?;
    if (own.st_dev, own.st_ino) != wanted {
        return None;
    }
    let home = fs::File::open("/proc/self/ns/mnt").ok()?;
    move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::MOUNT).ok()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = openat(CWD, "/proc", flags, Mode::empty()).and_then(verified);
    // Back first, also after an error.
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Mount)).ok()?;
    let copy = copy.ok()?;
    // Its first process is that of the namespace, or it is the procfs of another one.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let first = openat(&copy, "1/ns/pid", flags, Mode::empty()).ok()?;
    (identity(first.as_fd()).ok()? == wanted).then_some(copy)
}

/// Refuses a volume at /proc that is not a procfs: programs, and those who look after them, believe what they read there.
pub(crate) fn check(volume: BorrowedFd<'_>) -> Result {
    let found = fstatfs(volume).map_err(errno_context("statfs(/proc)"))?;
    if found.f_type == PROC_MAGIC {
        return Ok(());
    }
    Err(errno_context("move_mount(/proc): the volume there is not a procfs")(Errno::INVAL))
}

/// A detached copy of a mount, if it is a whole procfs.
fn verified(root: OwnedFd) -> Result<OwnedFd, Errno> {
    /// `PROC_ROOT_INO` of include/linux/proc_fs.h.
    const ROOT_INODE: u64 = 1;
    let is_proc = fstatfs(&root)?.f_type == PROC_MAGIC;
    if !is_proc || rustix::fs::fstat(&root)?.st_ino != ROOT_INODE {
        return Err(Errno::NODEV);
    }
    clone_fd_errno(root.as_fd(), false)
}

/// Does `work` in another mount namespace, and comes back.
fn visit<T>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, hull_sys::Error> {
    let home = fs::File::open("/proc/self/ns/mnt")
        .map_err(hull_sys::Error::of_io(|| "open(/proc/self/ns/mnt)"))?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))
        .map_err(hull_sys::Error::of(|| "setns(NEWNS)"))?;
    let done = work();
    // Back first, also after an error: nothing else may happen in there.
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(hull_sys::Error::of(|| "setns(back, NEWNS)"))?;
    done.map_err(hull_sys::Error::of(|| "open_tree(proc, CLONE)"))
}
