// SPDX-License-Identifier: Apache-2.0
//! Gives the pending hard links of a layer what the layers below have at their targets.
//!
//! A file is copied with its content, as overlayfs would copy it up; a symlink, FIFO or device is made again. All links
//! to one target stay names of one file.

use super::error::{Error, charge, shown};
use super::links::{
    Links, PENDING, Record, beneath, directory_as_target, find_mark, mark, parent_of,
};
use super::replace;
use crate::fs::holes;
use crate::limits::{LAYER_APPARENT_BYTES, LAYER_BYTES, Limits, Shift};
use hull_sys as sys;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat, ftruncate,
    futimens, linkat, mknodat, open, openat, readlinkat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

const COPY_BYTES: usize = 256 << 10;

/// The cost of the copies for links.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CopyCost {
    /// Bytes that were written.
    pub(crate) bytes: u64,
    apparent_bytes: u64,
}

/// Creates the pending `links` of the layer in `root`. `below` is a view of the layers below it. The layer
/// uses `taken` bytes already.
pub(crate) fn copy_up(
    root: BorrowedFd<'_>,
    below: Option<BorrowedFd<'_>>,
    links: &Links,
    limits: Limits,
    taken: u64,
    shift: &Shift,
) -> Result<CopyCost, Error> {
    let mut copying = Copying {
        root,
        bytes: taken,
        done: CopyCost::default(),
        limits,
        shift,
        buffer: vec![0; COPY_BYTES],
    };
    // By placeholder: the record of the name at which its file without content was made.
    let mut nodes: HashMap<u64, u64> = HashMap::new();
    let mut next = 0;
    while next < links.end() {
        shift.check().map_err(Error::of_read)?;
        let made = |source| Error::Make { entry: "its hard links".into(), source };
        let (at, (Record { place, .. }, after)) = (next, links.get(next).map_err(made)?);
        next = after;
        // Without a mark it was replaced, or has its content by another name.
        let Some(first) = find_mark(root, &place).map_err(made)? else { continue };
        let target = links.get(first).map_err(made)?.0.target;
        let twin = nodes.get(&first).map(|of| links.get(*of)).transpose().map_err(made)?;
        let made = |source| Error::Make { entry: shown(&place), source };
        // All names of a placeholder are names of one file.
        if let Some((twin, _)) = twin
            && link_to_own(root, &twin.place, &place).map_err(made)?
        {
            continue;
        }
        match below.and_then(|below| find(below, &target).ok()) {
            Some(Target::File(file)) => copying.copy(&file, &place)?,
            Some(Target::Node(node, stat)) => {
                copying.make_node(&node, &stat, &place)?;
                nodes.insert(first, at);
            }
            found @ (Some(Target::Directory) | None) => {
                if !link_to_own(root, &target, &place).map_err(made)? {
                    return Err(no_target(root, found.is_some(), &place, &target));
                }
            }
        }
    }
    Ok(copying.done)
}

/// The error for a link whose target neither the layer nor those below it have as a file.
fn no_target(root: BorrowedFd<'_>, is_directory: bool, place: &[u8], target: &[u8]) -> Error {
    let own = beneath(root, target, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW);
    if is_directory || own.is_ok() {
        return directory_as_target(place, target);
    }
    Error::LinkToNothing { entry: shown(place), target: shown(target) }
}

struct Copying<'a> {
    root: BorrowedFd<'a>,
    /// The bytes that count against the limit.
    bytes: u64,
    done: CopyCost,
    limits: Limits,
    shift: &'a Shift,
    buffer: Vec<u8>,
}

