// SPDX-License-Identifier: Apache-2.0
//! Writable layers of containers.
//!
//! The rule: every path follows from the container's id, so a writable layer can be removed without a
//! record, and more than once.

use super::changes;
use super::layout::Layout;
use super::quotas::Quotas;
use crate::error::Error;
use crate::fs::files;
use crate::fs::walk;
use crate::limits::{LAYERS, Work};
use crate::types::{FsUsage, Image, LayerQuota};
use crate::view;
use hull_sys as sys;
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown, fstat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io::Write;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Below all layers of a container's root lies this one: the places where every container has
/// something mounted. An image seldom has all of them; those it lacks would be made in each container's own
/// layer, which costs more inodes than all else of a start.
const MOUNT_POINTS: &str = "places";

/// Creates the directories and files of that layer.
pub(super) fn create_mount_points(layout: &Layout) -> sys::Result<()> {
    let root = layout.path(MOUNT_POINTS);
    for directory in ["", "dev", "etc", "proc", "sys"] {
        files::make_dir(&root.join(directory), 0o755)?;
    }
    for file in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
        files::make_empty(&root.join(file), 0o644)?;
    }
    Ok(())
}

/// Cancels the measuring of a writable layer. Clones cancel the same one.
#[derive(Debug, Clone, Default)]
pub struct Measure {
    work: Work,
}

impl Measure {
    /// Cancels the measuring.
    pub fn stop(&self) {
        self.work.stop();
    }
}

/// The overlayfs directories of a container's root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The image's layers, topmost first, and what lies below every image.
    pub lower: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// The work directory of overlayfs.
    pub work: PathBuf,
}

/// The writable layers of containers.
#[derive(Debug)]
pub(super) struct WritableLayers {
    layout: Layout,
    quotas: Quotas,
    /// Bytes and inodes of each, as measured last.
    written: Mutex<HashMap<String, (u64, u64)>>,
}

impl WritableLayers {
    pub(super) fn new(layout: Layout) -> Self {
        let quotas = Quotas::new(layout.path("containers"));
        Self { layout, quotas, written: Mutex::default() }
    }

    /// Makes the writable layer of a container. May be repeated. `owner` tells to whom the root
    /// directory belongs, of the user and group that it has in the image: with mapped ids another. With `size_max`,
    /// it can use no more bytes than that.
    pub(super) fn create(
        &self,
        container: &str,
        image: &Image,
        owner: &dyn Fn(u32, u32) -> (u32, u32),
        size_max: Option<u64>,
    ) -> Result<Rootfs, Error> {
        let failed = |source| failed("make", container, source);
        let directory = self.directory(container).map_err(failed)?;
        let rootfs = self.paths(container, image);
        files::make_dir(&directory, 0o700).map_err(failed)?;
        if let Some(bytes) = size_max {
            // Before anything is in it: both directories of the overlay must be in one project.
            self.quotas.limit(&directory, bytes).map_err(failed)?;
        }
        files::make_dir(&rootfs.work, 0o700).map_err(failed)?;
        files::make_dir(&rootfs.upper, 0o755).map_err(failed)?;
        if let Some(top) = rootfs.lower.first() {
            // The root directory of the container has the mode of this one, and the owner.
            like(&rootfs.upper, top, owner).map_err(failed)?;
        }
        // From now on the disk usage of all containers includes it.
        self.usage(container)?;
        Ok(rootfs)
    }

    /// Where the root filesystem of a container is, whether it was made or not.
    pub(super) fn paths(&self, container: &str, image: &Image) -> Rootfs {
        let directory = self.layout.container(container);
        let lower = with_lowest(image, self.layout.path(MOUNT_POINTS));
        Rootfs { lower, upper: directory.join("upper"), work: directory.join("work") }
    }

    /// The layers with which overlayfs shows an image without a writable layer: at least two.
    pub(super) fn volume_layers(&self, image: &Image) -> Vec<PathBuf> {
        with_lowest(image, self.layout.path("below"))
    }

    /// Writes the changes in a container's writable layer as an archive, and returns the removed paths.
    pub(super) fn changes(
        &self,
        container: &str,
        image: &Image,
        owner: changes::Owner<'_>,
        out: &mut dyn Write,
    ) -> Result<Vec<String>, Error> {
        let failed = |source| failed("read", container, source);
        let upper = self.directory(container).map_err(failed)?.join("upper");
        let upper = files::open_dir(&upper).map_err(failed)?;
        let lower = view::stack(&self.paths(container, image).lower).map_err(failed)?;
        changes::write(upper.as_fd(), lower.as_fd(), owner, out)
            .map_err(|err| Error::Changes { container: container.to_owned(), why: err.to_string() })
    }

