// SPDX-License-Identifier: Apache-2.0
//! Pins network namespaces to a path, as plugins and their agents expect: a bind mount named after the pod's
//! id. It outlives the daemon and the pod's processes, until DEL has succeeded.

use super::error::Error;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Before the pod's id, in the name of its pin.
const PREFIX: &str = "hull-";

/// The path that a pod's namespace is pinned to.
pub(super) fn path(dir: &Path, pod: &str) -> PathBuf {
    dir.join(format!("{PREFIX}{pod}"))
}

/// Everything in `dir` that has the name of a pin, with the part of the name that is the pod's id: also a file that
/// an interrupted pin has left, and files of others that are named so. Nothing if it cannot be read.
#[must_use]
pub fn pins(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let pod_of = |name: &str| name.strip_prefix(PREFIX).map(str::to_owned);
    entries.filter_map(|entry| Some((pod_of(entry.file_name().to_str()?)?, entry.path()))).collect()
}

/// Pins the namespace, replacing an existing pin.
pub(super) fn pin(path: &Path, netns: BorrowedFd<'_>) -> Result<(), Error> {
    unpin(path)?;
    let failed = |source| Error::Pin { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed)?;
    }
    let options = OpenOptions::new().write(true).create_new(true).mode(0o444).open(path);
    drop(options.map_err(failed)?);
    let from = format!("/proc/self/fd/{}", netns.as_raw_fd());
    mount_bind(from, path).map_err(|errno| failed(errno.into()))
}

/// Removes the pin at `path`, mount and file, if it exists. A link is removed, not followed.
///
/// # Errors
/// [`Error::Unpin`] when the kernel refuses; `umount2(2)`, `unlink(2)`.
pub fn unpin(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Unpin { path: path.to_owned(), source };
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Nothing is mounted there; an earlier pin may have been interrupted.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    match fs::remove_file(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed),
    }
}

/// The value of `CNI_NETNS`: the path, or empty when the namespace is gone.
pub(super) fn shown(path: &Path) -> String {
    // A file that is not a namespace is left from an interrupted pin.
    let pinned = fs::read_link(path).is_err()
        && rustix::fs::statfs(path).is_ok_and(|of| of.f_type == NSFS_MAGIC);
    if pinned { path.display().to_string() } else { String::new() }
}

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;
