// SPDX-License-Identifier: Apache-2.0
//! Why a container could not be checkpointed. Each text reads after "cannot checkpoint container …: ".

use rustix::io::Errno;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The error of a checkpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "CRIU is not installed: there is no program `criu` in PATH, and `runtime.criu` is not set"
    )]
    NoProgram,
    #[error("CRIU cannot be run as {}: {why}", path.display())]
    Program { path: PathBuf, why: String },
    #[error("`{path}` cannot be its file: {why}")]
    Location { path: String, why: &'static str },
    #[error("`{path}` cannot be its file: there is a file of this name")]
    Exists { path: String },
    #[error("the directory of `{path}` cannot be used")]
    Directory { path: String, source: io::Error },
    #[error("another checkpoint of it is not over yet")]
    InProgress,
    #[error("it has ended meanwhile")]
    Ended,
    #[error("{doing}")]
    Io { doing: &'static str, source: io::Error },
    #[error("CRIU {version} refuses: {message}")]
    Refused { version: String, message: String },
    #[error("CRIU {version} ended by itself; its last lines: {log}")]
    Crashed { version: String, log: String },
    #[error("it took longer than {} s", limit.as_secs())]
    TimedOut { limit: Duration },
    #[error("its files need more than {bytes} bytes, half of what is free in the data directory")]
    TooLarge { bytes: u64 },
    #[error("its changed files cannot be stored")]
    Changes { source: hull_image::Error },
}

impl Error {
    /// The error of a step that works with files.
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    /// The same for a call of the kernel.
    pub(super) fn errno(doing: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Io { doing, source: errno.into() }
    }

    /// Advice for the operator.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoProgram => Some(
                "install CRIU 4.0 or newer, or set `runtime.criu` to its path; to do without checkpoints, turn off the kubelet's feature gate ContainerCheckpoint".into(),
            ),
            Self::Program { .. } => Some(
                "set `runtime.criu` to the path of CRIU's program; it, and each directory on its path, must be root's and not writable by others".into(),
            ),
            Self::Location { .. } => Some("name a new file by its absolute path".into()),
            Self::Exists { .. } => Some("name another file: none is replaced".into()),
            Self::Directory { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("make the directory first".into())
            }
            Self::Directory { source, .. }
                if Errno::from_io_error(source) == Some(Errno::OPNOTSUPP) => Some(
                "choose a directory on a filesystem with unnamed files (O_TMPFILE), such as ext4, xfs or tmpfs".into(),
            ),
            Self::InProgress => Some("try again when it is over".into()),
            Self::Refused { .. } | Self::Crashed { .. } => Some(
                "see `hull check` and https://criu.org/What_cannot_be_checkpointed; a kernel that is newer than CRIU needs a newer CRIU".into(),
            ),
            Self::TimedOut { .. } => {
                Some("give it more time (`timeout` of the kubelet's request); it runs on as before".into())
            }
            Self::TooLarge { .. } => Some(
                "free space in `data_dir`, or remove large sparse files of the container, which are stored whole".into(),
            ),
            Self::Changes { source } => source.hint(),
            Self::Directory { .. } | Self::Ended | Self::Io { .. } => None,
        }
    }
}
