// SPDX-License-Identifier: Apache-2.0
//! The errno numbers that this crate distinguishes.

use std::io;

/// Named as in errno(3).
pub(crate) mod libc_errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const ENOENT: i32 = 2;
    pub(crate) const E2BIG: i32 = 7;
    pub(crate) const EAGAIN: i32 = 11;
    pub(crate) const ENOMEM: i32 = 12;
    pub(crate) const EACCES: i32 = 13;
    pub(crate) const EBUSY: i32 = 16;
    pub(crate) const ENODEV: i32 = 19;
    pub(crate) const EINVAL: i32 = 22;
    pub(crate) const ENOSPC: i32 = 28;
    pub(crate) const EROFS: i32 = 30;
    pub(crate) const ERANGE: i32 = 34;
    pub(crate) const ENAMETOOLONG: i32 = 36;
    pub(crate) const EOPNOTSUPP: i32 = 95;
}

pub(crate) fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}
