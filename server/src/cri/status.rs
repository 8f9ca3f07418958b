// SPDX-License-Identifier: Apache-2.0
//! The only place that chooses gRPC codes, and where the mend joins the message: the kubelet shows
//! nothing but the message.
//!
//! The operator's or user's fault is never INTERNAL; a bug is.

use crate::error::{Chain, Error};
use crate::{monitors, spec};
use hull_proto::monitor::Failure as MonitorFailure;
use tonic::{Code, Status};

/// Turns an error into what goes over the wire.
pub(crate) fn of(error: impl AsRef<Error>) -> Status {
    let error = error.as_ref();
    Status::new(code(error), message(error, error.hint()))
}

/// A request that makes no sense.
pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> Status {
    of(Error::Invalid { field, why: why.into() })
}

/// Checkpoints need CRIU, which no setting names yet.
pub(crate) fn no_criu(doing: &str, gate: &str) -> Status {
    Status::new(
        Code::FailedPrecondition,
        format!(
            "cannot {doing}: CRIU is not configured (hint: turn off the kubelet's feature gate {gate}; hull needs no CRIU for anything else)"
        ),
    )
}

/// An error of the pod network that is about a setting, not about a pod.
pub(crate) fn of_network(error: &hull_network::Error) -> Status {
    use hull_network::Error as Network;
    let code = if matches!(error, Network::SubnetInUse { .. }) {
        Code::FailedPrecondition
    } else if matches!(error, Network::Subnets { .. } | Network::SubnetTooSmall { .. }) {
        Code::InvalidArgument
    } else {
        Code::Unknown
    };
    Status::new(code, message(error, error.hint()))
}

/// An error of the image store.
pub(crate) fn of_image(error: &hull_image::Error) -> Status {
    Status::new(image_code(error), message(error, error.hint()))
}

impl AsRef<Error> for Error {
    fn as_ref(&self) -> &Error {
        self
    }
}

fn message(error: &dyn std::error::Error, hint: Option<String>) -> String {
    let chain = Chain(error);
    match hint {
        Some(hint) => format!("cannot {chain} (hint: {hint})"),
        None => format!("cannot {chain}"),
    }
}

fn code(error: &Error) -> Code {
    match error {
        Error::NotFound { .. } | Error::NoImage { .. } => Code::NotFound,
        Error::Invalid { .. }
        | Error::UnknownHandler { .. }
        | Error::Plan { .. }
        | Error::SubPath { .. } => Code::InvalidArgument,
        Error::Spec { source } => spec_code(source),
        Error::WrongState { .. } | Error::Adjust { .. } | Error::OthersLimits { .. } => {
            Code::FailedPrecondition
        }
        Error::TooManyStreams { .. } | Error::FellBehind { .. } => Code::ResourceExhausted,
        Error::NameTaken { .. } => Code::AlreadyExists,
        Error::Image { source, .. } | Error::Rootfs { source, .. } => image_code(source),
        Error::ExecTimeout { .. } => Code::DeadlineExceeded,
        Error::Monitor { source, .. } => monitor_code(source),
        Error::Failed { .. }
        | Error::Parts { .. }
        | Error::Plugins { .. }
        | Error::Store { .. }
        | Error::Log { .. }
        | Error::Stats { .. }
        | Error::ExecPipes { .. }
        | Error::WillNotDie { .. } => Code::Unknown,
        Error::Broken { .. } => Code::Internal,
    }
}

fn spec_code(_error: &spec::Error) -> Code {
    Code::InvalidArgument
}

fn monitor_code(error: &monitors::Error) -> Code {
    match error {
        monitors::Error::Refused { failure: MonitorFailure::NoSuchContainer } => Code::NotFound,
        monitors::Error::Refused { failure: MonitorFailure::NotRunning } => {
            Code::FailedPrecondition
        }
        monitors::Error::Refused { failure: MonitorFailure::AlreadyThere } => Code::AlreadyExists,
        monitors::Error::Lost => Code::Unavailable,
        monitors::Error::Refused { .. }
        | monitors::Error::Programs { .. }
        | monitors::Error::Reap { .. }
        | monitors::Error::Listen { .. }
        | monitors::Error::Spawn { .. }
        | monitors::Error::Connect { .. }
        | monitors::Error::TooOld { .. }
        | monitors::Error::CannotAttach { .. }
        | monitors::Error::WrongAnswer { .. } => Code::Unknown,
    }
}

fn image_code(error: &hull_image::Error) -> Code {
    use hull_image::Fault;
    match error.fault() {
        Fault::BadReference => Code::InvalidArgument,
        Fault::NotFound => Code::NotFound,
        Fault::Denied | Fault::Policy => Code::PermissionDenied,
        Fault::Unreachable => Code::Unavailable,
        Fault::InUse => Code::FailedPrecondition,
        Fault::Taken => Code::AlreadyExists,
        Fault::Corrupt => Code::DataLoss,
        Fault::Other => Code::Unknown,
    }
}

/// The sentence that the kubelet shows, also kept as the reason of a container that never ran.
pub(crate) fn sentence(error: &Error) -> String {
    message(error, error.hint())
}
