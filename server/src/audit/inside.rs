// SPDX-License-Identifier: Apache-2.0
//! What is seen from the container's mount namespace: its table of mounts, whatever its first process
//! has made its root since, and the device nodes below its /dev.
//!
//! A thread of its own goes there, so that no other thread ever finds itself elsewhere; it is given a
//! limited time. Nothing is opened but directories, and what is on filesystems that other programs
//! answer for (FUSE, network) is not even asked for its kind: a container may have mounted those to hold
//! us up. Which filesystem a descriptor is on is looked up in the table, by the mount's number.

use super::error::Error;
use super::facts::Node;
use super::mounts::{Mount, Table, is_within};
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

/// Longest that looking may take: more than /dev of a machine with thousands of disks needs.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Most entries of /dev that are looked at.
const ENTRIES_MAX: usize = 8192;
/// Deepest directory below /dev that is looked into.
const DEPTH_MAX: usize = 6;
/// Filesystems that the kernel answers for alone.
const ANSWERS_ALONE: [&str; 11] = [
    "tmpfs", "devtmpfs", "ramfs", "devpts", "mqueue", "overlay", "ext2", "ext3", "ext4", "xfs",
    "btrfs",
];

/// What was seen.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) mounts: Table,
    pub(super) nodes: Vec<Node>,
    /// What was not looked at, and why.
    pub(super) unseen: Vec<String>,
}

/// Looks from inside the mount namespace behind `namespace`. `setns(2)`, `mount_namespaces(7)`.
/// `devices` are paths outside /dev at which its spec has device nodes.
pub(super) fn look(namespace: OwnedFd, devices: Vec<String>) -> Result<Inside, Error> {
    let (sender, receiver) = mpsc::channel();
    let looker = thread::Builder::new().name("audit".into()).spawn(move || {
        // Nobody listens any more when it took too long.
        let _late = sender.send(look_here(namespace.as_fd(), &devices));
    });
    looker.map_err(|source| Error::Thread { source })?;
    receiver.recv_timeout(LOOK_MAX).map_err(|_| Error::NoAnswer { seconds: LOOK_MAX.as_secs() })?
}

fn look_here(namespace: BorrowedFd<'_>, devices: &[String]) -> Result<Inside, Error> {
    // Our own files in the host's procfs, held from before: nothing inside is asked for them.
    let own = openat(
        CWD,
        "/proc/thread-self",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(Error::kernel("open /proc/thread-self"))?;
    // Root and working directory of this thread are to be its own: unshare(2), CLONE_NEWNS implies CLONE_FS.
    hull_sys::unshare(hull_sys::flags::NEWNS).map_err(|source| Error::Namespace { source })?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))
        .map_err(Error::kernel("enter its mount namespace"))?;
    let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::kernel("open its root"))?;
    let mut looker = Looker {
        own,
        table: Table::default(),
        nodes: Vec::new(),
        unseen: Vec::new(),
        left: ENTRIES_MAX,
    };
    looker.read_table()?;
    if looker.answers_alone(root.as_fd()) {
        let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY;
        match hull_sys::open_in_root(root.as_fd(), "dev", how, ResolveFlags::NO_SYMLINKS) {
            Ok(dev) => looker.directory(dev.as_fd(), "/dev", 0),
            Err(errno) => looker.unseen.push(format!("/dev: {}", hull_sys::name_of(errno))),
        }
    } else {
        looker
            .unseen
            .push("/dev: the root is on a filesystem that another program answers for".into());
    }
    looker.places(root.as_fd(), devices);
    looker.nodes.sort_by(|one, other| one.path.cmp(&other.path));
    looker.nodes.dedup();
    Ok(Inside { mounts: looker.table, nodes: looker.nodes, unseen: looker.unseen })
}

struct Looker {
    /// /proc/thread-self
    own: OwnedFd,
    table: Table,
    nodes: Vec<Node>,
    unseen: Vec<String>,
    /// Entries that may still be looked at.
    left: usize,
}

impl Looker {
    fn read_table(&mut self) -> Result<(), Error> {
        self.table = Table::parse(&read_at(self.own.as_fd(), "mountinfo", FILE_BYTES_MAX)?);
        Ok(())
    }

    /// Whether what is behind the descriptor is on a filesystem of the kernel's own. `proc_pid_fdinfo(5)`
    /// tells the mount without asking the filesystem.
    fn answers_alone(&mut self, fd: BorrowedFd<'_>) -> bool {
        let Ok(info) = read_at(self.own.as_fd(), &format!("fdinfo/{}", fd.as_raw_fd()), 4096)
        else {
            return false;
        };
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let Some(id) = id.and_then(|id| id.trim().parse::<u64>().ok()) else { return false };
        if self.table.by_id(id).is_none() {
            // Mounted since.
            let _as_it_was = self.read_table();
        }
        self.table.by_id(id).is_some_and(|mount| ANSWERS_ALONE.contains(&mount.fstype.as_str()))
    }

    /// Looks where nodes may be beside /dev: where the spec put them, and at mounts of single nodes and of
    /// the host's devices.
    fn places(&mut self, root: BorrowedFd<'_>, devices: &[String]) {
        let is_single = |of: &Mount| ANSWERS_ALONE.contains(&of.fstype.as_str()) && of.root != "/";
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

    /// A path, each directory on the way to it asked about first.
    fn place(&mut self, root: BorrowedFd<'_>, path: &str) {
        let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let no_links = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let mut current: Option<OwnedFd> = None;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let at = current.as_ref().map_or(root, |fd| fd.as_fd());
            if !self.answers_alone(at) {
                self.unseen.push(format!(
                    "{}: another program answers for its filesystem",
                    shown(path, 64)
                ));
                return;
            }
            // Where a link is now, or nothing, the node is elsewhere, and its rule is judged.
            let Ok(next) = openat2(at, part, how, Mode::empty(), no_links) else { return };
            current = Some(next);
        }
        let Some(found) = current else { return };
        let is_directory = fstat(found.as_fd())
            .is_ok_and(|of| FileType::from_raw_mode(of.st_mode) == FileType::Directory);
        // Directories of the host are many; those of its devices few.
        if self.answers_alone(found.as_fd()) && (!is_directory || self.is_devices(path)) {
            self.entry(found.as_fd(), shown(path, 200), 0);
        }
    }

    fn is_devices(&self, path: &str) -> bool {
        self.table.at(path).is_some_and(|of| of.fstype == "devtmpfs")
    }

    fn directory(&mut self, dir: BorrowedFd<'_>, path: &str, depth: usize) {
        if !self.answers_alone(dir) {
            self.unseen.push(format!("{path}: another program answers for its filesystem"));
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
            // A link is not followed and not of interest; an entry that went away is none.
            let Ok(entry) = openat2(dir, name, how, Mode::empty(), no_links) else { continue };
            let path = format!("{path}/{}", shown(name.to_bytes(), 64));
            self.entry(entry.as_fd(), path, depth);
        }
    }

    fn entry(&mut self, entry: BorrowedFd<'_>, path: String, depth: usize) {
        if !self.answers_alone(entry) {
            self.unseen.push(format!("{path}: another program answers for its filesystem"));
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
        self.nodes.push(Node {
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
