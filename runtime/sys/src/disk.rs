// SPDX-License-Identifier: Apache-2.0
//! Tells which of a file system's resources is used up. An ENOSPC does not say.

use rustix::fs::fstatvfs;
use std::os::fd::AsFd;

/// Free bytes below which a file system counts as full: writing may fail although some are left.
const FREE_BYTES_MIN: u64 = 1 << 20;

/// Whether the file system of `file` has no free inode although it has free bytes: `fstatvfs(3)`. A file system that
/// counts no inodes (btrfs) never lacks them.
pub fn lacks_inodes(file: impl AsFd) -> bool {
    fstatvfs(file).is_ok_and(|of| {
        let free_bytes = of.f_bavail.saturating_mul(of.f_frsize);
        of.f_files > 0 && of.f_favail == 0 && free_bytes >= FREE_BYTES_MIN
    })
}
