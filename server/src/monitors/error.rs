// SPDX-License-Identifier: Apache-2.0
//! Failures of monitors. Texts read after "cannot".

use hull_proto::monitor::{Failure, VERSION_MIN};
use rustix::io::Errno;
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
    #[error(
        "run its hooks: its pod was started by an older hull, and the pod's monitor is of version {version}"
    )]
    CannotRunHooks { version: u16 },
    #[error(
        "start its init: its pod was started by an older hull, and the pod's monitor is of version {version}"
    )]
    CannotInit { version: u16 },
    #[error(
        "limit its log: its pod was started by an older hull, and the pod's monitor is of version {version}"
    )]
    CannotLimitLogs { version: u16 },
    #[error(
        "put it into its classes of resources: its pod was started by an older hull, and the pod's monitor is of version {version}"
    )]
    CannotClassify { version: u16 },
    #[error("read the output of the program that runs hooks")]
    HooksOutput { source: io::Error },
    #[error("carry it out in the pod's monitor: {}", why(failure))]
    Refused { failure: Failure },
    #[error("understand the pod's monitor: it answered {answer}")]
    WrongAnswer { answer: String },
}

impl Error {
    /// Advice for the operator, if there is any.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Spawn { source } => of_new_process(source.errno()),
            Self::Listen { path, source } => match Errno::from_io_error(source) {
                Some(Errno::NOSPC) => Some(format!(
                    "free space or inodes on the file system of {} (df -h, df -i)",
                    path.display()
                )),
                Some(Errno::INVAL | Errno::NAMETOOLONG) => Some(
                    "choose a shorter `state_dir`: the path of a socket has at most 107 bytes"
                        .into(),
                ),
                _ => None,
            },
            Self::TooOld { .. }
            | Self::CannotAttach { .. }
            | Self::CannotRunHooks { .. }
            | Self::CannotInit { .. }
            | Self::CannotClassify { .. }
            | Self::CannotLimitLogs { .. } => Some(
                "delete the pod, so that it is created again with this release's monitor".into(),
            ),
            Self::Programs { .. }
            | Self::Reap { .. }
            | Self::Connect { .. }
            | Self::Lost
            | Self::Hangs { .. }
            | Self::HooksOutput { .. }
            | Self::Refused { .. }
            | Self::WrongAnswer { .. } => None,
        }
    }
}

/// For a process that the kernel did not create.
fn of_new_process(errno: Errno) -> Option<String> {
    match errno {
        Errno::AGAIN => Some(
            "raise the node's limits of processes (kernel.pid_max, kernel.threads-max, TasksMax of hull's service), or find what uses them up".into(),
        ),
        Errno::NOMEM => Some("free memory on the node, or raise MemoryMax of hull's service".into()),
        Errno::MFILE | Errno::NFILE => Some(
            "raise the limit of open files: LimitNOFILE of hull's service, fs.file-max of the node".into(),
        ),
        _ => None,
    }
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
