// SPDX-License-Identifier: Apache-2.0
//! Files and directories that exist only while they are being made.

use crate::fs::files;
use std::path::{Path, PathBuf};

/// A path in `tmp`. What is there is removed on drop, unless it was renamed.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(super) fn new(root: &Path, kind: &str) -> Self {
        Self { path: root.join("tmp").join(files::unique(kind)) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(err) = hull_sys::remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %err, "scratch left behind");
        }
    }
}
