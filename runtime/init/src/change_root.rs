// SPDX-License-Identifier: Apache-2.0
//! The root of the mount namespace becomes the container's: the last use of any path of the host.

use crate::kernel_mounts;
use crate::mount::{Result, errno_context};
use crate::rootfs::Root;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, UnmountFlags, unmount};

/// Makes the container's root the working directory, in which createContainer hooks start as with runc.
pub(crate) fn enter(root: &Root) -> Result {
    rustix::process::fchdir(root.fd()).map_err(errno_context("fchdir(root)"))
}

/// `pivot_root(2)`: the old root ends up on top of the new one and is taken off there, so no
/// directory inside is needed for it.
pub(crate) fn pivot(root: &Root) -> Result<Root> {
    enter(root)?;
    rustix::process::pivot_root(".", ".").map_err(errno_context("pivot_root(., .)"))?;
    unmount(".", UnmountFlags::DETACH).map_err(errno_context("umount2(., DETACH)"))?;
    opened()
}

/// Where the host's root cannot be pivoted away from, an initramfs: the root is moved over it. The
/// host's mounts stay below, out of reach of processes that cannot unmount.
pub(crate) fn move_over(root: &Root) -> Result<Root> {
    enter(root)?;
    kernel_mounts::remove_outside(root.fd())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(root.fd(), c"", CWD, c"/", flags)
        .map_err(errno_context("move_mount(/)"))?;
    rustix::process::chroot(".").map_err(errno_context("chroot(.)"))?;
    opened()
}

fn opened() -> Result<Root> {
    rustix::process::chdir("/").map_err(errno_context("chdir(/)"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, "/", flags, Mode::empty());
    root.map(Root::new).map_err(errno_context("open(/)"))
}
