// SPDX-License-Identifier: Apache-2.0
//! The only place that makes a gRPC status: it chooses codes, and joins the hint to the message, as
//! the kubelet shows nothing but the message.
//!
//! The operator's or user's fault is never INTERNAL; a bug is. Names of programs, images and pods
//! are in messages, and so are answers of registries and plugins: every message is one line without
//! hidden characters, and bounded. clippy.toml refuses statuses made elsewhere.

use crate::container::checkpoint;
use crate::error::{Cause, Error, HINT_BYTES_MAX, message};
use crate::monitors;
use crate::node::reload;
use crate::oci_spec;
use crate::pod;
use crate::userns;
use hull_proto::monitor::Failure as MonitorFailure;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The header in which the cause of an error travels to the layer that counts it. Clients see it only where a stream
/// breaks.
pub(crate) const CAUSE_HEADER: &str = "hull-cause";

/// Turns an error into what goes over the wire.
pub(crate) fn of(error: impl AsRef<Error>) -> Status {
    let error = error.as_ref();
    caused(plain(code(error), &message(error, error.hint())), Cause::of(error))
}

/// The status with the cause of its error.
fn caused(mut status: Status, cause: Cause) -> Status {
    status.metadata_mut().insert(CAUSE_HEADER, MetadataValue::from_static(cause.name()));
    status
}

/// The cause with this name, as [`of`] has written it.
pub(crate) fn cause_named(name: &[u8]) -> Option<Cause> {
    Cause::ALL.into_iter().find(|cause| cause.name().as_bytes() == name)
}

/// The cause of an error that has only a code: of tonic, or of a check without an error of its own.
pub(crate) fn cause_of_code(code: Code) -> Cause {
    match code {
        Code::InvalidArgument | Code::NotFound | Code::Unimplemented | Code::OutOfRange => {
            Cause::Request
        }
        Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => Cause::State,
        Code::PermissionDenied | Code::Unauthenticated => Cause::Security,
        Code::ResourceExhausted => Cause::Limit,
        Code::DeadlineExceeded => Cause::Timeout,
        Code::Internal => Cause::Bug,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Unavailable | Code::DataLoss => {
            Cause::Other
        }
    }
}

/// The name of a code in gRPC's specification.
pub(crate) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A status with this message, for what has no error of its own.
#[expect(clippy::disallowed_methods, reason = "the one place: here the message is escaped")]
pub(crate) fn plain(code: Code, message: &str) -> Status {
    Status::new(code, shown(message, MESSAGE_BYTES_MAX + HINT_BYTES_MAX + 64))
}

/// A request that makes no sense.
pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> Status {
    of(Error::Invalid { field, why: why.into() })
}

/// Only single containers are checkpointed, not whole pods.
pub(crate) fn no_pod_checkpoints(doing: &str) -> Status {
    plain(
        Code::FailedPrecondition,
        &format!(
            "cannot {doing}: hull checkpoints containers, not pods (hint: checkpoint each of its containers, and turn off the kubelet's feature gate PodLevelCheckpointRestore)"
        ),
    )
}

/// An error of the pod network that is about a setting, not about a pod.
pub(crate) fn of_network(error: &hull_network::Error) -> Status {
    use hull_network::Error as Network;
    let code = if matches!(error, Network::SubnetInUse { .. } | Network::PodCidrAwaited) {
        Code::FailedPrecondition
    } else if matches!(
        error,
        Network::Subnets { .. }
            | Network::MtuTooSmall { .. }
            | Network::SubnetTooSmall { .. }
            | Network::SubnetUnusable { .. }
    ) {
        Code::InvalidArgument
    } else {
        Code::Unknown
    };
    caused(plain(code, &message(error, error.hint())), Cause::Network)
}

/// An error of reading the configuration again.
pub(crate) fn of_reload(error: &reload::Error) -> Status {
    let code = match error {
        reload::Error::Config { .. } => Code::InvalidArgument,
        reload::Error::Merge => Code::FailedPrecondition,
        reload::Error::Images { source } => image_code(source),
        reload::Error::Hangs => Code::Unavailable,
    };
    plain(code, &message(error, error.hint()))
}