    /// Removes the writable layer of a container. One that is not there is a success.
    pub(super) fn remove(&self, container: &str) -> Result<(), Error> {
        let failed = |source| failed("remove", container, source);
        let directory = self.directory(container).map_err(failed)?;
        // On a read-only file system a rename of a missing path does not fail with ENOENT.
        if files::open_dir(&directory).is_err_and(|err| err.is_not_found()) {
            self.written().remove(container);
            return Ok(());
        }
        let project = Quotas::project(&directory);
        // Moved to `tmp` first, so that a crash leaves something that the next open removes.
        let aside = self.layout.aside("rootfs");
        let moved = files::rename(&directory, &aside);
        if moved.as_ref().is_err_and(|err| !err.is_not_found()) {
            return moved.map_err(failed);
        }
        // After the rename: a measuring that runs now finds it missing, and does not add it back.
        self.written().remove(container);
        if moved.is_ok() {
            hull_sys::remove_tree(&aside).map_err(failed)?;
            project.map_or(Ok(()), |project| self.quotas.free(project)).map_err(failed)?;
        }
        Ok(())
    }

    /// The quotas of all of them.
    pub(super) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// The use of a container's writable layer, and its limit; `None` without one.
    pub(super) fn quota(&self, container: &str) -> Option<LayerQuota> {
        self.quotas.usage(&self.directory(container).ok()?)
    }

    /// Measures the files that a container has written, by walking its writable layer.
    pub(super) fn usage(&self, container: &str) -> Result<FsUsage, Error> {
        self.measure(container, &Measure::default())
    }

    /// The same, which ends with an error when `measure` is stopped. In memory it takes what the depth of the tree
    /// does, not its width.
    pub(super) fn measure(&self, container: &str, measure: &Measure) -> Result<FsUsage, Error> {
        let failed = |source| failed("measure", container, source);
        let directory = self.directory(container).map_err(failed)?;
        let upper = directory.join("upper");
        let (bytes, inodes) = walk::usage(&upper, &measure.work).map_err(failed)?;
        let mut written = self.written();
        files::open_dir(&upper).map_err(failed)?;
        written.insert(container.to_owned(), (bytes, inodes));
        drop(written);
        Ok(FsUsage { mountpoint: self.layout.root().to_owned(), bytes, inodes })
    }

    /// The sum of the last measurements of all containers. Walks nothing.
    pub(super) fn known_usage(&self) -> FsUsage {
        let sum = |all: (u64, u64), of: &(u64, u64)| (all.0 + of.0, all.1 + of.1);
        let (bytes, inodes) = self.written().values().fold((0, 0), sum);
        FsUsage { mountpoint: self.layout.root().to_owned(), bytes, inodes }
    }

    fn written(&self) -> MutexGuard<'_, HashMap<String, (u64, u64)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The containers that have a writable layer.
    pub(super) fn ids(&self) -> Vec<String> {
        files::names(&self.layout.path("containers")).unwrap_or_else(|err| {
            tracing::warn!(error = %err, "writable layers not listed");
            Vec::new()
        })
    }

    fn directory(&self, container: &str) -> sys::Result<PathBuf> {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
        let is_good = container.bytes().all(is_name) && !container.trim_matches('.').is_empty();
        if !is_good {
            return Err(sys::Error::new(
                Errno::INVAL,
                format!("mkdir({})", container.escape_debug()),
            ));
        }
        Ok(self.layout.container(container))
    }
}

/// An image's layers and one below them, if overlayfs can stack that many. The lowest one is of use where there
/// are few layers; with the most that are allowed, the mount points are made in the container's own layer.
fn with_lowest(image: &Image, lowest: PathBuf) -> Vec<PathBuf> {
    let mut layers = image.layers.clone();
    if layers.len() < LAYERS.count() {
        layers.push(lowest);
    }
    layers
}

fn like(directory: &Path, other: &Path, owner: &dyn Fn(u32, u32) -> (u32, u32)) -> sys::Result<()> {
    let shown = || format!("fchown({})", directory.display());
    let stat = fstat(files::open_dir(other)?).map_err(sys::Error::of(shown))?;
    let directory_fd = files::open_dir(directory)?;
    let (uid, gid) = owner(stat.st_uid, stat.st_gid);
    fchown(&directory_fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(sys::Error::of(shown))?;
    fchmod(&directory_fd, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(sys::Error::of(shown))
}

fn failed(doing: &'static str, container: &str, source: sys::Error) -> Error {
    Error::Rootfs { doing, container: container.to_owned(), source }
}
