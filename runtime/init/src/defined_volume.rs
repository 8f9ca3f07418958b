// SPDX-License-Identifier: Apache-2.0
//! Volumes that an image defines (`VOLUME`): directories of the container's root that are mounts of their own.
//!
//! The rule: they are on the root's own mount and below its top. A path, or a link, that leads to another mount makes
//! nothing there; one that leads to the root itself would be in its place for all that enters later.

use crate::mount::{CallError, Result, clone_fd, errno_context};
use crate::plan::{Op, Source};
use crate::rootfs::Root;
use std::os::fd::{AsFd as _, OwnedFd};

/// Makes what is missing of all of them while the root has no mounts: one may lie in another. An error comes with the
/// place of its operation.
pub(crate) fn make_all(root: &Root, ops: &[Op]) -> Result<(), (usize, CallError)> {
    for (at, op) in ops.iter().enumerate() {
        if let Op::Bind { source: Source::Root, target, .. } = op {
            let _none_if_elsewhere = find(root, target).map_err(|failed| (at, failed))?;
        }
    }
    Ok(())
}

/// A clone of the root at `target`; `None` where that is on another mount by now, such as an outer volume, which has
/// it already.
pub(crate) fn tree(root: &Root, target: &str) -> Result<Option<OwnedFd>> {
    find(root, target)?.map(|found| clone_fd(found.as_fd(), false)).transpose()
}

fn find(root: &Root, target: &str) -> Result<Option<OwnedFd>> {
    root.find_or_make_on_own_mount(target).map_err(errno_context(format!("make({target})")))
}
