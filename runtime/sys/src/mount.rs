// SPDX-License-Identifier: Apache-2.0
//! Calls that rustix lacks: `mount_setattr(2)`, and cutting the power of a file system.

use crate::{Error, Result};
use std::mem::size_of_val;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Attributes to set and clear, `MOUNT_ATTR_*` bits; propagation as `MS_*` bits; an idmap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Attr {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
    /// `MS_PRIVATE` and friends, or 0.
    pub propagation: u64,
    /// With `MOUNT_ATTR_IDMAP` in `set`: the user namespace's descriptor.
    pub userns_fd: u64,
}

impl Attr {
    /// `MOUNT_ATTR_*`, include/uapi/linux/mount.h.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-ID bits and file capabilities are ignored.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Programs cannot be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The mask of the access time bits: cleared whenever one of them is set.
    pub const ATIME: u64 = 0x70;
    /// Access times are not updated.
    pub const NOATIME: u64 = 0x10;
    /// Access times are updated at every access.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are not updated.
    pub const NODIRATIME: u64 = 0x80;
    /// Owners are mapped by the user namespace in `Attr`.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// Changes the mount behind `target`, with `recursive` every mount below it too.
///
/// `mount_setattr(2)`, Linux 5.12. A plain remount would leave the mounts below as they are.
pub fn mount_setattr(target: BorrowedFd<'_>, recursive: bool, attr: &Attr) -> Result<()> {
    const RECURSIVE: i32 = 0x8000;
    let flags = libc::AT_EMPTY_PATH | if recursive { RECURSIVE } else { 0 };
    // SAFETY: the kernel only reads `attr`, of the size given, and the static empty path; the borrow
    // keeps `target` open.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            target.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const *attr,
            size_of_val(attr),
        )
    };
    if ret == 0 {
        return Ok(());
    }
    Err(Error::last(format!(
        "mount_setattr({}, set {:#x}, clear {:#x}, propagation {:#x}{})",
        target.as_raw_fd(),
        attr.set,
        attr.clear,
        attr.propagation,
        if recursive { ", RECURSIVE" } else { "" }
    )))
}

/// Stops a filesystem as though the power had gone: nothing more gets to its disk, not even its journal, and
/// every further call on it fails. For tests of what must be durable. `FS_IOC_SHUTDOWN`, ext4, xfs, f2fs.
pub fn cut_power(on: BorrowedFd<'_>) -> Result<()> {
    const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
    let nothing_flushed = 2_u32;
    // SAFETY: the kernel only reads the number, which lives past the call; the borrow keeps `on` open.
    let ret = unsafe { libc::ioctl(on.as_raw_fd(), SHUTDOWN, &raw const nothing_flushed) };
    if ret == 0 { Ok(()) } else { Err(Error::last("ioctl(FS_IOC_SHUTDOWN)")) }
}
