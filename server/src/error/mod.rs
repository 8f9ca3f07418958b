// SPDX-License-Identifier: Apache-2.0
//! The error of a verb.
//!
//! Each text reads after "cannot". The parts' own errors are sources, printed once, by
//! `cri/status.rs`, which also chooses the gRPC code and adds the hint.

mod advice;
mod cause;
mod chain;
mod message;

pub(crate) use cause::Cause;
pub(crate) use chain::Chain;
pub(crate) use message::{HINT_BYTES_MAX, message, sentence};

use crate::container::checkpoint;
use crate::container::exec::NoSlot;
use crate::limits::call_memory::UsedUp;
use crate::monitors;
use crate::nri;
use crate::oci_spec;
use crate::pod;
use crate::records;
use crate::userns;
use hull_plan::Failure;
use std::sync::Arc;
use std::time::Duration;

/// The result of a verb. The error is shared, because several callers may wait for the same work.
pub(crate) type Result<T> = std::result::Result<T, Arc<Error>>;

/// A verb that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("find {kind} `{id}`: there is none with this id")]
    NotFound { kind: &'static str, id: String },
    #[error("find `{name}`: no pod, container or image has this name or id")]
    NotNamed { name: String },
    #[error("accept `{field}`: {why}")]
    Invalid { field: &'static str, why: String },
    #[error(
        "use runtime handler `{handler}`: it is unknown here, this node has the empty one, `hull`{}", listed(.known)
    )]
    UnknownHandler {
        handler: String,
        /// The names of the configured ones.
        known: Vec<String>,
    },
    #[error("run a pod of runtime handler `{handler}`: {why}")]
    Handler { handler: String, why: String, hint: &'static str },
    #[error("{verb} {kind} `{id}` while it is {state}")]
    WrongState { verb: &'static str, kind: &'static str, id: String, state: &'static str },
    /// Its processes are frozen, so a new one would not run.
    #[error("{verb} container `{id}`: {}", frozen_text(.above.as_deref()))]
    Paused {
        verb: &'static str,
        id: String,
        /// `NAMESPACE/POD/CONTAINER`.
        name: String,
        /// The path of the cgroup above the container's own that is frozen, if it is one.
        above: Option<String>,
    },
    #[error(
        "create container `{name}` (attempt {attempt}): container {holder} of this pod has that name"
    )]
    NameTaken { name: String, attempt: u32, holder: String },
    #[error("find image `{image}`: it is not present on this node")]
    NoImage { image: String },
    #[error("mount `{path}` of image {image}: {why}")]
    SubPath { image: String, path: String, why: &'static str },
    #[error("use `{path}` as the source of a volume")]
    VolumeSource { path: String, source: hull_sys::Error },
    #[error(
        "give the volume of `{path}` {wanted} propagation: `{mount}`, where it lies on the node, is {is}"
    )]
    Propagation { path: String, wanted: &'static str, mount: String, is: &'static str },
    #[error("use image `{image}`")]
    Image { image: String, source: hull_image::Error },
    #[error("make the root filesystem of container {container}")]
    Rootfs { container: String, source: hull_image::Error },
    #[error("limit the writable layer of the container in `{directory}`: {why}")]
    NoQuotas { directory: String, why: String },
    #[error("work out what the container needs")]
    Spec { source: oci_spec::Error },
    #[error(transparent)]
    UserNamespace { source: userns::Error },
    #[error(transparent)]
    HooksDir { source: oci_spec::hooks_dir::Error },
    #[error(transparent)]
    Plugins { source: hull_nri::Error },
    #[error(transparent)]
    Adjust { source: nri::Error },
    #[error("give container {container} the limits that NRI plugin `{plugins}` asks for: {why}")]
    ForeignLimits { container: String, plugins: String, why: String },
    /// Of a container that they have a say in.
    #[error("do what NRI plugin `{plugins}` asks")]
    AskedBy { plugins: String, source: Box<Error> },
    #[error("plan the container's start")]
    Plan { source: hull_plan::Error },
    /// A step failed and was explained.
    #[error("{doing}: {failure}")]
    Failed { doing: &'static str, failure: Box<Failure> },
    #[error("start the container: {hook} failed: {why}")]
    Hook {
        hook: String,
        why: String,
        /// The hint, where there is a better one than that for all hooks.
        hint: Option<String>,
    },
    /// Its process was killed before its program ran.
    #[error("start the container: it was {}", cut_short_text(*.was_stopped, hook.as_ref()))]
    StartCutShort {
        /// The hook that ran then, if it is known, and the end of its output, quoted or empty.
        hook: Option<(String, String)>,
        /// A stop was requested; else something on the node killed it.
        was_stopped: bool,
    },
    #[error("{doing}")]
    Monitor { doing: &'static str, source: monitors::Error },
    #[error("{doing} the pod")]
    Parts { doing: &'static str, source: pod::Error },
    #[error("keep a record of it")]
    Store { source: records::Error },
    #[error("open log file `{path}`")]
    Log { path: String, source: hull_sys::Error },
    #[error("open log file `{path}`: it is {what}")]
    LogFile { path: String, what: &'static str },
    #[error("{doing} in `{directory}`: the file system there does not answer")]
    Storage { doing: &'static str, directory: String },
    #[error("set the container's limits; those that it had hold")]
    SetLimits { source: hull_cgroup::Error },
    #[error("read the counters of its cgroup")]
    Stats { source: hull_cgroup::Error },
    #[error("run the command: it did not end within {limit:?}{}", throttled_text(*.throttled_percent))]
    ExecTimeout {
        limit: Duration,
        /// Share of the CPU periods in which the container's limit held it back, if that is much.
        throttled_percent: Option<u64>,
    },
    #[error("{doing}: its program did not run within {waited:?}")]
    LaunchTimeout { doing: &'static str, waited: Duration },
    #[error(
        "run the command: container {container} is confined by a seccomp profile that was not recorded and is not configured any more"
    )]
    ProfileLost { container: String },
    #[error("make pipes for the command")]
    ExecPipes { source: std::io::Error },
    #[error("show container {container}'s output any further: this client fell too far behind")]
    FellBehind { container: String },
    #[error("do that now: large calls hold all of the {most} bytes that they may have together")]
    CallMemory { most: u64 },
    #[error("run another command in this container: {most} of ExecSync run in it")]
    ContainerExecs { most: usize },
    #[error("run another command: {most} of ExecSync run on this node")]
    NodeExecs { most: usize },
    #[error("open another stream: {most} wait for their clients already")]
    TooManyStreams { most: usize },
    #[error("stop container {container}: it still runs {waited:?} after SIGKILL")]
    Unkillable { container: String, waited: Duration, stack: String },
    #[error("freeze or thaw container {container}")]
    Freezer { container: String, source: hull_cgroup::Error },
    #[error("checkpoint container {container}")]
    Checkpoint { container: String, source: checkpoint::Error },
    /// A bug: says which invariant broke.
    #[error("finish: {what} (this is a bug in hull)")]
    Internal { what: String },
}

/// The names of more handlers, to continue a list.
fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!(", `{name}`")).collect()
}

/// The hint for a command that took too long.
fn timeout_hint(throttled_percent: Option<u64>) -> String {
    let first =
        if throttled_percent.is_some() { "raise the container's CPU limit, or" } else { "raise" };
    format!("{first} the probe's `timeoutSeconds`, or make the command quicker")
}

/// Why a container is frozen: it itself, or the cgroup `above` it.
fn frozen_text(above: Option<&str>) -> String {
    match above {
        Some(above) => format!("it is frozen by cgroup {above} above it"),
        None => "it is paused".to_owned(),
    }
}

/// The advice for what is frozen: a container by itself, or by the cgroup `above` it.
pub(crate) fn thaw_hint(name: &str, above: Option<&str>) -> String {
    match above {
        Some(above) => format!(
            "thaw cgroup {above}: write 0 to its `cgroup.freeze`, or THAWED to its `freezer.state` with cgroup v1"
        ),
        None => format!("`hull unpause {name}`"),
    }
}

/// When a container's process was killed.
fn cut_short_text(was_stopped: bool, hook: Option<&(String, String)>) -> String {
    let how = if was_stopped { "stopped" } else { "killed" };
    match hook {
        Some((hook, said)) if said.is_empty() => format!("{how} while its {hook} ran"),
        Some((hook, said)) => format!("{how} while its {hook} ran, which said {said}"),
        None => format!("{how} before its program ran"),
    }
}

/// The part of a sentence about throttling.
fn throttled_text(percent: Option<u64>) -> String {
    percent.map_or(String::new(), |percent| {
        format!("; its container was throttled by its CPU limit in {percent} % of the periods")
    })
}

impl Error {
    /// The same with the names of plugins that may be why, where there are any.
    pub(crate) fn asked_by(self, plugins: &[String]) -> Self {
        if plugins.is_empty() {
            return self;
        }
        Self::AskedBy { plugins: plugins.join("`, `"), source: Box::new(self) }
    }

    /// Advice for the operator, if there is any.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => Some("list what there is with `hull ps -a` or `crictl ps -a` and `crictl pods`".into()),
            Self::NotNamed { .. } => Some("list what there is with `hull ps -a` and `hull images`".into()),
            Self::Paused { name, above, .. } => Some(thaw_hint(name, above.as_deref())),
            Self::UnknownHandler { .. } => Some(advice::HANDLER.into()),
            Self::Handler { hint, .. } => Some((*hint).to_owned()),
            Self::NameTaken { holder, .. } => {
                Some(format!("remove it first: `hull rm {holder}`, or count the attempt up"))
            }
            Self::NoImage { image } => Some(format!("pull it first: `hull pull {image}`")),
            Self::SubPath { .. } => {
                Some("correct the `subPath` of the volume mount, or the image of the volume".into())
            }
            Self::VolumeSource { path, source } => Some(advice::volume_source(path, source.errno())),
            Self::Propagation { mount, .. } => Some(format!(
                "mount --make-rshared {mount} on the node (systemd makes all mounts shared, unless `MountFlags` or `PrivateMounts` of hull's unit takes that away), or remove `mountPropagation` from the volume mount"
            )),
            Self::Image { source, .. } | Self::Rootfs { source, .. } => source.hint(),
            Self::Spec { source } => source.hint(),
            Self::Plan { source } => source.hint(),
            Self::UserNamespace { source } => Some(source.hint()),
            Self::HooksDir { source } => Some(source.hint()),
            Self::Plugins { source } => source.hint(),
            Self::Adjust { source } => source.hint(),
            Self::ForeignLimits { plugins, .. } => Some(advice::of_plugin(plugins)),
            Self::AskedBy { plugins, source } => {
                Some(source.hint().unwrap_or_else(|| advice::of_plugin(plugins)))
            }
            Self::Failed { failure, .. } => failure.hint.clone(),
            Self::Parts { source, .. } => source.hint(),
            Self::Store { source } => source.hint(),
            Self::Log { path, source } => Some(advice::log_file(path, source.errno())),
            Self::LogFile { .. } => Some(advice::LOG_FILE.into()),
            Self::Storage { .. } => Some(
                "see what is mounted there (findmnt) and whether its server runs; once it answers, or is unmounted (umount -l), the same works".into(),
            ),
            Self::Stats { source } | Self::SetLimits { source } | Self::Freezer { source, .. } => source.hint(),
            Self::Unkillable { stack, .. } => {
                Some(format!("it hangs in the kernel, usually on storage that does not answer: {stack}"))
            }
            Self::ProfileLost { .. } => Some(
                "restart the container, or set `runtime.default_seccomp` as it was when the container was made".into(),
            ),
            Self::ExecTimeout { throttled_percent, .. } => Some(timeout_hint(*throttled_percent)),
            Self::CallMemory { .. } => Some(
                "try again, have the command write less or use `kubectl exec`, or raise `runtime.call_memory_bytes_max`".into(),
            ),
            Self::ContainerExecs { .. } | Self::NodeExecs { .. } => Some(
                "try again, run fewer at a time, or raise `runtime.exec_syncs_max`".into(),
            ),
            Self::FellBehind { .. } => {
                Some("attach again, or read the container's log, which is complete".into())
            }
            Self::LaunchTimeout { .. } => Some(
                "look whether its storage answers, and whether its cgroup or its pod's is frozen; or raise `runtime.launch_timeout_s`".into(),
            ),
            Self::StartCutShort { hook, was_stopped } => advice::cut_short(hook.is_some(), *was_stopped),
            Self::Hook { hint, .. } => hint.clone().or_else(|| Some(advice::HOOK.into())),
            Self::NoQuotas { .. } => Some(advice::QUOTAS.into()),
            Self::Monitor { source, .. } => monitor_hint(source),
            Self::Checkpoint { source, .. } => source.hint(),
            Self::Invalid { .. }
            | Self::WrongState { .. }
            | Self::ExecPipes { .. }
            | Self::TooManyStreams { .. }
            | Self::Internal { .. } => None,
        }
    }
}

fn monitor_hint(source: &monitors::Error) -> Option<String> {
    if matches!(source, monitors::Error::Hangs { .. }) {
        return Some(
            "look why the process `hull-monitor` of this pod does not run (stopped, or stuck on storage); to stop the pod ends it".into(),
        );
    }
    if matches!(source, monitors::Error::Lost) {
        return Some(
            "the pod's processes are gone; stop and remove the pod, the kubelet makes a new one"
                .into(),
        );
    }
    source.hint()
}

impl From<UsedUp> for Error {
    fn from(UsedUp { most }: UsedUp) -> Self {
        Self::CallMemory { most }
    }
}

impl From<NoSlot> for Error {
    fn from(none: NoSlot) -> Self {
        match none {
            NoSlot::OnNode { most } => Self::NodeExecs { most },
            NoSlot::InContainer { most } => Self::ContainerExecs { most },
        }
    }
}
