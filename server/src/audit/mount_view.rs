// SPDX-License-Identifier: Apache-2.0
//! The view from the container's mount namespace: its mount table, whatever root its first process has
//! changed to since, and the device nodes below its /dev.
//!
//! A separate thread enters the namespace, so that no other thread changes its view; its time is
//! limited. It opens only directories, and does not even call stat on filesystems with a server in user space
//! or on the network: a container may have mounted one to stall the audit. The filesystem of a descriptor
//! is looked up in the mount table, by its mount id.

use super::error::Error;
use super::facts::DeviceNode;
use super::mounts::{Mount, MountTable, is_within};
use super::procfs::{FILE_BYTES_MAX, read_at};
use hull_sys::text::shown;
use rustix::fs::{
    CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, major, minor, openat, openat2,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Limit on the time: more than the /dev of a machine with thousands of disks needs.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Limit on the number of entries of /dev.
const ENTRIES_MAX: usize = 8192;
/// Limit on the depth of directories below /dev.
const DEPTH_MAX: usize = 6;
/// Filesystems on which the kernel answers calls by itself.
const SERVED_BY_KERNEL: [&str; 11] = [
    "tmpfs", "devtmpfs", "ramfs", "devpts", "mqueue", "overlay", "ext2", "ext3", "ext4", "xfs",
    "btrfs",
];

/// The mount table and the device nodes.
#[derive(Debug)]
pub(super) struct MountView {
    pub(super) mounts: MountTable,
    pub(super) nodes: Vec<DeviceNode>,
    /// The paths that were not audited, each with the reason.
    pub(super) unseen: Vec<String>,
}

/// Reads the view from a mount namespace. `setns(2)`, `mount_namespaces(7)`.
/// `devices` are the paths of device nodes in the spec, which may be outside of /dev.
pub(super) fn view(namespace: OwnedFd, devices: Vec<String>) -> Result<MountView, Error> {
    let (sender, receiver) = mpsc::channel();
    let walker = thread::Builder::new().name("audit".into()).spawn(move || {
        // After the time limit, nobody receives the result.
        let _late = sender.send(view_here(namespace.as_fd(), &devices));
    });
    walker.map_err(|source| Error::Thread { source })?;
    receiver.recv_timeout(TIME_MAX).map_err(|_| Error::NoAnswer { seconds: TIME_MAX.as_secs() })?
}

fn view_here(namespace: BorrowedFd<'_>, devices: &[String]) -> Result<MountView, Error> {
    // Our own files in the procfs of the host, opened before: nothing of the container can replace them.
    let own = openat(
        CWD,
        "/proc/thread-self",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(Error::kernel("open /proc/thread-self"))?;
    // The thread needs a root and working directory of its own: unshare(2), CLONE_NEWNS implies CLONE_FS.
    hull_sys::unshare(hull_sys::flags::NEWNS).map_err(|source| Error::Namespace { source })?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))
        .map_err(Error::kernel("enter its mount namespace"))?;
    let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::kernel("open its root"))?;
    let mut walker = Walker {
        own,
        table: MountTable::default(),
        nodes: Vec::new(),
        unseen: Vec::new(),
        left: ENTRIES_MAX,
    };
    walker.read_table()?;
    if walker.is_served_by_kernel(root.as_fd()) {
        let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY;
        match hull_sys::open_in_root(root.as_fd(), "dev", how, ResolveFlags::NO_SYMLINKS) {
            Ok(dev) => walker.directory(dev.as_fd(), "/dev", 0),
            Err(errno) => walker.unseen.push(format!("/dev: {}", hull_sys::name_of(errno))),
        }
    } else {
        walker.unseen.push("/dev: the root is on a filesystem that another program serves".into());
    }
    walker.places(root.as_fd(), devices);
    walker.nodes.sort_by(|one, other| one.path.cmp(&other.path));
    walker.nodes.dedup();
    Ok(MountView { mounts: walker.table, nodes: walker.nodes, unseen: walker.unseen })
}

struct Walker {
    /// Directory of this thread in the procfs of the host.
    own: OwnedFd,
    table: MountTable,
    nodes: Vec<DeviceNode>,
    unseen: Vec<String>,
    /// Number of entries that may still be read.
    left: usize,
}

impl Walker {
    fn read_table(&mut self) -> Result<(), Error> {
        self.table = MountTable::parse(&read_at(self.own.as_fd(), "mountinfo", FILE_BYTES_MAX)?);
        Ok(())
    }

