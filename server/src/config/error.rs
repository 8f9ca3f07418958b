// SPDX-License-Identifier: Apache-2.0
//! Why a configuration is not taken. Every text names the file and, where there is one, the line.

use super::Origin;
use std::path::PathBuf;

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read config file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("list config directory {}", path.display())]
    List { path: PathBuf, source: std::io::Error },
    #[error("read {origin}: {said}")]
    Syntax { origin: Origin, said: String },
    #[error("take `{key}` from {origin}: there is no such setting")]
    UnknownKey { key: String, origin: Origin, nearest: Option<String> },
    #[error("take `{key}` from {origin}: {why}")]
    BadValue { key: String, origin: Origin, why: String },
    #[error("take `--set {setting}`: it is not KEY=VALUE")]
    BadSetting { setting: String },
}

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { nearest: Some(nearest), .. } => {
                Some(format!("did you mean `{nearest}`?"))
            }
            Self::UnknownKey { nearest: None, .. } => {
                Some("`hull config default` lists every setting".into())
            }
            Self::BadValue { .. } | Self::Syntax { .. } => {
                Some("`hull config default` shows every setting with its form".into())
            }
            Self::BadSetting { .. } => Some("for example --set network.mtu=1450".into()),
            Self::Read { .. } | Self::List { .. } => None,
        }
    }
}
