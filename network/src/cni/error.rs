// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with network plugins, and what the operator can do about it.

use super::conf::Bad;
use super::invoke;
use super::protocol::{Refusal, Verb};
use std::io;
use std::path::PathBuf;

/// Which call of which plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The verb.
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

/// Why network plugins could not attach a pod or detach it, or are not ready to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the network configurations in {}", dir.display())]
    ReadConf { dir: PathBuf, source: io::Error },
    #[error("find a network for pods: {}", none_in(dir, bad))]
    NoNetwork { dir: PathBuf, bad: Vec<Bad> },
    #[error("find CNI plugin `{program}` of network `{network}` in {dirs}")]
    NoProgram { program: String, network: String, dirs: String },
    #[error("agree on a version with the plugins of network `{network}` ({}): it is written for {offered}; {spoken}", file.display())]
    NoVersion { network: String, file: PathBuf, offered: String, spoken: String },
    #[error("run {call}")]
    Run { call: Call, source: invoke::Error },
    #[error("run {call}: it says {:?} (code {})", refusal.message, refusal.code)]
    Refused { call: Call, refusal: Refusal },
    #[error("run {call}: {how}{said}")]
    Failed { call: Call, how: String, said: String },
    #[error("understand {call}: {why}")]
    BadAnswer { call: Call, why: String },
    #[error("find the pod's address: network `{network}` gave its {if_name} none")]
    NoAddress { network: String, if_name: String },
    #[error("tell the plugins the pod's {what} {value:?}: it holds a `;` or `=`")]
    BadArgument { what: &'static str, value: String },
    #[error("pin the pod's network namespace to {}", path.display())]
    Pin { path: PathBuf, source: io::Error },
    #[error("take the pod's network namespace from {}", path.display())]
    Unpin { path: PathBuf, source: io::Error },
    #[error("keep what plugins are told in {}", path.display())]
    Input { path: PathBuf, source: io::Error },
    #[error("keep what {call} is told in memory")]
    Memory { call: Call, source: hull_sys::Error },
    #[error("read the records of attachments in {}", dir.display())]
    ReadRecords { dir: PathBuf, source: io::Error },
    #[error("record the pod's attachments in {}", path.display())]
    WriteRecord { path: PathBuf, source: io::Error },
    #[error("remove the record of the pod's attachments {}", path.display())]
    RemoveRecord { path: PathBuf, source: io::Error },
    #[error("read the network template {}", path.display())]
    ReadTemplate { path: PathBuf, source: io::Error },
    #[error("fill in the network template {}: {why}", path.display())]
    BadTemplate { path: PathBuf, why: String },
    #[error("write the network configuration {}", path.display())]
    WriteConf { path: PathBuf, source: io::Error },
}

/// Code of the specification for a condition that passes.
const TRY_AGAIN: u64 = 11;

impl Error {
    /// What the operator can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoNetwork { dir, bad } if bad.is_empty() => Some(format!(
                "install a network plugin (Cilium, Calico, Flannel, …) that writes to {}, name another `conf_dir` under `[network.cni]`, or set `mode = \"bridge\"` under `[network]`",
                dir.display()
            )),
            Self::NoNetwork { .. } => Some("mend the files named; they are read again at once".into()),
            Self::NoProgram { program, .. } => Some(format!(
                "install `{program}` there, or name its directory in `bin_dirs` under `[network.cni]`"
            )),
            Self::NoVersion { file, .. } => Some(format!(
                "set `cniVersion` in {} to one that all of its plugins speak, or update them",
                file.display()
            )),
            Self::Run { source: invoke::Error::TooSlow { .. }, call } => Some(format!(
                "see what `{}` waits for (its agent's log), or raise `plugin_timeout_s` under `[network.cni]`",
                call.program
            )),
            Self::Run { source: invoke::Error::Start { program, .. }, .. } => {
                Some(format!("make {program} a program that this machine can run"))
            }
            Self::Refused { refusal, .. } if refusal.code == TRY_AGAIN => {
                Some("the plugin says it passes; it is tried again".into())
            }
            Self::Run { call, .. }
            | Self::Refused { call, .. }
            | Self::Failed { call, .. }
            | Self::BadAnswer { call, .. } => {
                Some(format!("see the log of network plugin `{}` and its agent", call.program))
            }
            Self::NoAddress { network, .. } => {
                Some(format!("give network `{network}` an `ipam`, or put a network that has one first by name"))
            }
            Self::BadTemplate { .. } => Some(
                "use {{.PodCIDR}} for the first subnet and {{.PodCIDRRanges}} for host-local's `ranges`, in a CNI configuration list".into(),
            ),
            Self::WriteRecord { path, .. }
            | Self::Input { path, .. }
            | Self::RemoveRecord { path, .. }
            | Self::WriteConf { path, .. }
            | Self::ReadTemplate { path, .. }
            | Self::Pin { path, .. }
            | Self::Unpin { path, .. } => Some(format!("check space and permissions of {}", path.display())),
            Self::ReadConf { dir, .. } | Self::ReadRecords { dir, .. } => {
                Some(format!("check permissions of {}", dir.display()))
            }
            Self::BadArgument { .. } | Self::Memory { .. } => None,
        }
    }
}

fn none_in(dir: &std::path::Path, bad: &[Bad]) -> String {
    if bad.is_empty() {
        return format!("{} has no *.conflist, *.conf or *.json", dir.display());
    }
    let of = |bad: &Bad| format!("{}: {}", bad.file.display(), bad.why);
    bad.iter().map(of).collect::<Vec<_>>().join("; ")
}
