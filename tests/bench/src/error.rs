// SPDX-License-Identifier: Apache-2.0
//! Why something could not be measured. What could not be measured is reported as such; it never turns
//! into a number.

use std::fmt::Write as _;
use std::path::PathBuf;

/// Why a part of the work gave no figures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime refused.
    #[error("get {verb} answered")]
    Verb { verb: &'static str, source: tonic::Status },
    /// The runtime's answer lacks what every runtime tells.
    #[error("find {what} in the answer to {verb}")]
    Answer { verb: &'static str, what: &'static str },
    /// The command of an exec failed.
    #[error("run `{command}` in a container: exit code {code}, {said:?}")]
    Command { command: String, code: i32, said: String },
    /// A file of the kernel, or of the benchmark itself.
    #[error("{act} {}", path.display())]
    File { act: &'static str, path: PathBuf, source: std::io::Error },
    /// The file is there, but what is looked for is not in it.
    #[error("find {what} in {}", path.display())]
    Content { what: String, path: PathBuf },
    /// The process that listens on the socket was not found.
    #[error("find the process that listens on {}", socket.display())]
    Daemon { socket: PathBuf, source: std::io::Error },
    /// The command of `--restart`.
    #[error("restart the runtime by `{command}`: {said}")]
    Restart { command: String, said: String },
    /// Something did not come to pass in time.
    #[error("see within {seconds} s that {what}; at last: {last}")]
    Late { what: &'static str, seconds: u64, last: String },
    /// An exec session.
    #[error("stream an exec: {said}")]
    Stream { said: String },
    /// A work needs an option that was not given.
    #[error("do this without {option}")]
    Option { option: &'static str },
    /// The bare program of the kernel floor.
    #[error("measure the kernel floor: {said}")]
    Floor { said: String },
}

impl Error {
    /// The error and all that lies below it, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = format!("cannot {self}");
        let mut source = std::error::Error::source(self);
        while let Some(err) = source {
            // Writing to a string does not fail.
            let _done = match err.downcast_ref::<tonic::Status>() {
                Some(status) => write!(text, ": {:?}: {}", status.code(), status.message()),
                None => write!(text, ": {err}"),
            };
            source = err.source();
        }
        if let Some(hint) = self.hint() {
            let _done = write!(text, " (hint: {hint})");
        }
        text
    }

    /// The hint: a change of the command line that fixes it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Option { option } => Some(format!("give {option}; see `cri-bench --help`")),
            Self::Daemon { .. } => Some("run it as root, on the node itself".into()),
            Self::Content { what, .. } if what.starts_with("cgroup") => {
                Some("give --cgroup as a path below the hierarchies' mounts, such as /system.slice/containerd.service".into())
            }
            Self::Verb { .. }
            | Self::Answer { .. }
            | Self::Command { .. }
            | Self::File { .. }
            | Self::Content { .. }
            | Self::Restart { .. }
            | Self::Late { .. }
            | Self::Stream { .. }
            | Self::Floor { .. } => None,
        }
    }
}

/// Names the verb that was refused.
pub(crate) fn verb(verb: &'static str) -> impl FnOnce(tonic::Status) -> Error {
    move |source| Error::Verb { verb, source }
}
