// SPDX-License-Identifier: Apache-2.0
//! The part of the node, or of the request, that an error is about. Metrics count errors by it. Pure.

use super::Error;
use crate::container::checkpoint;
use crate::pod;
use hull_image::ErrorKind;
use hull_plan::Layer;

/// A class of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The request cannot be met by any node, or names what is not there.
    Request,
    /// The object is in another state.
    State,
    /// The program of a container.
    Program,
    /// Files, mounts and volumes.
    Storage,
    /// Namespaces and the pod network.
    Network,
    Cgroup,
    /// Capabilities, seccomp, security modules and the image policy.
    Security,
    /// An image that is missing, refused or broken.
    Image,
    /// A registry that cannot be reached.
    Registry,
    /// An NRI plugin or a hook.
    Plugin,
    /// The monitor of a pod.
    Monitor,
    /// A limit of the daemon on concurrent work or memory.
    Limit,
    /// Something took too long.
    Timeout,
    /// A bug in Hull.
    Bug,
    /// None of these.
    Other,
}

impl Cause {
    /// All causes, in the order of their definitions.
    pub(crate) const ALL: [Self; 15] = [
        Self::Request,
        Self::State,
        Self::Program,
        Self::Storage,
        Self::Network,
        Self::Cgroup,
        Self::Security,
        Self::Image,
        Self::Registry,
        Self::Plugin,
        Self::Monitor,
        Self::Limit,
        Self::Timeout,
        Self::Bug,
        Self::Other,
    ];

    /// The value of the label `cause`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::State => "state",
            Self::Program => "program",
            Self::Storage => "storage",
            Self::Network => "network",
            Self::Cgroup => "cgroup",
            Self::Security => "security",
            Self::Image => "image",
            Self::Registry => "registry",
            Self::Plugin => "plugin",
            Self::Monitor => "monitor",
            Self::Limit => "limit",
            Self::Timeout => "timeout",
            Self::Bug => "bug",
            Self::Other => "other",
        }
    }

    /// The cause of an error of the image store.
    pub(crate) fn of_image(error: &hull_image::Error) -> Self {
        match error.kind() {
            ErrorKind::BadReference => Self::Request,
            ErrorKind::InUse | ErrorKind::Taken => Self::State,
            ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Corrupt => Self::Image,
            ErrorKind::Unreachable => Self::Registry,
            ErrorKind::Policy => Self::Security,
            ErrorKind::Other => Self::Storage,
        }
    }

    fn of_layer(layer: Layer) -> Self {
        match layer {
            Layer::Process => Self::Program,
            Layer::Filesystem => Self::Storage,
            Layer::Namespace => Self::Network,
            Layer::Cgroup => Self::Cgroup,
            Layer::Security => Self::Security,
            Layer::Image => Self::Image,
        }
    }

    fn of_pod(error: &pod::Error) -> Self {
        match error {
            pod::Error::Spec { .. } => Self::Request,
            pod::Error::Record { .. }
            | pod::Error::MakeDirectory { .. }
            | pod::Error::WriteFiles { .. }
            | pod::Error::RemoveDirectory { .. } => Self::Storage,
            pod::Error::Monitor { .. } => Self::Monitor,
            pod::Error::Cgroup { .. } | pod::Error::ClearCgroup { .. } => Self::Cgroup,
            pod::Error::Netns { .. }
            | pod::Error::OpenNetns { .. }
            | pod::Error::Attach { .. }
            | pod::Error::HostPort { .. }
            | pod::Error::Detach { .. } => Self::Network,
            pod::Error::Pause { failure } => Self::of_layer(failure.layer),
            pod::Error::Plugins { .. } => Self::Plugin,
            pod::Error::Internal { .. } => Self::Bug,
        }
    }

    fn of_checkpoint(error: &checkpoint::Error) -> Self {
        use checkpoint::Error as Checkpoint;
        match error {
            Checkpoint::Location { .. } => Self::Request,
            Checkpoint::Exists { .. }
            | Checkpoint::InProgress
            | Checkpoint::Ended
            | Checkpoint::NoProgram => Self::State,
            Checkpoint::Program { .. } => Self::Security,
            Checkpoint::Directory { .. }
            | Checkpoint::Io { .. }
            | Checkpoint::TooLarge { .. }
            | Checkpoint::Changes { .. } => Self::Storage,
            Checkpoint::Refused { .. } | Checkpoint::Crashed { .. } => Self::Program,
            Checkpoint::TimedOut { .. } => Self::Timeout,
        }
    }

    /// The cause of an error of a verb.
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::NotFound { .. }
            | Error::NotNamed { .. }
            | Error::Invalid { .. }
            | Error::UnknownHandler { .. }
            | Error::Handler { .. }
            | Error::SubPath { .. }
            | Error::UserNamespace { .. }
            | Error::Spec { .. }
            | Error::Plan { .. } => Self::Request,
            Error::WrongState { .. }
            | Error::Paused { .. }
            | Error::NameTaken { .. }
            | Error::StartCutShort { .. } => Self::State,
            Error::NoImage { .. } => Self::Image,
            Error::Image { source, .. } | Error::Rootfs { source, .. } => Self::of_image(source),
            Error::VolumeSource { .. }
            | Error::Propagation { .. }
            | Error::NoQuotas { .. }
            | Error::Store { .. }
            | Error::Log { .. }
            | Error::LogFile { .. }
            | Error::Storage { .. }
            | Error::Unkillable { .. } => Self::Storage,
            Error::Plugins { .. }
            | Error::Adjust { .. }
            | Error::ForeignLimits { .. }
            | Error::AskedBy { .. }
            | Error::HooksDir { .. }
            | Error::Hook { .. } => Self::Plugin,
            Error::Failed { failure, .. } => Self::of_layer(failure.layer),
            Error::Monitor { .. } => Self::Monitor,
            Error::Parts { source, .. } => Self::of_pod(source),
            Error::SetLimits { .. } | Error::Stats { .. } | Error::Freezer { .. } => Self::Cgroup,
            Error::ExecTimeout { .. } | Error::LaunchTimeout { .. } => Self::Timeout,
            Error::ProfileLost { .. } => Self::Security,
            Error::FellBehind { .. }
            | Error::CallMemory { .. }
            | Error::ContainerExecs { .. }
            | Error::NodeExecs { .. }
            | Error::TooManyStreams { .. }
            | Error::ExecPipes { .. } => Self::Limit,
            Error::Checkpoint { source, .. } => Self::of_checkpoint(source),
            Error::Internal { .. } => Self::Bug,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_plan::Failure;

    #[test]
    fn a_failed_step_is_about_its_layer_and_a_timeout_about_time() {
        let failure = Failure {
            layer: Layer::Security,
            stage: "exec".into(),
            what: "refused".into(),
            evidence: Vec::new(),
            hint: None,
        };
        let failed = Error::Failed { doing: "start", failure: Box::new(failure) };
        assert_eq!(Cause::of(&failed), Cause::Security);
        let late = Error::ExecTimeout {
            limit: std::time::Duration::from_secs(1),
            throttled_percent: None,
        };
        assert_eq!(Cause::of(&late).name(), "timeout");
        assert_eq!(Cause::of(&Error::NoImage { image: "x".into() }), Cause::Image);
    }
}
