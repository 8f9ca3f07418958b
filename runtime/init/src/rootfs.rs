// SPDX-License-Identifier: Apache-2.0
//! Finding and making things inside a root, by descriptor.
//!
//! The rule: no path from an image or a spec is ever joined to a host path. Everything is resolved
//! beneath the root's descriptor with `openat2(2)` (RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS), so that
//! a link in the image can point nowhere else, even if it is changed meanwhile.

use rustix::fs::{
    AtFlags, FileType, FsWord, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, fstatfs,
    mkdirat, openat2, readlinkat, statx,
};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Most links that are followed to one aim, as in the kernel.
const LINKS_MAX: u32 = 40;

type Result<T> = std::result::Result<T, Errno>;

/// `SYSFS_MAGIC` and `PROC_SUPER_MAGIC`, include/uapi/linux/magic.h.
pub(crate) const SYSFS_MAGIC: FsWord = 0x6265_6572;
pub(crate) const PROC_MAGIC: FsWord = 0x9fa0;

/// Where symbolic links led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Astray {
    /// To a link of procfs that stands for what a process has, such as its root: it is never followed.
    Process,
    /// To a part of procfs that does not exist, where nothing can be made.
    Procfs,
    /// As [`Astray::Procfs`], in sysfs.
    Sysfs,
}

impl Astray {
    /// For something that is missing in the directory `at`.
    fn of_missing(at: &OwnedFd) -> Option<Self> {
        let kinds = [(PROC_MAGIC, Self::Procfs), (SYSFS_MAGIC, Self::Sysfs)];
        kinds.into_iter().find_map(|(magic, led)| is_on(at, magic).then_some(led))
    }

    /// The end of an error's call.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Process => "a symbolic link leads to what a process has",
            Self::Procfs => "a symbolic link leads into a procfs",
            Self::Sysfs => "a symbolic link leads into a sysfs",
        }
    }
}

/// How a missing last part is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    Directory,
    File,
}

/// A container's root, or the place where one is being put together.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
}

