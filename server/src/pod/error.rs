// SPDX-License-Identifier: Apache-2.0
//! Failures of a pod's setup and teardown. Texts read after "cannot build the pod: ".

use super::driver;
use crate::monitors;
use crate::oci_spec;
use crate::records;
use hull_plan::Failure;
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;

/// A part of a pod that could not be set up or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("record it")]
    Record { source: records::Error },
    #[error("make the pod's directory")]
    MakeDirectory { source: records::Error },
    #[error("write the pod's files in {}", path.display())]
    WriteFiles { path: PathBuf, source: io::Error },
    #[error("remove the pod's directory {}", path.display())]
    RemoveDirectory { path: PathBuf, source: hull_sys::Error },
    #[error("start its monitor")]
    Monitor { source: monitors::Error },
    #[error("make its cgroup")]
    Cgroup { source: driver::Error },
    #[error("make its network namespace")]
    Netns { source: hull_sys::Error },
    #[error("open the network namespace of its pause process")]
    OpenNetns { source: io::Error },
    #[error("attach its network")]
    Attach { source: hull_network::Error },
    #[error("give it host port {port}: pod {holder} has {held}")]
    HostPort { port: String, held: String, holder: String },
    #[error("detach its network")]
    Detach { source: hull_network::Error },
    #[error("work out its sandbox")]
    Spec { source: oci_spec::Error },
    #[error("start its pause process: {failure}")]
    Pause { failure: Box<Failure> },
    #[error("tell plugins of it")]
    Plugins { source: hull_nri::Error },
    #[error("clear its cgroup")]
    ClearCgroup { source: hull_cgroup::Error },
    /// A bug: the work on a part panicked.
    #[error("finish it")]
    Internal { source: Box<dyn std::error::Error + Send + Sync> },
}

impl Error {
    /// Advice for the operator, if there is any.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Record { source } | Self::MakeDirectory { source } => source.hint(),
            Self::HostPort { holder, .. } => Some(format!(
                "remove pod {holder}, use another `hostPort`, or another `hostIP` for both"
            )),
            Self::Attach { source } | Self::Detach { source } => source.hint(),
            Self::Plugins { source } => source.hint(),
            Self::Spec { source } => source.hint(),
            Self::Pause { failure } => failure.hint.clone(),
            Self::ClearCgroup { source } => source.hint(),
            Self::Cgroup { source } => source.hint(),
            Self::Monitor { source } => source.hint(),
            Self::Netns { source } => netns_hint(source.errno()),
            Self::WriteFiles { path, source } => {
                let is_full = Errno::from_io_error(source) == Some(Errno::NOSPC);
                is_full.then(|| {
                    format!(
                        "free space or inodes on the file system of {} (df -h, df -i)",
                        path.display()
                    )
                })
            }
            Self::Internal { .. } | Self::RemoveDirectory { .. } | Self::OpenNetns { .. } => None,
        }
    }
}

/// For a network namespace that the kernel did not create. Its ENOSPC is not about a disk: namespaces(7).
fn netns_hint(errno: Errno) -> Option<String> {
    match errno {
        Errno::NOSPC | Errno::USERS => Some(
            "raise the node's limit of namespaces: sysctl -w user.max_net_namespaces=65536, and find out who keeps them with lsns -t net".into(),
        ),
        Errno::NOMEM => Some("free memory on the node".into()),
        Errno::PERM => Some("run hull serve as root, with CAP_SYS_ADMIN".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_namespaces_is_not_a_full_disk() {
        let source = hull_sys::Error::new(Errno::NOSPC, "unshare(NEWNET)");
        let hint = Error::Netns { source }.hint().unwrap_or_default();
        assert!(hint.contains("user.max_net_namespaces") && !hint.contains("df"), "{hint}");
    }
}
