// SPDX-License-Identifier: Apache-2.0
//! Why plugins keep something from being done. Texts read after "cannot".

use std::path::PathBuf;

/// Why plugins keep something from being done, or cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It wants calls to fail that it does not answer.
    #[error("go on without NRI plugin `{plugin}`: it gave no answer to {call} ({why})")]
    NoAnswer {
        /// Index and name.
        plugin: String,
        /// Which method.
        call: &'static str,
        /// Deadline, lost connection, garbage.
        why: String,
    },
    /// It said no.
    #[error("get past NRI plugin `{plugin}`, which refuses {call}: {why}")]
    Refused {
        /// Index and name.
        plugin: String,
        /// Which method.
        call: &'static str,
        /// In its words.
        why: String,
    },
    /// Two want different things.
    #[error("do what NRI plugins `{first}` and `{second}` ask: both set {what}")]
    Conflict {
        /// Who set it first.
        first: String,
        /// Who would set it too.
        second: String,
        /// Which field, and which entry of it.
        what: String,
    },
    /// The container that is being made is adjusted, not updated.
    #[error(
        "do what NRI plugin `{plugin}` asks: it updates container {container}, which is only being made"
    )]
    UpdatesNew {
        /// Index and name.
        plugin: String,
        /// Which one.
        container: String,
    },
    /// A plugin that watches over the others says no.
    #[error("do what NRI plugins ask: plugin `{plugin}` rejects it: {why}")]
    Rejected {
        /// Index and name.
        plugin: String,
        /// In its words.
        why: String,
    },
    /// The socket for plugins.
    #[error("listen for NRI plugins on {}: {why}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoAnswer { plugin, .. } => {
                Some(format!("see the log of plugin `{plugin}`; restart it, or take it away"))
            }
            Self::Refused { plugin, .. } | Self::Rejected { plugin, .. } => {
                Some(format!("see the log and the configuration of plugin `{plugin}`"))
            }
            Self::Conflict { first, second, .. } => Some(format!(
                "configure `{first}` or `{second}` so that only one of them sets it"
            )),
            Self::UpdatesNew { plugin, .. } => Some(format!("this is a bug in plugin `{plugin}`")),
            Self::Listen { .. } => Some(
                "set another path with `nri.socket`, or `nri.enable = false` when no plugin is to be used".into(),
            ),
        }
    }
}

/// Why a plugin that connected, or was started, did not become one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("it did not register within {0:?}")]
    Silent(std::time::Duration),
    #[error("it registered with {0}")]
    Name(String),
    #[error("it is not configured: {0}")]
    Configure(crate::connection::Failed),
    #[error("it asks for events {0:#x} that there are not")]
    Events(i32),
    #[error("calls under way when it came did not end within {0:?}")]
    Busy(std::time::Duration),
    #[error("it is not synchronised: {0}")]
    Synchronize(crate::connection::Failed),
    #[error("it does not take the state of a big node in parts")]
    OnePart,
    #[error("its connection is closed: {0}")]
    Closed(String),
}
