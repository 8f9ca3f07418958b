// SPDX-License-Identifier: Apache-2.0
//! The errors of CNI, and hints for the operator.

use super::conf::InvalidFile;
use super::invoke;
use super::protocol::{PluginError, Verb};
use std::io;
use std::path::PathBuf;

/// Identifies a plugin call in errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The command, as in `ADD`.
    pub verb: Verb,
    /// The plugin's `type`.
    pub program: String,
    /// The network's name.
    pub network: String,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CNI plugin `{}` ({}) of network `{}`", self.program, self.verb, self.network)
    }
}

/// A failure of CNI to attach or detach a pod, or to be ready for that.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the network configurations in {}", dir.display())]
    ReadConf { dir: PathBuf, source: io::Error },
    #[error("find a network for pods: {}", none_in(dir, bad))]
    NoNetwork { dir: PathBuf, bad: Vec<InvalidFile> },
    #[error("find CNI plugin `{program}` of network `{network}` in {dirs}")]
    NoProgram { program: String, network: String, dirs: String },
    #[error("choose a CNI version for network `{network}` ({}): its configuration supports {offered}; {supported}", file.display())]
    NoVersion { network: String, file: PathBuf, offered: String, supported: String },
    #[error("run {call}")]
    Run { call: Call, source: invoke::Error },
    #[error("run {call}: the plugin reported {:?} (code {})", error.message, error.code)]
    Plugin { call: Call, error: PluginError },
    #[error("run {call}: {how}{stderr}")]
    Failed { call: Call, how: String, stderr: String },
    #[error("parse the result of {call}: {why}")]
    BadAnswer { call: Call, why: String },
    #[error("find the pod's address: network `{network}` assigned none to its {if_name}")]
    NoAddress { network: String, if_name: String },
    #[error("pass the pod's {what} {value:?} to CNI plugins: it contains `;` or `=`")]
    BadArgument { what: &'static str, value: String },
    #[error("pin the pod's network namespace to {}", path.display())]
    Pin { path: PathBuf, source: io::Error },
    #[error("unpin the pod's network namespace from {}", path.display())]
    Unpin { path: PathBuf, source: io::Error },
    #[error("write the plugin input {}", path.display())]
    Input { path: PathBuf, source: io::Error },
    #[error("create the input of {call} in memory")]
    Memory { call: Call, source: hull_sys::Error },
    #[error("read the pods' attachment records")]
    ReadRecords { source: hull_records::Error },
    #[error("write the pod's attachment record")]
    WriteRecord { source: hull_records::Error },
    #[error("remove the pod's attachment record")]
    RemoveRecord { source: hull_records::Error },
    #[error("read the network template {}", path.display())]
    ReadTemplate { path: PathBuf, source: io::Error },
    #[error("fill in the network template {}: {why}", path.display())]
    BadTemplate { path: PathBuf, why: String },
    #[error("write the network configuration {}", path.display())]
    WriteConf { path: PathBuf, source: io::Error },
}

/// The specification's error code for a temporary condition.
const TRY_AGAIN: u64 = 11;

impl Error {
    /// Advice for the operator, where there is any.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoNetwork { dir, bad } if bad.is_empty() => Some(format!(
                "install a network plugin (Cilium, Calico, Flannel, …) that writes to {}, set another `conf_dir` under `[network.cni]`, or set `mode = \"bridge\"` under `[network]`",
                dir.display()
            )),
            Self::NoNetwork { .. } => Some("fix these files; hull reads them again when they change".into()),
            Self::NoProgram { program, .. } => Some(format!(
                "install `{program}` there, or add its directory to `bin_dirs` under `[network.cni]`"
            )),
            Self::NoVersion { file, .. } => Some(format!(
                "set `cniVersion` in {} to a version that all of its plugins support, or update the plugins",
                file.display()
            )),
            Self::Run { source: invoke::Error::TimedOut { .. }, call } => Some(format!(
                "find out what `{}` is waiting for in its agent's log, or raise `plugin_timeout_s` under `[network.cni]`",
                call.program
            )),
            Self::Run { source: invoke::Error::Start { program, .. }, .. } => {
                Some(format!("replace {program} with an executable for this machine"))
            }
            Self::Plugin { error, .. } if error.code == TRY_AGAIN => {
                Some("the plugin reports a temporary condition; the kubelet retries".into())
            }
            Self::Run { call, .. }
            | Self::Plugin { call, .. }
            | Self::Failed { call, .. }
            | Self::BadAnswer { call, .. } => {
                Some(format!("see the log of network plugin `{}` and its agent", call.program))
            }
            Self::NoAddress { network, .. } => {
                Some(format!("configure `ipam` for network `{network}`, or name the files so that a network with `ipam` comes first"))
            }
            Self::BadTemplate { .. } => Some(
                "use {{.PodCIDR}} for the first subnet and {{.PodCIDRRanges}} for host-local's `ranges`, in a CNI configuration list".into(),
            ),
            Self::ReadRecords { source }
            | Self::WriteRecord { source }
            | Self::RemoveRecord { source } => source.hint(),
            Self::Input { path, .. }
            | Self::WriteConf { path, .. }
            | Self::ReadTemplate { path, .. }
            | Self::Pin { path, .. }
            | Self::Unpin { path, .. } => Some(format!("check free space and permissions of {}", path.display())),
            Self::ReadConf { dir, .. } => {
                Some(format!("check permissions of {}", dir.display()))
            }
            Self::BadArgument { .. } | Self::Memory { .. } => None,
        }
    }
}

fn none_in(dir: &std::path::Path, bad: &[InvalidFile]) -> String {
    if bad.is_empty() {
        return format!("{} has no *.conflist, *.conf or *.json of a pod network", dir.display());
    }
    let of = |bad: &InvalidFile| format!("{}: {}", bad.file.display(), bad.why);
    bad.iter().map(of).collect::<Vec<_>>().join("; ")
}
