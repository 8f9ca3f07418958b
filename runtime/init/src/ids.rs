// SPDX-License-Identifier: Apache-2.0
//! User and group ids on their way into system calls.
//!
//! The rule: 4294967295 is no id. To the calls that change owners and credentials it means "leave it
//! as it is", so a process that asked for it would go on as root.

use rustix::process::{Gid, Uid};

/// A user id, unless it is the one that means none.
pub(crate) fn user(raw: u32) -> Option<Uid> {
    (raw != u32::MAX).then(|| Uid::from_raw(raw))
}

/// Likewise a group id.
pub(crate) fn group(raw: u32) -> Option<Gid> {
    (raw != u32::MAX).then(|| Gid::from_raw(raw))
}
