// SPDX-License-Identifier: Apache-2.0
//! The errors of CNI, and hints for the operator.

use super::advice::{self, Report};
use super::conf::{Configurations, InvalidFile, Plugin};
use super::invoke;
use super::protocol::{PluginError, Verb};
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// Identifies a plugin call in errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The command, as in `ADD`.
    pub verb: Verb,
    /// The plugin's `type`.
    pub program: String,
    /// The network's name.
    pub network: String,
    /// The file with the plugin's configuration; empty if a record of an earlier release does not name it.
    pub file: PathBuf,
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
    #[error("find network `{name}`: no CNI configuration in {} has this name", dir.display())]
    NotConfigured { name: String, dir: PathBuf, known: Vec<String> },
    #[error("find CNI plugin `{program}` of network `{network}`: it is not found in {dirs}")]
    NoProgram { program: String, network: String, dirs: String },
    #[error("run CNI plugin `{program}` of network `{network}`: {} is {what}", path.display())]
    NotAProgram { program: String, network: String, path: PathBuf, what: &'static str },
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
    #[error(
        "give the pod {what}: no plugin of network `{network}` ({plugins}) takes them (capability `{capability}`)"
    )]
    NoCapability {
        what: &'static str,
        capability: &'static str,
        /// The reference plugin that has the capability.
        plugin: &'static str,
        network: String,
        plugins: String,
        file: PathBuf,
    },
    #[error("pass the pod's {what} {value:?} to CNI plugins: it contains `;` or `=`")]
    BadArgument { what: &'static str, value: String },
    #[error("pin the pod's network namespace to {}", path.display())]
    Pin { path: PathBuf, source: io::Error },
    #[error("unpin the pod's network namespace from {}", path.display())]
    Unpin { path: PathBuf, source: io::Error },
    #[error("write the plugin input {}", path.display())]
    Input { path: PathBuf, source: io::Error },
    #[error("wait for an earlier network plugin call: a process still holds {}", path.display())]
    StillRunning { path: PathBuf },
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

/// The state of a file that has no execute permission for anybody.
pub(super) const NO_EXECUTE_BIT: &str = "not executable: no execute permission (x bit) is set";

impl Call {
    pub(super) fn new(verb: Verb, network: &str, plugin: &Plugin) -> Self {
        let (program, file) = (plugin.program.clone(), plugin.file.clone());
        Self { verb, program, network: network.to_owned(), file }
    }

    fn report<'r>(&'r self, message: &'r str, code: Option<u64>) -> Report<'r> {
        let Self { program, network, file, .. } = self;
        Report { program, network, file, message, code }
    }

    fn advice(&self, message: &str, code: Option<u64>) -> String {
        let report = self.report(message, code);
        let advice = advice::of(&report);
        if self.verb == Verb::Del && report.blames_configuration() {
            return format!("{advice}; the next try to remove the pod uses the corrected file");
        }
        advice
    }
}

/// Why a program that is there does not start.
fn start_hint(program: &str, error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => format!(
            "install the interpreter or ELF loader that {program} needs, or replace it with a static build"
        ),
        Some(Errno::ACCESS) => format!(
            "let root execute {program}: it may lie on a file system that is mounted noexec, or a security module denies it"
        ),
        Some(Errno::NOEXEC) => {
            format!("replace {program} with an executable for this machine's architecture")
        }
        Some(Errno::TXTBSY) => {
            format!("wait until {program} is written completely; the kubelet tries again")
        }
        Some(Errno::NOMEM | Errno::AGAIN) => {
            "free memory, or raise the limits of memory and processes of hull's service".to_owned()
        }
        _ => format!("replace {program} with an executable for this machine"),
    }
}

impl Error {
    /// No configuration of the directory `dir` describes the network `name`.
    pub(super) fn not_configured(name: &str, dir: &Path, found: &Configurations) -> Self {
        let usable = found.networks.iter().filter(|of| !of.is_loopback());
        let known = usable.map(|of| of.name.clone()).collect();
        Self::NotConfigured { name: name.to_owned(), dir: dir.to_owned(), known }
    }

