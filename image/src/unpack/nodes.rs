// SPDX-License-Identifier: Apache-2.0
//! Creates the files of a layer that have no content: symlinks, FIFOs and devices.
//!
//! The rule: only the last part of a name is touched, in a parent that is open, and it is never followed.

use super::entry::Entry;
use super::metadata::{ignoring_unsupported, mode, owner, retained_xattrs, times};
use super::replace::remove_conflicting;
use crate::file_list::NodeKind;
use hull_sys as sys;
use rustix::fs::{
    AtFlags, FileType, Mode, XattrFlags, chmodat, chownat, lsetxattr, makedev, mknodat, symlinkat,
    utimensat,
};
use std::ffi::CString;
use std::os::fd::{AsRawFd as _, BorrowedFd};

type Call<T> = Result<T, sys::Error>;

/// Creates a FIFO or a device; returns whether it replaced another file.
pub(super) fn node(
    parent: BorrowedFd<'_>,
    last: &CString,
    entry: &Entry,
    (file_type, kind): (FileType, &NodeKind),
) -> Call<bool> {
    let device = if let NodeKind::Char(major, minor) | NodeKind::Block(major, minor) = kind {
        makedev(*major, *minor)
    } else {
        0
    };
    let mut replaced = false;
    let make = || mknodat(parent, last, file_type, Mode::empty(), device);
    remove_conflicting(parent, last, &mut replaced, make)?;
    own(parent, last, entry)?;
    // Follows links, but what is there was made above, and nobody else writes here.
    chmodat(parent, last, mode(entry), AtFlags::empty())
        .map_err(sys::Error::of(|| "fchmodat()"))?;
    set_times(parent, last, entry)?;
    Ok(replaced)
}

/// Creates a symlink; returns whether it replaced another file.
pub(super) fn symlink(
    parent: BorrowedFd<'_>,
    last: &CString,
    entry: &Entry,
    target: &[u8],
) -> Call<bool> {
    let mut replaced = false;
    remove_conflicting(parent, last, &mut replaced, || symlinkat(target, parent, last))?;
    own(parent, last, entry)?;
    let path =
        [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), last.as_bytes()].concat();
    for (xattr, value) in retained_xattrs(entry) {
        ignoring_unsupported(lsetxattr(path.as_slice(), xattr, value, XattrFlags::empty()), xattr)?;
    }
    set_times(parent, last, entry)?;
    Ok(replaced)
}

fn own(parent: BorrowedFd<'_>, last: &CString, entry: &Entry) -> Call<()> {
    let (uid, gid) = owner(entry)?;
    chownat(parent, last, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(sys::Error::of(|| "fchownat()"))
}

fn set_times(parent: BorrowedFd<'_>, last: &CString, entry: &Entry) -> Call<()> {
    utimensat(parent, last, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(sys::Error::of(|| "utimensat()"))
}
