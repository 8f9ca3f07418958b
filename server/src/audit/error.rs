// SPDX-License-Identifier: Apache-2.0
//! Errors of an audit.

use rustix::io::Errno;
use std::io;

/// Why a container cannot be audited. Each text reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("its process has ended")]
    Ended,
    #[error("{operation}: {}", hull_sys::name_of(*errno))]
    Kernel { operation: String, errno: Errno },
    #[error("read {path}")]
    Read { path: String, source: io::Error },
    #[error("read {path}: unexpected format")]
    Form { path: String },
    #[error("find its cgroups")]
    Cgroup { source: hull_cgroup::Error },
    #[error("leave the host's mount namespace")]
    Namespace { source: hull_sys::Error },
    #[error("start a thread")]
    Thread { source: io::Error },
    #[error("read its /dev: no response within {seconds} s")]
    NoAnswer { seconds: u64 },
}

impl Error {
    /// Converts the error of a system call, named by `operation`.
    pub(super) fn kernel(operation: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| match source {
            // The error of procfs for a process that has ended.
            Errno::SRCH => Self::Ended,
            errno => Self::Kernel { operation: operation.into(), errno },
        }
    }

    /// Advice for the user.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Kernel { errno: Errno::PERM | Errno::ACCESS, .. } | Self::Namespace { .. } => {
                Some("run it as root, on the node, in the host's pid namespace")
            }
            Self::Ended => Some("`hull ps -a` says how it ended"),
            Self::NoAnswer { .. } => {
                Some("a filesystem mounted in the container does not respond; stop the container")
            }
            Self::Kernel { .. }
            | Self::Read { .. }
            | Self::Form { .. }
            | Self::Cgroup { .. }
            | Self::Thread { .. } => None,
        }
    }
}
