// SPDX-License-Identifier: Apache-2.0
//! User and group ids on their way into system calls.
//!
//! The rule: 4294967295 is not an id. To the calls that change owners and credentials it means "leave it
//! as it is", so a process with that id would continue as root.

use rustix::process::{Gid, Uid};

/// The user id; `None` for 4294967295.
pub(crate) fn user(raw: u32) -> Option<Uid> {
    (raw != u32::MAX).then(|| Uid::from_raw(raw))
}

/// The group id; `None` for 4294967295.
pub(crate) fn group(raw: u32) -> Option<Gid> {
    (raw != u32::MAX).then(|| Gid::from_raw(raw))
}
