// SPDX-License-Identifier: Apache-2.0
//! Errors that NRI plugins cause in a verb, or that keep plugins from connecting. Texts read after "cannot".

use std::path::PathBuf;

/// A failed call of NRI plugins, or their socket that could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A plugin gave no valid answer, and its failure policy makes the request fail.
    #[error("call {call} of NRI plugin `{plugin}`, which requires its answer: {why}")]
    NoAnswer {
        /// The plugin, as `<index>-<name>`.
        plugin: String,
        /// The method of the interface, such as `CreateContainer`.
        call: &'static str,
        /// A timeout, a lost connection, or an invalid answer.
        why: String,
    },
    /// A plugin refused the request.
    #[error("get {call} approved: NRI plugin `{plugin}` refuses it: {why}")]
    Refused {
        /// The plugin, as `<index>-<name>`.
        plugin: String,
        /// The method of the interface, such as `CreateContainer`.
        call: &'static str,
        /// The plugin's message.
        why: String,
    },
    /// Two plugins set the same field.
    #[error("merge the adjustments of NRI plugins `{first}` and `{second}`: both set {what}")]
    Conflict {
        /// The plugin that set the field first.
        first: String,
        /// The plugin that set it too.
        second: String,
        /// The field, and the key of the entry in it.
        what: String,
    },
    /// A plugin updates the container that is being created. It may only adjust that one.
    #[error(
        "apply the updates of NRI plugin `{plugin}`: one is for container {container}, which is still being created"
    )]
    UpdatesNew {
        /// The plugin, as `<index>-<name>`.
        plugin: String,
        /// Id of the new container.
        container: String,
    },
    /// A validating plugin rejects the adjustments of the others.
    #[error("validate the adjustments of NRI plugins: plugin `{plugin}` rejects them: {why}")]
    Rejected {
        /// The validating plugin, as `<index>-<name>`.
        plugin: String,
        /// The plugin's message.
        why: String,
    },
    /// The socket for plugins could not be opened.
    #[error("listen for NRI plugins on {}: {why}", path.display())]
    Listen {
        /// Path of the socket.
        path: PathBuf,
        /// The reason, such as the kernel's error.
        why: String,
    },
    /// The path of the socket for plugins names something that is not a socket.
    #[error("listen for NRI plugins on `{}`: it is {what}, not a socket", path.display())]
    NotASocket {
        /// Path of the socket.
        path: PathBuf,
        /// A noun with its article, such as `a file`.
        what: &'static str,
    },
}

impl Error {
    /// The change by which an operator fixes this.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoAnswer { plugin, .. } => {
                Some(format!("see the log of plugin `{plugin}`; restart or remove the plugin"))
            }
            Self::Refused { plugin, .. } | Self::Rejected { plugin, .. } => {
                Some(format!("see the log and the configuration of plugin `{plugin}`"))
            }
            Self::Conflict { first, second, .. } => {
                Some(format!("configure `{first}` or `{second}` so that only one of them sets it"))
            }
            Self::UpdatesNew { plugin, .. } => Some(format!("this is a bug in plugin `{plugin}`")),
            Self::Listen { .. } => Some(
                "set another path with `nri.socket`, or `nri.enable = false` if no plugin is used"
                    .into(),
            ),
            Self::NotASocket { path, .. } => Some(format!(
                "set `nri.socket` to another path, or, if nothing needs `{}`, move it away: hull removes only sockets; or set `nri.enable = false` if no plugin is used",
                path.display()
            )),
        }
    }
}
