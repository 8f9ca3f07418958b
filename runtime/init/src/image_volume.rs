// SPDX-License-Identifier: Apache-2.0
//! Parts of images as mount sources.
//!
//! The rule: the container gets a mount of a read-only overlay, so nothing below it can be made
//! writable again, and the part was found beneath the image's own root by descriptor.
//! Only directories and regular files: a device or a fifo of an image is not a volume.

use crate::mount::{Result, clone_fd, errno_context, overlay};
use crate::rootfs::{Root, kind};
use hull_sys::Attr;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::os::fd::{AsFd as _, OwnedFd};

/// A detached mount of `path` in the image of these layers.
///
/// The whole is attached at `at` for as long as that takes, for only what is attached can be cloned
/// in part before Linux 6.15. What is mounted there already is covered meanwhile, and nobody else is
/// in this mount namespace yet.
pub(crate) fn open(lower: &[String], path: &str, at: &str) -> Result<OwnedFd> {
    let whole = overlay(lower, None, &[], at)?;
    let part = part(whole, path);
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    unmount(at, flags).map_err(errno_context(format!("umount2({at})")))?;
    part
}

/// A detached mount of `path` in a tree. In one that is not attached: Linux 6.15.
pub(crate) fn part(whole: OwnedFd, path: &str) -> Result<OwnedFd> {
    let whole = Root::new(whole);
    let found =
        whole.find(path).map_err(errno_context(format!("openat2({path}, in the image)")))?;
    let (of_kind, ..) =
        kind(found.as_fd()).map_err(errno_context(format!("statx({path}, in the image)")))?;
    if !matches!(of_kind, FileType::Directory | FileType::RegularFile) {
        return Err(errno_context(format!("openat2({path}, in the image)"))(Errno::MEDIUMTYPE));
    }
    let part = clone_fd(found.as_fd(), false)?;
    // A device that an image brings belongs to the host.
    let attr = Attr { set: Attr::NODEV, ..Attr::default() };
    hull_sys::mount_setattr(part.as_fd(), false, &attr)?;
    Ok(part)
}
