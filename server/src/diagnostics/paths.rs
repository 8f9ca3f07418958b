// SPDX-License-Identifier: Apache-2.0
//! Paths of a container, looked at from the host: owners and modes of their parts. Nothing is opened for reading, and
//! no link leads out of the container's root or of a volume.

use super::rights::Owner;
use crate::container::ContainerRecord;
use crate::node::Node;
use hull_image::Image;
use hull_plan::elf;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Most bytes of a program that are looked at.
const PROGRAM_BYTES_MAX: usize = 64 << 10;
/// Most parts of a path that are looked at.
const PARTS_MAX: usize = 32;

/// A path that was walked, as the container sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walked {
    pub(super) path: String,
    /// The parts of it that exist, from the root of its mount on, each with its whole path.
    pub(super) parts: Vec<(String, Owner)>,
    /// Whether all of it exists.
    pub(super) complete: bool,
}

/// Opens a path of the host without any effect on it.
pub(super) fn open_path(path: PathBuf) -> Option<OwnedFd> {
    open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Owner and mode.
pub(super) fn owner(stat: &Stat) -> Owner {
    Owner {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        is_directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
    }
}

/// The container's root as it is without volumes: the layers of its image, with its writable layer as the topmost.
pub(super) fn view(node: &Node, record: &ContainerRecord, image: &Image) -> Option<OwnedFd> {
    let rootfs = node.images.rootfs(&record.id, image);
    let layers: Vec<PathBuf> = std::iter::once(rootfs.upper).chain(rootfs.lower).collect();
    hull_image::view(&layers).ok()
}

/// The layers of the image alone, without what the container wrote.
pub(super) fn image_view(node: &Node, record: &ContainerRecord, image: &Image) -> Option<OwnedFd> {
    hull_image::view(&node.images.rootfs(&record.id, image).lower).ok()
}

/// Programs in a view.
pub(super) struct Inside<'v>(BorrowedFd<'v>);

impl<'v> Inside<'v> {
    pub(super) fn new(view: BorrowedFd<'v>) -> Self {
        Self(view)
    }
}

impl elf::Files for Inside<'_> {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        hull_image::read_start_inside(self.0, path, PROGRAM_BYTES_MAX).ok().flatten()
    }
}

/// Owner and mode of `path` beneath `root`; links are resolved inside.
pub(super) fn owner_in(root: BorrowedFd<'_>, path: &str) -> Option<Owner> {
    let found = hull_sys::open_in_root(root, path, OFlags::PATH, ResolveFlags::empty()).ok()?;
    Some(owner(&fstat(&found).ok()?))
}

/// Walks `path` beneath `root`, which the container has at `target`; empty for its own root.
pub(super) fn walk(root: BorrowedFd<'_>, target: &str, path: &str) -> Option<Walked> {
    let rest = path.strip_prefix(target.trim_end_matches('/'))?;
    let names: Vec<&str> =
        rest.split('/').filter(|name| !name.is_empty()).take(PARTS_MAX).collect();
    let top = if target.is_empty() { "/" } else { target };
    let mut parts = vec![(top.to_owned(), owner(&fstat(root).ok()?))];
    for end in 1..=names.len() {
        let inside = names[..end].join("/");
        let Some(owner) = owner_in(root, &inside) else { break };
        parts.push((format!("{}/{inside}", target.trim_end_matches('/')), owner));
    }
    let complete = parts.len() == names.len() + 1;
    Some(Walked { path: path.to_owned(), parts, complete })
}
