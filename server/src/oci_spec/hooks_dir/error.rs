// SPDX-License-Identifier: Apache-2.0
//! Hook files and directories that cannot be used. Texts read after "cannot".

/// A hook file or directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("use hook file {path}: {why}")]
    File { path: String, why: String },
    #[error("use hook directory {path}: {why}")]
    Directory { path: String, why: String },
}

impl Error {
    /// The change by which an operator fixes this.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::File { .. } => "correct or remove the file on this node (it, its program, and each directory on their paths must be root's alone), or put one of the same name into a later directory of `runtime.hooks_dir`; `hull check` reads it again".into(),
            Self::Directory { .. } => "make it, and each directory on its path, root's alone (chown root:root, chmod go-w), or remove it from `runtime.hooks_dir`".into(),
        }
    }
}
