// SPDX-License-Identifier: Apache-2.0
//! The errors of the commands.
//!
//! Callers of runc (containerd's shim, podman) recognize some errors by words in the message. Those words
//! are kept: "container does not exist", "container not running", "already exists", "executable file
//! not found in $PATH".

use crate::state::Status;
use hull_plan::Failure;
use std::path::PathBuf;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Each message reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("use {} as {option}", path.display())]
    OptionPath { option: &'static str, path: PathBuf, source: hull_sys::Error },
    #[error("use CPUs `{list}` (process.execCPUAffinity.initial)")]
    Affinity { list: String, source: hull_sys::Error },
    #[error("parse the command line: {what}")]
    Usage { what: String },
    #[error("do `{what}`: it is not supported")]
    NotSupported { what: String, hint: &'static str },
    #[error("take `{id}` as a container's id: {why}")]
    BadId { id: String, why: &'static str },
    #[error("create container `{id}`: container with given ID already exists")]
    Exists { id: String },
    #[error("find container `{id}`: container does not exist")]
    NoContainer { id: String },
    #[error("{action} container `{id}`: container not running")]
    NotRunning { action: &'static str, id: String },
    #[error("{action} container `{id}`: it is {status}")]
    WrongState { action: &'static str, id: String, status: Status },
    #[error("delete container `{id}`: its init process still runs {seconds} s after SIGKILL")]
    StillRuns { id: String, seconds: u64 },
    #[error("manage {unit} by systemd: {why}")]
    Systemd { unit: String, why: String },
    #[error("exec in a paused container: `{id}`")]
    Paused { id: String },
    #[error("pass on seccomp notifications: failed to connect with seccomp agent at `{path}`")]
    Agent { path: String, source: hull_sys::Error },
    #[error("use cgroup `{path}`: container's cgroup is not empty")]
    CgroupInUse { path: String },
    #[error("start a process: container's cgroup unexpectedly frozen (`{path}`)")]
    Frozen { path: String },
    #[error("access the state of containers below --root")]
    Record { source: hull_records::Error },
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
    #[error("start container `{id}`: error running {hook}: {why}")]
    Hook { id: String, hook: String, why: String, hint: Option<String> },
    #[error("exec in container `{id}`: exec failed: {failure}")]
    Exec { id: String, failure: Box<Failure> },
    #[error("give container `{id}` its network devices")]
    NetDevices { id: String, source: hull_netlink::devices::Error },
    #[error("give container `{id}` network devices (`linux.netDevices`): {why}")]
    NoNetDevices { id: String, why: &'static str, hint: &'static str },
    #[error("manage the cgroup of container `{id}`")]
    Cgroup { id: String, source: hull_cgroup::Error },
    #[error("make a system call")]
    Call { source: hull_sys::Error },
    #[error("run from a sealed copy of this program: {0}")]
    SealedCopy(&'static str),
}

impl Error {
    /// Advice for the caller, where there is any.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { .. } => Some("see `hull oci --help`".into()),
            Self::OptionPath { option: "--pid-file", .. } => {
                Some("create the directory of the file, or pass another path to --pid-file".into())
            }
            Self::OptionPath { option, .. } => {
                Some(format!("start the program that listens there, or correct {option}"))
            }
            Self::Affinity { .. } => {
                Some("choose CPUs that are online and in the cpuset of the caller".into())
            }
            Self::NotSupported { hint, .. } => Some((*hint).into()),
            Self::Exists { .. } => Some("choose another id, or `hull oci delete` that one".into()),
            Self::NoContainer { .. } => {
                Some("`hull oci list` shows the containers; use the --root that the container was created with".into())
            }
            Self::WrongState { action: "delete", .. } => {
                Some("stop it with `hull oci kill`, or delete it with --force".into())
            }
            Self::CgroupInUse { .. } => {
                Some("give the container a `linux.cgroupsPath` of its own".into())
            }
            Self::Systemd { .. } => Some(
                "see `systemctl status` of it; without systemd leave out --systemd-cgroup".into(),
            ),
            Self::Paused { .. } => {
                Some("`hull oci resume` it, or pass --ignore-paused: the process then waits".into())
            }
            Self::Agent { .. } => Some(
                "start the agent that listens there, or correct `linux.seccomp.listenerPath`".into(),
            ),
            Self::Frozen { .. } => Some(
                "thaw it: `hull oci resume`, or write 0 to its cgroup.freeze (v2), THAWED to its freezer.state (v1)".into(),
            ),
            Self::Plan { source, .. } | Self::PlanProcess { source } => plan_hint(source),
            Self::Cgroup { source, .. } => source.hint(),
            Self::NetDevices { source, .. } => source.hint(),
            Self::NoNetDevices { hint, .. } => Some((*hint).into()),
            Self::Start { failure, .. } | Self::Exec { failure, .. } => failure.hint.clone(),
            Self::StillRuns { .. } => {
                Some("it hangs in the kernel, usually on storage; see /proc/PID/stack".into())
            }
            Self::BadFile { what: "a bundle", .. } => {
                Some("pass a directory with config.json and a root filesystem to --bundle; `hull oci spec` writes a config.json".into())
            }
            Self::Record { source } => source.hint(),
            Self::Hook { hint, .. } => hint.clone(),
            Self::Document { .. } => Some("fix the JSON at that position".into()),
            Self::BadId { .. }
            | Self::NotRunning { .. }
            | Self::WrongState { .. }
            | Self::BadFile { .. }
            | Self::BadValue { .. }
            | Self::Call { .. }
            | Self::SealedCopy(_) => None,
        }
    }

    pub(crate) fn call(source: hull_sys::Error) -> Self {
        Self::Call { source }
    }

    /// Converts the error of a rustix call, for `map_err`.
    pub(crate) fn of<S: Into<String>>(
        call: impl FnOnce() -> S,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Call { source: hull_sys::Error::new(errno, call()) }
    }
}

/// Advice for the author of a config.json.
fn plan_hint(error: &hull_plan::Error) -> Option<String> {
    if let hull_plan::Error::Bad { field, .. } = error {
        return Some(format!(
            "correct `{field}` in config.json, as the OCI runtime spec describes it"
        ));
    }
    if let hull_plan::Error::Unsupported { value, .. } = error
        && !value.starts_with("SCMP_ACT_")
    {
        return Some(match value.as_str() {
            "linux.intelRdt" => "remove `linux.intelRdt` from config.json; a process is put into a group of resctrl by writing its pid to the group's `tasks`".into(),
            field => format!("remove `{field}` from config.json"),
        });
    }
    error.hint()
}
