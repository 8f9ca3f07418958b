// SPDX-License-Identifier: Apache-2.0
//! Directories that the archive implies by the names of entries in them.
//!
//! The rule: only the last part of a name is touched, in a parent that is open, and it is never followed.

use super::error::shown;
use super::metadata::opaque;
use super::names;
use super::replace::remove_conflicting;
use crate::file_list::Metadata;
use crate::fs::files;
use hull_sys as sys;
use rustix::fs::{
    AtFlags, Gid, Mode, Uid, chmodat, chownat, fstat, futimens, mkdirat, openat, readlink,
};
use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

type Call<T> = Result<T, sys::Error>;

/// The metadata of parent directories that the archive does not list.
pub(super) const IMPLICIT: Metadata = Metadata { mode: 0o755, uid: 0, gid: 0 };

/// Gives a new directory that metadata: one with set-group-id hands its group and that on.
pub(super) fn apply_implicit(parent: BorrowedFd<'_>, name: &CString) -> Call<()> {
    let (uid, gid) = (Uid::from_raw(IMPLICIT.uid), Gid::from_raw(IMPLICIT.gid));
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(sys::Error::of(|| format!("chownat({})", shown(name.as_bytes()))))?;
    chmodat(parent, name, Mode::from_raw_mode(IMPLICIT.mode), AtFlags::empty())
        .map_err(sys::Error::of(|| format!("chmodat({})", shown(name.as_bytes()))))
}

/// Makes the directory that a layer implies and removes from the layers below: the whiteout becomes its opaque mark,
/// and nothing of it comes from below.
pub(super) fn replace_whiteout(parent: BorrowedFd<'_>, name: &CString) -> Call<()> {
    let failed = |errno| sys::Error::new(errno, format!("mkdirat({})", shown(name.as_bytes())));
    let before = fstat(parent).map_err(failed)?;
    let make = || mkdirat(parent, name, Mode::RWXU);
    remove_conflicting(parent, name, &mut false, make)?;
    apply_implicit(parent, name)?;
    let dir = openat(parent, name, files::DIRECTORY, Mode::empty()).map_err(failed)?;
    opaque(dir.as_fd())?;
    futimens(parent, &files::modified(&before)).map_err(failed)
}

/// The name of a directory with all symlinks resolved, as a following `..` needs it.
pub(super) fn place_of(root: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let path = |fd: BorrowedFd<'_>| {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        readlink(link, Vec::new()).map(CString::into_bytes).ok()
    };
    let (root, dir) = (path(root)?, path(dir)?);
    let inside = dir.strip_prefix(root.as_slice())?;
    names::clean(inside).ok()
}