    /// Whether a descriptor is on a filesystem that the kernel serves by itself. `proc_pid_fdinfo(5)`
    /// has the mount id without a call to the filesystem.
    fn is_served_by_kernel(&mut self, fd: BorrowedFd<'_>) -> bool {
        let Ok(info) = read_at(self.own.as_fd(), &format!("fdinfo/{}", fd.as_raw_fd()), 4096)
        else {
            return false;
        };
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let Some(id) = id.and_then(|id| id.trim().parse::<u64>().ok()) else { return false };
        if self.table.by_id(id).is_none() {
            // It was mounted after the table was read.
            let _stale = self.read_table();
        }
        self.table.by_id(id).is_some_and(|mount| SERVED_BY_KERNEL.contains(&mount.fstype.as_str()))
    }

    /// Reads nodes outside of /dev: at paths of the spec, and at mounts of single nodes and of the host's
    /// devtmpfs.
    fn places(&mut self, root: BorrowedFd<'_>, devices: &[String]) {
        let is_single =
            |of: &Mount| SERVED_BY_KERNEL.contains(&of.fstype.as_str()) && of.root != "/";
        let mounts = self.table.visible().filter(|of| of.fstype == "devtmpfs" || is_single(of));
        let mut paths: Vec<String> = mounts.map(|of| of.point.clone()).collect();
        paths.extend_from_slice(devices);
        paths.retain(|path| path.starts_with('/') && path != "/" && !is_within(path, "/dev"));
        paths.sort();
        paths.dedup();
        for path in paths {
            self.place(root, &path);
        }
    }

    /// Reads one path, after checking each directory on the way to it.
    fn place(&mut self, root: BorrowedFd<'_>, path: &str) {
        let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let no_links = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let mut current: Option<OwnedFd> = None;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let at = current.as_ref().map_or(root, |fd| fd.as_fd());
            if !self.is_served_by_kernel(at) {
                self.unseen.push(format!(
                    "{}: its filesystem is served by another program",
                    shown(path, 64)
                ));
                return;
            }
            // A symlink, or nothing: the node is elsewhere, and the device rule is judged.
            let Ok(next) = openat2(at, part, how, Mode::empty(), no_links) else { return };
            current = Some(next);
        }
        let Some(found) = current else { return };
        let is_directory = fstat(found.as_fd())
            .is_ok_and(|of| FileType::from_raw_mode(of.st_mode) == FileType::Directory);
        // Mounted directories of the host can be large; a devtmpfs is small.
        if self.is_served_by_kernel(found.as_fd()) && (!is_directory || self.is_devices(path)) {
            self.entry(found.as_fd(), shown(path, 200), 0);
        }
    }

    fn is_devices(&self, path: &str) -> bool {
        self.table.at(path).is_some_and(|of| of.fstype == "devtmpfs")
    }

    fn directory(&mut self, dir: BorrowedFd<'_>, path: &str, depth: usize) {
        if !self.is_served_by_kernel(dir) {
            self.unseen.push(format!("{path}: its filesystem is served by another program"));
            return;
        }
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = openat(dir, ".", how, Mode::empty()).and_then(Dir::new);
        let Ok(entries) = open else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.left == 0 {
                self.unseen.push(format!("{path}: more than {ENTRIES_MAX} entries"));
                return;
            }
            self.left -= 1;
            let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let no_links = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            // Symlinks do not matter, nor entries that were removed meanwhile.
            let Ok(entry) = openat2(dir, name, how, Mode::empty(), no_links) else { continue };
            let path = format!("{path}/{}", shown(name.to_bytes(), 64));
            self.entry(entry.as_fd(), path, depth);
        }
    }

    fn entry(&mut self, entry: BorrowedFd<'_>, path: String, depth: usize) {
        if !self.is_served_by_kernel(entry) {
            self.unseen.push(format!("{path}: its filesystem is served by another program"));
            return;
        }
        let Ok(found) = fstat(entry) else { return };
        let kind = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory if depth < DEPTH_MAX => {
                return self.directory(entry, &path, depth + 1);
            }
            FileType::BlockDevice => 'b',
            FileType::CharacterDevice => 'c',
            FileType::Directory
            | FileType::RegularFile
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::Unknown => return,
        };
        let (major, minor) = (major(found.st_rdev), minor(found.st_rdev));
        self.nodes.push(DeviceNode {
            path,
            kind,
            major,
            minor,
            mode: found.st_mode & 0o7777,
            uid: found.st_uid,
            gid: found.st_gid,
        });
    }
}
