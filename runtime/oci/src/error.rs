// SPDX-License-Identifier: Apache-2.0
//! Why a command could not be carried out.
//!
//! Callers of runc (containerd's shim, podman) tell some cases apart by words in the text. Those words
//! are kept: "container does not exist", "container not running", "already exists", "executable file
//! not found in $PATH".

use crate::status::Status;
use hull_plan::Failure;
use std::path::PathBuf;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Texts read after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("understand the command line: {what}")]
    Usage { what: String },
    #[error("do `{what}`: it is not supported")]
    NotSupported { what: String, mend: &'static str },
    #[error("take `{id}` as a container's id: {why}")]
    BadId { id: String, why: &'static str },
    #[error("create container `{id}`: container with given ID already exists")]
    Exists { id: String },
    #[error("find container `{id}`: container does not exist")]
    NoContainer { id: String },
    #[error("{action} container `{id}`: container not running")]
    NotRunning { action: &'static str, id: String },
    #[error("{action} container `{id}`: it is {status}")]
    Unfit { action: &'static str, id: String, status: Status },
    #[error("delete container `{id}`: its first process still runs {seconds} s after SIGKILL")]
    StillRuns { id: String, seconds: u64 },
    #[error("use cgroup `{path}`: it has processes already")]
    CgroupInUse { path: String },
    #[error("read {}", path.display())]
    Document { path: PathBuf, source: serde_json::Error },
    #[error("take {} as {what}: {why}", path.display())]
    BadFile { path: PathBuf, what: &'static str, why: String },
    #[error("take `{value}` as {what}")]
    BadValue { value: String, what: &'static str },
    #[error("plan container `{id}`")]
    Plan { id: String, source: hull_plan::Error },
    #[error("plan a process")]
    PlanProcess { source: hull_plan::Error },
    #[error("start container `{id}`: {failure}")]
    Start { id: String, failure: Box<Failure> },
    #[error("run {hook} in the life of container `{id}`: {why}")]
    Hook { id: String, hook: String, why: String },
    #[error("exec in container `{id}`: exec failed: {failure}")]
    Exec { id: String, failure: Box<Failure> },
    #[error("work with the cgroup of container `{id}`")]
    Cgroup { id: String, source: hull_cgroup::Error },
    #[error("go on")]
    Call { source: hull_sys::Error },
    #[error("do all of it: {0}")]
    Guard(&'static str),
}

impl Error {
    /// What the caller can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { .. } => Some("see `hull oci --help`".into()),
            Self::NotSupported { mend, .. } => Some((*mend).into()),
            Self::Exists { .. } => Some("choose another id, or `hull oci delete` that one".into()),
            Self::NoContainer { .. } => {
                Some("`hull oci list` shows what is there; --root must be the one of its create".into())
            }
            Self::Unfit { action: "delete", .. } => {
                Some("end it by `hull oci kill`, or delete it with --force".into())
            }
            Self::CgroupInUse { .. } => {
                Some("give the container a `linux.cgroupsPath` of its own".into())
            }
            Self::Plan { source, .. } | Self::PlanProcess { source } => source.hint(),
            Self::Cgroup { source, .. } => source.hint(),
            Self::Start { failure, .. } | Self::Exec { failure, .. } => failure.hint.clone(),
            Self::StillRuns { .. } => {
                Some("it hangs in the kernel, usually on storage: see /proc/PID/stack".into())
            }
            Self::BadFile { what: "a bundle", .. } => {
                Some("name a directory with config.json and root filesystem by --bundle; `hull oci spec` writes a config.json".into())
            }
            Self::Document { .. } => Some("correct the document at that place".into()),
            Self::BadId { .. }
            | Self::NotRunning { .. }
            | Self::Unfit { .. }
            | Self::BadFile { .. }
            | Self::BadValue { .. }
            | Self::Hook { .. }
            | Self::Call { .. }
            | Self::Guard(_) => None,
        }
    }

    /// What the program ends with.
    pub(crate) fn code(&self) -> u8 {
        if matches!(self, Self::Exec { .. }) { 255 } else { 1 }
    }

    pub(crate) fn call(source: hull_sys::Error) -> Self {
        Self::Call { source }
    }

    /// For `map_err` behind a call of rustix.
    pub(crate) fn of<S: Into<String>>(
        call: impl FnOnce() -> S,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Call { source: hull_sys::Error::new(errno, call()) }
    }
}