impl Copying<'_> {
    fn copy(&mut self, from: &File, name: &[u8]) -> Result<(), Error> {
        let made = |source| Error::Make { entry: shown(name), source };
        let (parent, own) = parent_of(self.root, name).map_err(made)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let into = openat(&parent.fd, &own, flags, Mode::empty());
        let into = File::from(into.map_err(sys::Error::of(|| "openat(WRONLY)")).map_err(made)?);
        let stat = fstat(from).map_err(sys::Error::of(|| "fstat()")).map_err(made)?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        let max = self.limits.apparent_bytes;
        charge(&LAYER_APPARENT_BYTES, &mut self.done.apparent_bytes, length, max)?;
        ftruncate(&into, length)
            .map_err(sys::Error::of(|| format!("ftruncate({length})")))
            .map_err(made)?;
        let mut at = 0;
        let failed = |call: &'static str| sys::Error::of_io(move || call);
        while let Some((begin, bytes)) =
            holes::next(from, at, length).map_err(failed("lseek(SEEK_DATA)")).map_err(made)?
        {
            charge(&LAYER_BYTES, &mut self.bytes, bytes, self.limits.bytes)?;
            self.piece(from, &into, begin, bytes, name)?;
            self.done.bytes += bytes;
            at = begin + bytes;
        }
        fremovexattr(&into, PENDING)
            .and_then(|()| apply_metadata(from, &into, &stat))
            .map_err(sys::Error::of(|| "copy the attributes of a file"))
            .map_err(made)
    }

    /// Puts a symlink, FIFO or device like the one below in the place of a placeholder.
    fn make_node(&mut self, from: &OwnedFd, stat: &Stat, name: &[u8]) -> Result<(), Error> {
        let made = |source| Error::Make { entry: shown(name), source };
        let failed = |call: &'static str| sys::Error::of(move || call);
        let (parent, own) = parent_of(self.root, name).map_err(made)?;
        let dir = parent.fd.as_fd();
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Symlink {
            let target = readlinkat(from, c"", Vec::new());
            let target = target.map_err(failed("readlinkat()")).map_err(made)?;
            let bytes = target.as_bytes().len() as u64;
            charge(&LAYER_BYTES, &mut self.bytes, bytes, self.limits.bytes)?;
            replace::replace(dir, &own, || symlinkat(&target, dir, &own)).map_err(made)?;
        } else {
            let make = || mknodat(dir, &own, kind, Mode::empty(), stat.st_rdev);
            replace::replace(dir, &own, make).map_err(made)?;
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let applied = chownat(dir, &own, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .and_then(|()| {
                // Nobody can change what the mode of a symlink says.
                if kind == FileType::Symlink {
                    return Ok(());
                }
                chmodat(dir, &own, permissions(stat), AtFlags::empty())
            })
            .and_then(|()| utimensat(dir, &own, &modified(stat), AtFlags::SYMLINK_NOFOLLOW));
        applied
            .map_err(failed("copy the attributes of a file"))
            .and_then(|()| parent.leave())
            .map_err(made)
    }

    fn piece(
        &mut self,
        from: &File,
        into: &File,
        mut at: u64,
        bytes: u64,
        name: &[u8],
    ) -> Result<(), Error> {
        let end = at + bytes;
        while at < end {
            self.shift.check().map_err(Error::of_read)?;
            let want = usize::try_from(end - at).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
            let part = &mut self.buffer[..want];
            let copied = from.read_exact_at(part, at).and_then(|()| into.write_all_at(part, at));
            copied
                .map_err(sys::Error::of_io(|| format!("write({want} bytes)")))
                .map_err(|source| Error::Make { entry: shown(name), source })?;
            at += want as u64;
        }
        Ok(())
    }
}

/// Links to a file that the layer itself has behind the link, where no layer below has one; returns whether it does.
fn link_to_own(root: BorrowedFd<'_>, target: &[u8], name: &[u8]) -> sys::Result<bool> {
    let Ok((from, last)) = parent_of(root, target) else { return Ok(false) };
    let is_nothing = replace::is_whiteout(from.fd.as_fd(), &last);
    if is_nothing || mark(from.fd.as_fd(), &last)?.is_some() {
        return Ok(false);
    }
    let (to, own) = parent_of(root, name)?;
    let make = || linkat(&from.fd, &last, &to.fd, &own, AtFlags::empty());
    match replace::replace(to.fd.as_fd(), &own, make) {
        Ok(()) => to.leave().map(|()| true),
        Err(err) if matches!(err.errno(), Errno::NOENT | Errno::PERM) => Ok(false),
        Err(err) => Err(err),
    }
}

/// The file of the layers below that a link names.
enum Target {
    /// A regular file, open for reading.
    File(File),
    Directory,
    /// A file of another type, opened without effects on it.
    Node(OwnedFd, Stat),
}

fn find(below: BorrowedFd<'_>, target: &[u8]) -> Result<Target, Errno> {
    let found = beneath(below, target, OFlags::PATH | OFlags::NOFOLLOW)?;
    let stat = fstat(&found)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let path = format!("/proc/self/fd/{}", found.as_raw_fd());
            open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map(|fd| Target::File(File::from(fd)))
        }
        FileType::Directory => Ok(Target::Directory),
        // A whiteout: the view of a single layer shows it.
        FileType::CharacterDevice if stat.st_rdev == 0 => Err(Errno::NOENT),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice => Ok(Target::Node(found, stat)),
        FileType::Unknown => Err(Errno::NOENT),
    }
}

fn permissions(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

/// The time of a file's content, for both times of its copy.
fn modified(stat: &Stat) -> Timestamps {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

fn apply_metadata(from: &File, into: &File, stat: &Stat) -> Result<(), Errno> {
    fchown(into, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(into, permissions(stat))?;
    let mut list = vec![0; 64 << 10];
    let length = flistxattr(from, list.as_mut_slice()).unwrap_or(0);
    for name in list[..length].split(|b| *b == 0) {
        if name == b"security.capability" || name.starts_with(b"user.") {
            let mut value = vec![0; 64 << 10];
            let length = fgetxattr(from, name, value.as_mut_slice())?;
            fsetxattr(into, name, &value[..length], XattrFlags::empty())?;
        }
    }
    futimens(into, &modified(stat))
}
