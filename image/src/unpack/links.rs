// SPDX-License-Identifier: Apache-2.0
//! Hard links to files that a layer below has.
//!
//! A layer is unpacked without those below it, so such a link waits until they are there. Then the
//! file is copied up, as overlayfs would have done, and the links among the waiting ones are links
//! to the copy.

use super::{Error, names, shown, way};
use hull_sys as sys;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags, fchmod,
    fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, linkat, open, openat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// Makes the waiting `links` of the layer in `root`. `below` is a view of the layers below it.
/// Gives the bytes that were copied.
pub(crate) fn copy_up(
    root: BorrowedFd<'_>,
    below: Option<BorrowedFd<'_>>,
    links: &[(Vec<u8>, Vec<u8>)],
) -> Result<u64, Error> {
    let mut copies: HashMap<&[u8], &[u8]> = HashMap::new();
    let mut bytes = 0;
    for (name, target) in links {
        let nothing = || Error::LinkToNothing { entry: shown(name), target: shown(target) };
        // A copy of the same target, or a link that has been made since.
        let own = copies.get(target.as_slice()).copied().unwrap_or(target);
        if link(root, own, name).map_err(|source| Error::Make { entry: shown(name), source })? {
            continue;
        }
        let found = below
            .ok_or_else(nothing)
            .and_then(|below| find(below, target).map_err(|_| nothing()))?;
        bytes += copy(root, &found, name)
            .map_err(|source| Error::Make { entry: shown(name), source })?;
        copies.insert(target, name);
    }
    Ok(bytes)
}

fn beneath(root: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let name = if name.is_empty() { b".".as_slice() } else { name };
    sys::open_in_root(root, name, flags, ResolveFlags::empty())
}

fn parent_of(root: BorrowedFd<'_>, name: &[u8]) -> sys::Result<(OwnedFd, CString)> {
    let (above, last) = names::split(name);
    let dir = beneath(root, above, OFlags::PATH | OFlags::DIRECTORY)
        .map_err(sys::Error::of(|| format!("openat2({})", shown(above))))?;
    let last = CString::new(last).map_err(|_| sys::Error::new(Errno::INVAL, "openat2(NUL)"))?;
    Ok((dir, last))
}

/// Whether the layer itself has the target by now, and the link was made.
fn link(root: BorrowedFd<'_>, target: &[u8], name: &[u8]) -> sys::Result<bool> {
    let Ok((from, last)) = parent_of(root, target) else { return Ok(false) };
    let (to, own) = parent_of(root, name)?;
    match linkat(&from, &last, &to, &own, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => {
            Err(sys::Error::new(errno, format!("linkat({}, {})", shown(target), shown(name))))
        }
    }
}

/// The regular file `target` of the layers below, open for reading.
fn find(below: BorrowedFd<'_>, target: &[u8]) -> Result<File, Errno> {
    let found = beneath(below, target, OFlags::PATH | OFlags::NOFOLLOW)?;
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(Errno::NOENT);
    }
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

fn copy(root: BorrowedFd<'_>, from: &File, name: &[u8]) -> sys::Result<u64> {
    let (parent, own) = parent_of(root, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let make = || openat(&parent, &own, flags, Mode::RUSR | Mode::WUSR);
    let mut into = File::from(way::replace(parent.as_fd(), &own, make)?);
    let bytes =
        io::copy(&mut &*from, &mut into).map_err(sys::Error::of_io(|| "copy_file_range()"))?;
    let stat = fstat(from).map_err(sys::Error::of(|| "fstat()"))?;
    dress(from, &into, &stat).map_err(sys::Error::of(|| "copy the attributes of a file"))?;
    Ok(bytes)
}

fn dress(from: &File, into: &File, stat: &Stat) -> Result<(), Errno> {
    use rustix::fs::{Gid, Uid};
    fchown(into, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(into, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut list = vec![0; 64 << 10];
    let length = flistxattr(from, list.as_mut_slice()).unwrap_or(0);
    for name in list[..length].split(|b| *b == 0) {
        if name == b"security.capability" || name.starts_with(b"user.") {
            let mut value = vec![0; 64 << 10];
            let length = fgetxattr(from, name, value.as_mut_slice())?;
            fsetxattr(into, name, &value[..length], XattrFlags::empty())?;
        }
    }
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds };
    futimens(into, &Timestamps { last_access: time, last_modification: time })
}