/// An error of the image store.
pub(crate) fn of_image(error: &hull_image::Error) -> Status {
    caused(plain(image_code(error), &message(error, error.hint())), Cause::of_image(error))
}

/// The error of an image that pods use, with the first of them.
pub(crate) fn of_image_in_use(error: &hull_image::Error, users: &[String]) -> Status {
    const SHOWN_MAX: usize = 3;
    let more = match users.len().saturating_sub(SHOWN_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = users.get(..SHOWN_MAX).unwrap_or(users).join("`, `");
    let hint = match (users, error.hint()) {
        ([], hint) => hint,
        (_, hint) => Some(format!("pods `{shown}`{more} use it: {}", hint.unwrap_or_default())),
    };
    caused(plain(image_code(error), &message(error, hint)), Cause::of_image(error))
}

/// An error of a pull, for the kubelet. Only of a status with code UNKNOWN does it show the message alone, without
/// `rpc error: code = …`; and it takes the reason for the pod's status from the beginning of that message:
/// `k8s.io/cri-api/pkg/errors`.
pub(crate) fn of_pull(error: &hull_image::Error) -> Status {
    use hull_image::ErrorKind;
    let reason = match error.kind() {
        ErrorKind::BadReference => return of_image(error),
        ErrorKind::Unreachable => "RegistryUnavailable: ",
        ErrorKind::Policy => "SignatureValidationFailed: ",
        ErrorKind::NotFound
        | ErrorKind::Denied
        | ErrorKind::InUse
        | ErrorKind::Taken
        | ErrorKind::Corrupt
        | ErrorKind::Other => "",
    };
    let text = format!("{reason}{}", message(error, error.hint()));
    caused(plain(Code::Unknown, &text), Cause::of_image(error))
}

impl AsRef<Error> for Error {
    fn as_ref(&self) -> &Error {
        self
    }
}

fn userns_code(error: &userns::Error) -> Code {
    use userns::Error as Userns;
    match error {
        Userns::Mode { .. } | Userns::Shared { .. } => Code::InvalidArgument,
        Userns::Exhausted { .. } => Code::ResourceExhausted,
        Userns::File { .. }
        | Userns::NoLine { .. }
        | Userns::TooSmall { .. }
        | Userns::Taken { .. } => Code::FailedPrecondition,
    }
}

fn code(error: &Error) -> Code {
    match error {
        Error::NotFound { .. } | Error::NotNamed { .. } | Error::NoImage { .. } => Code::NotFound,
        Error::Invalid { .. }
        | Error::UnknownHandler { .. }
        | Error::Plan { .. }
        | Error::SubPath { .. } => Code::InvalidArgument,
        Error::Spec { source } => spec_code(source),
        Error::UserNamespace { source } => userns_code(source),
        Error::AskedBy { .. } => Code::FailedPrecondition,
        Error::WrongState { .. }
        | Error::Paused { .. }
        | Error::Adjust { .. }
        | Error::ForeignLimits { .. }
        | Error::ProfileLost { .. }
        | Error::Handler { .. }
        | Error::VolumeSource { .. }
        | Error::Propagation { .. }
        | Error::HooksDir { .. }
        | Error::NoQuotas { .. }
        | Error::Hook { .. }
        | Error::StartCutShort { .. }
        | Error::Failed { .. } => Code::FailedPrecondition,
        Error::SetLimits { source } => limits_code(source),
        Error::Parts { source, .. } => parts_code(source),
        Error::TooManyStreams { .. }
        | Error::FellBehind { .. }
        | Error::CallMemory { .. }
        | Error::ContainerExecs { .. }
        | Error::NodeExecs { .. } => Code::ResourceExhausted,
        Error::NameTaken { .. } => Code::AlreadyExists,
        Error::Image { source, .. } | Error::Rootfs { source, .. } => image_code(source),
        Error::ExecTimeout { .. } | Error::LaunchTimeout { .. } => Code::DeadlineExceeded,
        Error::Storage { .. } => Code::Unavailable,
        Error::Monitor { source, .. } => monitor_code(source),
        Error::Plugins { .. }
        | Error::Store { .. }
        | Error::Log { .. }
        | Error::LogFile { .. }
        | Error::Stats { .. }
        | Error::ExecPipes { .. }
        | Error::Freezer { .. }
        | Error::Unkillable { .. } => Code::Unknown,
        Error::Checkpoint { source, .. } => checkpoint_code(source),
        Error::Internal { .. } => Code::Internal,
    }
}

fn checkpoint_code(error: &checkpoint::Error) -> Code {
    use checkpoint::Error as Checkpoint;
    match error {
        Checkpoint::Location { .. } => Code::InvalidArgument,
        Checkpoint::Exists { .. } => Code::AlreadyExists,
        Checkpoint::NoProgram
        | Checkpoint::Program { .. }
        | Checkpoint::Directory { .. }
        | Checkpoint::Refused { .. }
        | Checkpoint::Ended => Code::FailedPrecondition,
        Checkpoint::InProgress => Code::Unavailable,
        Checkpoint::TimedOut { .. } => Code::DeadlineExceeded,
        Checkpoint::TooLarge { .. } => Code::ResourceExhausted,
        Checkpoint::Io { .. } | Checkpoint::Crashed { .. } | Checkpoint::Changes { .. } => {
            Code::Unknown
        }
    }
}

fn spec_code(_error: &oci_spec::Error) -> Code {
    Code::InvalidArgument
}

/// A value that the kernel does not take is the caller's fault, one that it does not take now is not.
fn limits_code(error: &hull_cgroup::Error) -> Code {
    use hull_cgroup::Error as Cgroup;
    if error.is_refused_value() {
        Code::InvalidArgument
    } else if matches!(error, Cgroup::Write { .. } | Cgroup::NoController { .. }) {
        Code::FailedPrecondition
    } else {
        Code::Unknown
    }
}

fn parts_code(error: &pod::Error) -> Code {
    use pod::Error as Parts;
    if matches!(error, Parts::Spec { .. }) {
        Code::InvalidArgument
    } else if matches!(
        error,
        Parts::Pause { .. }
            | Parts::HostPort { .. }
            | Parts::Attach { source: hull_network::Error::PortHeld { .. } }
    ) {
        Code::FailedPrecondition
    } else {
        Code::Unknown
    }
}

fn monitor_code(error: &monitors::Error) -> Code {
    match error {
        monitors::Error::Refused { failure: MonitorFailure::NoSuchContainer } => Code::NotFound,
        monitors::Error::Refused { failure: MonitorFailure::NotRunning } => {
            Code::FailedPrecondition
        }
        monitors::Error::Refused { failure: MonitorFailure::AlreadyExists } => Code::AlreadyExists,
        monitors::Error::Lost | monitors::Error::Hangs { .. } => Code::Unavailable,
        monitors::Error::Refused { .. }
        | monitors::Error::Programs { .. }
        | monitors::Error::Reap { .. }
        | monitors::Error::Listen { .. }
        | monitors::Error::Spawn { .. }
        | monitors::Error::Connect { .. }
        | monitors::Error::TooOld { .. }
        | monitors::Error::CannotAttach { .. }
        | monitors::Error::CannotRunHooks { .. }
        | monitors::Error::CannotInit { .. }
        | monitors::Error::CannotClassify { .. }
        | monitors::Error::CannotLimitLogs { .. }
        | monitors::Error::HooksOutput { .. }
        | monitors::Error::WrongAnswer { .. } => Code::Unknown,
    }
}

fn image_code(error: &hull_image::Error) -> Code {
    use hull_image::ErrorKind;
    match error.kind() {
        ErrorKind::BadReference => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Denied | ErrorKind::Policy => Code::PermissionDenied,
        ErrorKind::Unreachable => Code::Unavailable,
        ErrorKind::InUse => Code::FailedPrecondition,
        ErrorKind::Taken => Code::AlreadyExists,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Other => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_plan::{Failure, Layer};

    const FORGED: &str = "x\n2026-11-29T00:00:00Z  INFO forged\u{1b}[2J\u{202e}";

    /// Where text from outside gets into errors.
    fn errors(text: &str) -> Vec<Error> {
        let failure = Failure {
            layer: Layer::Process,
            stage: "exec".into(),
            what: format!("executable `{text}` not found"),
            evidence: Vec::new(),
            hint: Some(format!("add {text} to the image")),
        };
        vec![
            Error::NoImage { image: text.into() },
            Error::NotFound { kind: "pod", id: text.into() },
            Error::NameTaken { name: text.into(), attempt: 0, holder: "h".into() },
            Error::SubPath { image: text.into(), path: text.into(), why: "it is not there" },
            Error::Failed { doing: "start the container", failure: Box::new(failure) },
            Error::Log { path: text.into(), source: hull_sys::Error::of_io(|| text)(eof()) },
            Error::ExecPipes { source: std::io::Error::other(text.to_owned()) },
        ]
    }

    fn eof() -> std::io::Error {
        std::io::Error::from_raw_os_error(5)
    }

    #[test]
    fn text_from_outside_is_escaped_in_every_status() {
        for error in errors(FORGED) {
            let status = of(&error);
            let message = status.message();
            assert!(!message.chars().any(|c| c.is_control() || c == '\u{202e}'), "{message:?}");
            assert!(
                message.contains("x\\n2026-11-29") && message.contains("\\u{1b}[2J"),
                "{message}"
            );
        }
        let status = invalid("config.metadata.name", FORGED);
        assert!(!status.message().contains('\n'), "{status:?}");
        assert!(!plain(Code::Unknown, FORGED).message().contains('\u{1b}'));
    }

    #[test]
    fn the_kubelet_finds_its_reasons_at_the_beginning_of_a_pulls_error() {
        use hull_image::{Cause, Error as Image, Unreachable};
        let pull = |source| Image::Pull { image: "reg.example.org/app:1".into(), source };
        let answer = |status| Cause::Answer {
            host: "reg.example.org".into(),
            status,
            what: "app:1".into(),
            detail: String::new(),
            registry: None,
            redirected_by: None,
        };
        let away = |kind| Cause::Unreachable {
            host: "reg.example.org".into(),
            kind,
            detail: String::new(),
            registry: None,
        };
        let policy = Cause::Policy { why: "not signed".into(), file: "/p".into() };
        for (error, start) in [
            (pull(away(Unreachable::Refused)), "RegistryUnavailable: cannot pull reg.example.org"),
            (pull(answer(503)), "RegistryUnavailable: cannot pull"),
            (pull(answer(429)), "RegistryUnavailable: cannot pull"),
            (pull(answer(418)), "cannot pull"),
            (pull(policy), "SignatureValidationFailed: cannot pull"),
        ] {
            let status = of_pull(&error);
            assert_eq!(status.code(), Code::Unknown);
            assert!(status.message().starts_with(start), "{status}");
        }
        let name = Image::Reference { text: "UPPER".into(), why: "it is not in lower case" };
        assert_eq!(of_pull(&name).code(), Code::InvalidArgument);
    }

    #[test]
    fn a_value_that_the_kernel_refuses_is_the_callers_fault_and_its_file_is_named() {
        let refused = |errno| Error::SetLimits {
            source: hull_cgroup::Error::Write {
                path: "/sys/fs/cgroup/pod/cpuset.cpus".into(),
                value: "x".repeat(10_000),
                source: std::io::Error::from_raw_os_error(errno),
            },
        };
        let (einval, ebusy) = (of(refused(22)), of(refused(16)));
        assert_eq!(einval.code(), Code::InvalidArgument);
        assert!(einval.message().contains("cpuset.cpus: Invalid argument"), "{einval}");
        assert_eq!(ebusy.code(), Code::FailedPrecondition, "it may be taken later");
    }

    #[test]
    fn a_long_message_leaves_room_for_its_hint() {
        for error in errors(&"long".repeat(1 << 20)) {
            let status = of(&error);
            let message = status.message();
            assert!(message.len() < 8 << 10, "{}", message.len());
            assert_eq!(message.contains(" (hint: "), error.hint().is_some(), "{message}");
        }
    }
}