impl Root {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Resolves `path` inside of the root, links too. Returns an O_PATH descriptor.
    pub(crate) fn find(&self, path: &str) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// As [`Root::find`], but fails with `ELOOP` where a link leads there.
    pub(crate) fn find_plain(&self, path: &str) -> Result<OwnedFd> {
        self.resolve(path, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
    }

    /// Opens `path` inside.
    pub(crate) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlags::empty())
    }

    fn resolve(&self, path: &str, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd> {
        let path =
            if path.trim_matches('/').is_empty() { "." } else { path.trim_start_matches('/') };
        hull_sys::open_in_root(self.fd(), path, flags, how)
    }

    /// Resolves `path` inside of the root; missing parts are created, the last one as `last` says.
    ///
    /// The target of a dangling link (an image's resolv.conf, often) is created inside of the root.
    pub(crate) fn find_or_make(&self, path: &str, last: Make, mode: u32) -> Result<OwnedFd> {
        self.resolve_or_make(path, last, mode, ResolveFlags::empty())
    }

    /// A directory as [`Root::find_or_make`] finds or makes it, but only on the root's own mount, and below its top:
    /// `None` where the path, or a link on it, leads to another mount or to the top itself. Nothing is made there.
    pub(crate) fn find_or_make_on_own_mount(&self, path: &str) -> Result<Option<OwnedFd>> {
        let no_other_mount = ResolveFlags::NO_XDEV;
        let found = match self.resolve_or_make(path, Make::Directory, 0o755, no_other_mount) {
            Err(Errno::XDEV) => return Ok(None),
            found => found?,
        };
        let stat = statx(&found, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        if !stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(Errno::NOSYS);
        }
        let is_top = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        Ok(if is_top { None } else { Some(found) })
    }

    fn resolve_or_make(
        &self,
        path: &str,
        last: Make,
        mode: u32,
        how: ResolveFlags,
    ) -> Result<OwnedFd> {
        match self.resolve(path, OFlags::PATH, how) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        // Most often only the last part is missing. A link in its place is handled below.
        if let Ok((parent, name)) = split(path)
            && let Ok(parent) = self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY, how)
            && let Ok(made) = make_one(&parent, name, last, mode)
        {
            return Ok(made);
        }
        let mut todo: VecDeque<String> = parts(path).collect();
        let (mut at, mut done, mut links) = (self.find("/")?, String::new(), 0);
        while let Some(name) = todo.pop_front() {
            let next = format!("{done}/{name}");
            let (make, flags) = if todo.is_empty() {
                (last, OFlags::PATH)
            } else {
                (Make::Directory, OFlags::PATH | OFlags::DIRECTORY)
            };
            let made = match self.resolve(&next, flags, how) {
                Err(Errno::NOENT) => {
                    let mode = if todo.is_empty() { mode } else { 0o755 };
                    make_one(&at, &name, make, mode)
                }
                other => other,
            };
            match made {
                Ok(fd) => (at, done) = (fd, next),
                Err(Errno::LOOP) if links < LINKS_MAX => {
                    links += 1;
                    if unfold_link(&at, &name, &mut todo)? {
                        (at, done) = (self.find("/")?, String::new());
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(at)
    }

    /// Why nothing could be found or made at `path`, if a link on the way is the reason.
    pub(crate) fn led_astray(&self, path: &str) -> Option<Astray> {
        let mut todo: VecDeque<String> = parts(path).collect();
        let (mut at, mut done, mut links) = (self.find("/").ok()?, String::new(), 0);
        while let Some(name) = todo.pop_front() {
            let next = format!("{done}/{name}");
            match self.resolve(&next, OFlags::PATH, ResolveFlags::empty()) {
                Ok(fd) => (at, done) = (fd, next),
                Err(Errno::LOOP) if is_on(&at, PROC_MAGIC) => return Some(Astray::Process),
                Err(Errno::LOOP | Errno::NOENT) if links < LINKS_MAX => {
                    match unfold_link(&at, &name, &mut todo) {
                        Ok(from_root) => {
                            links += 1;
                            if from_root {
                                (at, done) = (self.find("/").ok()?, String::new());
                            }
                        }
                        // There is nothing of that name.
                        Err(_) if links > 0 || self.find_plain(&done).is_err() => {
                            return Astray::of_missing(&at);
                        }
                        Err(_) => return None,
                    }
                }
                Err(_) => return None,
            }
        }
        None
    }

    /// As [`Root::find_or_make`], but nothing on the way, nor the last part, may be a symbolic link
    /// (`ELOOP`). What is missing is made where `may_make` allows it in that directory.
    pub(crate) fn find_or_make_plain(
        &self,
        path: &str,
        last: Make,
        may_make: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<OwnedFd> {
        let no_links = ResolveFlags::NO_SYMLINKS;
        let whole = path.trim_start_matches('/');
        match hull_sys::open_in_root(self.fd(), whole, OFlags::PATH, no_links) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut todo: VecDeque<String> = parts(path).collect();
        let mut at = self.find("/")?;
        while let Some(name) = todo.pop_front() {
            let (make, flags) = if todo.is_empty() {
                (last, OFlags::PATH)
            } else {
                (Make::Directory, OFlags::PATH | OFlags::DIRECTORY)
            };
            at = match hull_sys::open_in_root(at.as_fd(), name.as_str(), flags, no_links) {
                Err(Errno::NOENT) => {
                    may_make(at.as_fd())?;
                    make_one(&at, &name, make, 0o755)?
                }
                other => other?,
            };
        }
        Ok(at)
    }

    /// The directory that holds the last part of `path`, made where missing, and that part's name.
    pub(crate) fn parent_of<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str)> {
        let (parent, name) = split(path)?;
        Ok((self.find_or_make(parent, Make::Directory, 0o755)?, name))
    }
}

/// Puts the aim of a link in front of the parts of a path that are still to be resolved. True if it begins at the root.
fn unfold_link(at: &OwnedFd, name: &str, todo: &mut VecDeque<String>) -> Result<bool> {
    let aim = readlinkat(at, name, Vec::new()).map_err(|_| Errno::LOOP)?;
    let aim = aim.to_str().map_err(|_| Errno::ILSEQ)?;
    parts(aim).collect::<Vec<_>>().into_iter().rev().for_each(|part| todo.push_front(part));
    Ok(aim.starts_with('/'))
}

fn is_on(at: &OwnedFd, magic: FsWord) -> bool {
    fstatfs(at).is_ok_and(|stat| stat.f_type == magic)
}

/// `..` stays: it is only ever resolved by the kernel, beneath the root.
fn parts(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned)
}

fn split(path: &str) -> Result<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    if matches!(name, "" | "." | "..") {
        return Err(Errno::INVAL);
    }
    Ok((parent, name))
}

/// Makes `name` in `parent`, and opens it without following links, so a link that is put there in
/// between has no effect.
fn make_one(parent: &OwnedFd, name: &str, what: Make, mode: u32) -> Result<OwnedFd> {
    let mode = Mode::from_raw_mode(mode);
    let only_here = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match what {
        Make::Directory => {
            match mkdirat(parent, name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat2(parent, name, flags, Mode::empty(), only_here)
        }
        Make::File => {
            let flags = OFlags::CREATE
                | OFlags::RDONLY
                | OFlags::NONBLOCK
                | OFlags::NOCTTY
                | OFlags::CLOEXEC;
            drop(openat2(parent, name, flags, Mode::from_raw_mode(0o644), only_here)?);
            openat2(parent, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), only_here)
        }
    }
}

/// The number of the mount that a descriptor lies on. `statx(2)`, STATX_MNT_ID, Linux 5.8.
pub(crate) fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    let stat = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    // An older kernel leaves the bit out of what it answers.
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(Errno::NOSYS);
    }
    Ok(stat.stx_mnt_id)
}

/// The file type of a descriptor, and its device numbers.
pub(crate) fn kind(fd: BorrowedFd<'_>) -> Result<(FileType, u32, u32)> {
    let stat = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
    Ok((kind, stat.stx_rdev_major, stat.stx_rdev_minor))
}
