// SPDX-License-Identifier: Apache-2.0
//! Fills a new tmpfs with what the image has at that place (OCI `tmpcopyup`).
//!
//! Files of every type, with owner and mode; nothing is followed and no file system but the one at hand is entered. A
//! file that cannot be created there, such as a device in a user namespace, is an error.

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, StatxFlags, Timespec,
    Timestamps, Uid, chmodat, chownat, fchmod, fchown, futimens, makedev, mkdirat, mknodat,
    openat2, readlinkat, statx, symlinkat,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::OwnedFd;

/// Deepest tree that is copied: an image cannot run us out of stack or descriptors.
const DEPTH_MAX: u32 = 64;

/// Copies what is in the directory `from` into `to`. Both are really open, not O_PATH.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    directory(from, to, 0)
}

fn open(at: &OwnedFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let mode =
        if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o600) } else { Mode::empty() };
    openat2(at, name, flags | OFlags::CLOEXEC, mode, resolve)
}

fn directory(from: &OwnedFd, to: &OwnedFd, depth: u32) -> Result<(), Errno> {
    if depth > DEPTH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        one(from, to, name, depth)?;
    }
    same(from, to)
}

fn one(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: u32) -> Result<(), Errno> {
    let stat = statx(from, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    match FileType::from_raw_mode(RawMode::from(stat.stx_mode)) {
        FileType::Directory => {
            mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            directory(&open(from, name, flags)?, &open(to, name, flags)?, depth + 1)
        }
        FileType::RegularFile => {
            let read = open(from, name, OFlags::RDONLY | OFlags::NONBLOCK)?;
            let written = open(to, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
            let (mut read, mut written) = (File::from(read), File::from(written));
            std::io::copy(&mut read, &mut written)
                .map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))?;
            same(&read.into(), &written.into())
        }
        FileType::Symlink => {
            let content = readlinkat(from, name, Vec::new())?;
            symlinkat(&content, to, name)?;
            let (uid, gid) = (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid));
            chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        }
        kind @ (FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice) => {
            let device = makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
            mknodat(to, name, kind, Mode::empty(), device)?;
            let (uid, gid) = (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid));
            chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            // Follows links, but this was created above, and nobody else sees this file system yet.
            let mode = Mode::from_raw_mode(RawMode::from(stat.stx_mode) & 0o7777);
            chmodat(to, name, mode, AtFlags::empty())
        }
        FileType::Unknown => Err(Errno::OPNOTSUPP),
    }
}

/// Owner first: a change of it takes the set-user-id bit away.
fn same(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let stat = statx(from, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    fchown(to, Some(Uid::from_raw(stat.stx_uid)), Some(Gid::from_raw(stat.stx_gid)))?;
    fchmod(to, Mode::from_raw_mode(RawMode::from(stat.stx_mode) & 0o7777))?;
    let time =
        |of: rustix::fs::StatxTimestamp| Timespec { tv_sec: of.tv_sec, tv_nsec: of.tv_nsec.into() };
    futimens(
        to,
        &Timestamps { last_access: time(stat.stx_atime), last_modification: time(stat.stx_mtime) },
    )
}
