// SPDX-License-Identifier: Apache-2.0
//! Applies the metadata of entries: owner, mode, extended attributes, times.
//!
//! The rule: owners come before modes (`chown` clears set-user-id), both before capabilities (`chown`
//! clears those too). Only extended attributes that belong to an image are retained.

use super::entry::Entry;
use crate::file_list::{Metadata, NodeKind};
use hull_sys as sys;
use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fsetxattr};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

/// The attribute of an opaque directory of overlayfs, which hides that of the layers below.
const OPAQUE: (&str, &[u8]) = ("trusted.overlay.opaque", b"y");

/// The attribute of a directory that overlayfs copied up from an unknown one, so that whiteouts may be in it.
const ORIGIN: (&str, &[u8]) = ("trusted.overlay.origin", b"");

/// The capabilities of a program, which belong to an image.
const CAPABILITY: &[u8] = b"security.capability";
const USER: &[u8] = b"user.";
/// The marks of overlayfs with the mount option `userxattr`.
const USER_OVERLAY: &[u8] = b"user.overlay.";

type Call<T> = Result<T, sys::Error>;

/// Sets owner, mode and extended attributes of an open file.
pub(super) fn apply_metadata(fd: BorrowedFd<'_>, entry: &Entry) -> Call<()> {
    let (uid, gid) = owner(entry)?;
    fchown(fd, Some(uid), Some(gid))
        .map_err(sys::Error::of(|| format!("fchown({}, {})", entry.uid, entry.gid)))?;
    fchmod(fd, mode(entry))
        .map_err(sys::Error::of(|| format!("fchmod({:o})", entry.mode & 0o7777)))?;
    for (xattr, value) in retained_xattrs(entry) {
        ignoring_unsupported(fsetxattr(fd, xattr, value, XattrFlags::empty()), xattr)?;
    }
    Ok(())
}

/// The extended attributes that belong to an image. Dropped are labels and ACLs of the build machine, and the
/// marks of overlayfs on it, which layers of some builders carry: here they would hide or redirect files.
pub(super) fn retained_xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    let is_kept = |name: &[u8]| {
        name == CAPABILITY || (name.starts_with(USER) && !name.starts_with(USER_OVERLAY))
    };
    entry
        .xattrs
        .iter()
        .filter(move |(name, _)| is_kept(name) && !name.contains(&0))
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// Ignores failures of `user.*`, which not every file system and file type supports. A capability that cannot be
/// set is an error: its program would not work.
pub(super) fn ignoring_unsupported(result: Result<(), Errno>, name: &[u8]) -> Call<()> {
    match result {
        Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL) if name.starts_with(USER) => Ok(()),
        other => other.map_err(sys::Error::of(|| format!("setxattr({})", name.escape_ascii()))),
    }
}

/// Marks a directory with a whiteout in it. Where no layer below has the directory too, overlayfs takes its names as
/// they are; with this mark it looks for whiteouts there as well, and lists none.
pub(super) fn holds_whiteouts(dir: BorrowedFd<'_>) -> Call<()> {
    let (name, value) = ORIGIN;
    fsetxattr(dir, name, value, XattrFlags::empty())
        .map_err(sys::Error::of(|| format!("fsetxattr({name})")))
}

pub(super) fn opaque(dir: BorrowedFd<'_>) -> Call<()> {
    let (name, value) = OPAQUE;
    fsetxattr(dir, name, value, XattrFlags::empty())
        .map_err(sys::Error::of(|| format!("fsetxattr({name})")))
}

/// The owner of an entry. -1 is refused: the kernel takes it for "do not change".
pub(super) fn owner(entry: &Entry) -> Call<(Uid, Gid)> {
    let id = |raw: u64| {
        u32::try_from(raw)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| sys::Error::new(Errno::INVAL, format!("chown({raw})")))
    };
    Ok((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
}

/// The metadata that an entry's file has now; none for hard links and whiteouts.
pub(super) fn applied_metadata(entry: &Entry, kind: &NodeKind) -> Call<Option<Metadata>> {
    let mode = match kind {
        NodeKind::Link(_) | NodeKind::Whiteout => return Ok(None),
        // Nobody can change what the mode of a link says.
        NodeKind::Symlink(_) => 0o777,
        NodeKind::File { .. }
        | NodeKind::Sparse { .. }
        | NodeKind::Directory
        | NodeKind::Char(..)
        | NodeKind::Block(..)
        | NodeKind::Fifo => entry.mode & 0o7777,
    };
    let (uid, gid) = owner(entry)?;
    Ok(Some(Metadata { mode, uid: uid.as_raw(), gid: gid.as_raw() }))
}

pub(super) fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o7777)
}

pub(super) fn times((seconds, nanoseconds): (i64, i64)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}
