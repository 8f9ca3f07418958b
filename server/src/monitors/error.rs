// SPDX-License-Identifier: Apache-2.0
//! Failures of monitors. Texts read after "cannot".

use hull_proto::monitor::{Failure, VERSION_MIN};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a monitor could not be started, reached or made to do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("keep the pod programs in memory")]
    Programs { source: hull_sys::Error },
    #[error("watch for monitors that end")]
    Reap { source: io::Error },
    #[error("listen for the pod's monitor on {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("start the pod's monitor")]
    Spawn { source: hull_sys::Error },
    #[error("reach the pod's monitor at {}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("go on: the pod's monitor ended, or its connection broke")]
    Lost,
    #[error("go on: the pod's monitor has not answered for {waited:?}")]
    Hangs { waited: Duration },
    #[error(
        "speak with the pod's monitor: it is of version {version}, this daemon needs at least {VERSION_MIN}"
    )]
    TooOld { version: u16 },
    #[error(
        "attach to containers of a pod started by an older hull: its monitor is of version {version}"
    )]
    CannotAttach { version: u16 },
    #[error("carry it out in the pod's monitor: {}", why(failure))]
    Refused { failure: Failure },
    #[error("understand the pod's monitor: it answered {answer}")]
    WrongAnswer { answer: String },
}

/// A failure as a part of a sentence. A step is explained where the plan is known.
fn why(failure: &Failure) -> &str {
    match failure {
        Failure::Step(_) => "a step of the start failed",
        Failure::NoSuchContainer => "it knows no such container",
        Failure::NotRunning => "the container does not run any more",
        Failure::AlreadyExists => "it has one of that name",
        Failure::BadRequest(why) | Failure::System(why) => why,
    }
}