    /// Whether the call fails for its configuration, or for want of its program: not for a reason that may pass.
    pub(super) fn blames_setup(&self) -> bool {
        match self {
            Self::NoProgram { .. } | Self::NotAProgram { .. } => true,
            Self::Plugin { call, error } => {
                call.report(&error.message, Some(error.code)).blames_configuration()
            }
            Self::Failed { call, stderr, .. } => call.report(stderr, None).blames_configuration(),
            Self::ReadConf { .. }
            | Self::NoNetwork { .. }
            | Self::NotConfigured { .. }
            | Self::NoVersion { .. }
            | Self::Run { .. }
            | Self::BadAnswer { .. }
            | Self::NoAddress { .. }
            | Self::NoCapability { .. }
            | Self::BadArgument { .. }
            | Self::Pin { .. }
            | Self::Unpin { .. }
            | Self::Input { .. }
            | Self::StillRunning { .. }
            | Self::Memory { .. }
            | Self::ReadRecords { .. }
            | Self::WriteRecord { .. }
            | Self::RemoveRecord { .. }
            | Self::ReadTemplate { .. }
            | Self::BadTemplate { .. }
            | Self::WriteConf { .. } => false,
        }
    }

    /// Advice for the operator, where there is any.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoNetwork { dir, bad } if bad.is_empty() => Some(format!(
                "install a network plugin (Cilium, Calico, Flannel, …) that writes to {}, set another `conf_dir` under `[network.cni]`, or set `mode = \"bridge\"` under `[network]`",
                dir.display()
            )),
            Self::NotConfigured { known, .. } => Some(choice_hint(known)),
            Self::NoNetwork { .. } => Some("correct these files; hull reads them again when they change".into()),
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
            Self::NotAProgram { path, what, .. } if *what == NO_EXECUTE_BIT => {
                Some(format!("make it executable: chmod +x {}", path.display()))
            }
            Self::NotAProgram { program, path, .. } => {
                Some(format!("remove {}, and install the program `{program}` there", path.display()))
            }
            Self::Run { source: invoke::Error::Start { program, source }, .. } => {
                Some(start_hint(program, source))
            }
            Self::Plugin { call, error } => {
                Some(call.advice(&error.message, Some(error.code)))
            }
            Self::Failed { call, stderr, .. } => Some(call.advice(stderr, None)),
            Self::BadAnswer { call, .. } => Some(format!(
                "update or reinstall `{}`: what it wrote to its standard output is not a result of CNI",
                call.program
            )),
            Self::Run { call, .. } => {
                Some(format!("see the log of network plugin `{}` and its agent", call.program))
            }
            Self::NoAddress { network, .. } => {
                Some(format!("configure `ipam` for network `{network}`, or name the files so that a network with `ipam` comes first"))
            }
            Self::NoCapability { what, capability, plugin, file, .. } => Some(format!(
                "add {{\"type\": \"{plugin}\", \"capabilities\": {{\"{capability}\": true}}}} to the plugins in {}, or remove the {what} from the pod",
                file.display()
            )),
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
            Self::ReadConf { dir, source } => Some(conf_dir_hint(dir, source)),
            Self::StillRunning { path } => Some(format!(
                "find the process with `fuser -v {}`: it hangs in the kernel, or a network plugin left it behind; end it",
                path.display()
            )),
            Self::BadArgument { .. } | Self::Memory { .. } => None,
        }
    }
}

fn choice_hint(known: &[String]) -> String {
    if known.is_empty() {
        return "there is none; use `--network pod`, `host` or `none`".into();
    }
    format!("use one of {}", known.join(", "))
}

fn conf_dir_hint(dir: &std::path::Path, source: &std::io::Error) -> String {
    if Errno::from_io_error(source) == Some(Errno::NOTDIR) {
        return format!(
            "set `conf_dir` under `[network.cni]` to a directory: {} is not one",
            dir.display()
        );
    }
    format!("check permissions of {}", dir.display())
}

fn none_in(dir: &std::path::Path, bad: &[InvalidFile]) -> String {
    if bad.is_empty() {
        return format!("{} has no *.conflist, *.conf or *.json of a pod network", dir.display());
    }
    let of = |bad: &InvalidFile| format!("{}: {}", bad.file.display(), bad.why);
    bad.iter().map(of).collect::<Vec<_>>().join("; ")
}
