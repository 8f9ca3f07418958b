// SPDX-License-Identifier: Apache-2.0
//! Removes files that conflict with a new entry.
//!
//! The rule: only the last part of a name is touched, in a parent that is open, and it is never followed.

use super::error::shown;
use hull_sys as sys;
use rustix::fs::{AtFlags, FileType, statat, unlinkat};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::BorrowedFd;

type Call<T> = Result<T, sys::Error>;

/// Runs `make`; if the name exists, removes it, sets `replaced` and runs `make` again.
pub(super) fn remove_conflicting<T>(
    parent: BorrowedFd<'_>,
    name: &CString,
    replaced: &mut bool,
    make: impl Fn() -> Result<T, Errno>,
) -> Call<T> {
    let failed = |errno| sys::Error::new(errno, format!("make({})", shown(name.as_bytes())));
    match make() {
        Err(Errno::EXIST) => {
            *replaced = true;
            hull_sys::remove_tree_at(parent, name)?;
            make().map_err(failed)
        }
        other => other.map_err(failed),
    }
}

/// Whether `name` is a whiteout of overlayfs.
pub(super) fn is_whiteout(parent: BorrowedFd<'_>, name: &CString) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
    })
}

/// Removes the entry `name` of `parent`, for callers that put a copy there.
pub(super) fn replace<T>(
    parent: BorrowedFd<'_>,
    name: &CString,
    make: impl Fn() -> Result<T, Errno>,
) -> Call<T> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {
            remove_conflicting(parent, name, &mut false, make)
        }
        Err(errno) => Err(sys::Error::new(errno, format!("unlinkat({})", shown(name.as_bytes())))),
    }
}
