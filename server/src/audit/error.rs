// SPDX-License-Identifier: Apache-2.0
//! Why a container cannot be audited.

use rustix::io::Errno;
use std::io;

/// Why a container cannot be audited. Each text reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("its process has ended")]
    Ended,
    #[error("{doing}: {}", hull_sys::name_of(*errno))]
    Kernel { doing: String, errno: Errno },
    #[error("read {path}")]
    Read { path: String, source: io::Error },
    #[error("read {path}: it is not what the kernel writes there")]
    Form { path: String },
    #[error("find its cgroups")]
    Cgroup { source: hull_cgroup::Error },
    #[error("leave the host's mount namespace")]
    Namespace { source: hull_sys::Error },
    #[error("start a thread")]
    Thread { source: io::Error },
    #[error("look at its /dev: there was no answer in {seconds} s")]
    NoAnswer { seconds: u64 },
}

impl Error {
    pub(super) fn kernel(doing: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| match source {
            // What procfs says of a process that went away.
            Errno::SRCH => Self::Ended,
            errno => Self::Kernel { doing: doing.into(), errno },
        }
    }

    /// What helps.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Kernel { errno: Errno::PERM | Errno::ACCESS, .. } | Self::Namespace { .. } => {
                Some("run it as root, on the node, in the host's pid namespace")
            }
            Self::Ended => Some("`hull ps -a` says how it ended"),
            Self::NoAnswer { .. } => Some(
                "something mounted in the container does not answer; the other findings need it, so stop the container",
            ),
            Self::Kernel { .. }
            | Self::Read { .. }
            | Self::Form { .. }
            | Self::Cgroup { .. }
            | Self::Thread { .. } => None,
        }
    }
}
