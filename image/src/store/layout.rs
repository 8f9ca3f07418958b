// SPDX-License-Identifier: Apache-2.0
//! Where everything of the store lies on disk, and whether the disk can be written to.

use super::scratch::Scratch;
use crate::digest::Digest;
use crate::error::Error;
use crate::fs::files;
use hull_sys as sys;
use rustix::io::Errno;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Directories of the store, each with mode 0700.
const DIRECTORIES: [&str; 6] = ["images", "layers", "inventories", "blobs", "containers", "tmp"];

/// The paths of a store.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A directory or file directly beneath the root.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The directory of a layer.
    pub(super) fn layer(&self, name: &str) -> PathBuf {
        self.path("layers").join(name)
    }

    /// The file list of a layer.
    pub(super) fn file_list(&self, layer: &str) -> PathBuf {
        self.path("inventories").join(layer)
    }

    /// A compressed layer, if blobs are kept.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.path("blobs").join(digest.hex())
    }

    /// The directory of a container's writable layer.
    pub(super) fn container(&self, id: &str) -> PathBuf {
        self.path("containers").join(id)
    }

    /// A new path in `tmp` that nothing else has.
    pub(super) fn scratch(&self, kind: &str) -> Scratch {
        Scratch::new(&self.root, kind)
    }

    /// A path in `tmp` to move something to before it is removed.
    pub(super) fn aside(&self, kind: &str) -> PathBuf {
        self.path("tmp").join(files::unique(kind))
    }

    /// Creates the directories that are missing.
    pub(super) fn create(&self) -> sys::Result<()> {
        if let Some(parent) = self.root.parent() {
            std::fs::create_dir_all(parent)
                .map_err(sys::Error::of_io(|| format!("mkdir({})", parent.display())))?;
        }
        files::make_dir(&self.root, 0o700)?;
        for name in DIRECTORIES {
            files::make_dir(&self.path(name), 0o700)?;
        }
        files::make_dir(&self.path("below"), 0o755)?;
        files::make_dir(&self.path("empty"), 0o755)
    }

    /// Whether something can be created in the store. `access(2)`.
    pub(super) fn probe_writable(&self) -> sys::Result<()> {
        let path = self.path("tmp");
        let how = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::access(&path, how)
            .map_err(sys::Error::of(|| format!("access({}, W_OK)", path.display())))
    }

    /// The same as an error of the store.
    pub(super) fn check_writable(&self) -> Result<(), Error> {
        self.probe_writable().map_err(|source| Error::ReadOnly { path: self.root.clone(), source })
    }

    /// Removes everything that an earlier process left in `tmp`. What cannot be removed is in nobody's way.
    pub(super) fn sweep(&self) -> sys::Result<()> {
        let tmp = self.path("tmp");
        for name in files::names(&tmp)? {
            let path = tmp.join(name);
            if let Err(err) = hull_sys::remove_tree(&path) {
                tracing::warn!(path = %path.display(), error = %err, "left file not removed");
            }
        }
        Ok(())
    }

    /// An unnamed file on the file system of the store.
    pub(super) fn unnamed_file(&self) -> sys::Result<File> {
        use rustix::fs::{Mode, OFlags, open};
        let path = self.path("tmp");
        open(&path, OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(sys::Error::of(|| format!("open({}, TMPFILE)", path.display())))
    }

    /// Bytes that are free on the file system. Unlimited if it does not say.
    pub(super) fn free_bytes(&self) -> u64 {
        let free = |of: rustix::fs::StatVfs| of.f_bavail.saturating_mul(of.f_frsize);
        rustix::fs::statvfs(&self.root).map_or(u64::MAX, free)
    }
}

/// Whether a directory exists but cannot be written to.
pub(super) fn is_refused(error: &sys::Error) -> bool {
    matches!(error.errno(), Errno::ROFS | Errno::ACCESS | Errno::PERM)
}

/// The names in a directory of the store; none in one that could not be created.
pub(super) fn names_if_present(path: &Path) -> sys::Result<Vec<String>> {
    match files::names(path) {
        Err(err) if err.is_not_found() => Ok(Vec::new()),
        other => other,
    }
}
