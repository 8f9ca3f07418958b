// SPDX-License-Identifier: Apache-2.0
//! Why a configuration cannot be used. Every text names the file and, where there is one, the line.

use super::keys::REGISTRY;
use super::origin::Origin;
use std::path::PathBuf;

/// Why a configuration cannot be used. Each text reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read config file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("list config directory {}", path.display())]
    List { path: PathBuf, source: std::io::Error },
    #[error("read {origin}: {message}")]
    Syntax { origin: Origin, message: String },
    #[error("read {origin}: unknown setting `{key}`")]
    UnknownKey { key: String, origin: Origin, nearest: Option<String> },
    #[error("use `{key}` from {origin}: {why}")]
    BadValue { key: String, origin: Origin, why: String },
    /// A value of another type than the setting has.
    #[error("use `{key}` from {origin}: {why}")]
    BadType { key: String, origin: Origin, why: String, example: String },
    #[error("use `{section}` from {origin}: it is {what}, and is the name of a section")]
    NotASection { section: String, origin: Origin, what: String },
    #[error("use `--set {setting}`: it is not KEY=VALUE")]
    BadSetting { setting: String },
}

impl Error {
    /// Advice for the operator.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { nearest: Some(nearest), .. } => {
                Some(format!("did you mean `{nearest}`?"))
            }
            Self::UnknownKey { nearest: None, .. } => {
                Some("`hull config default` lists every setting".into())
            }
            Self::BadValue { .. } | Self::Syntax { .. } => {
                Some("`hull config default` shows every setting and its form".into())
            }
            Self::BadType { key, origin: Origin::Flag, example, .. } => {
                Some(format!("for example --set '{key}={example}'"))
            }
            Self::BadType { key, example, .. } => {
                let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
                let below = match section {
                    "" => String::new(),
                    REGISTRY => format!(" under `[[{REGISTRY}]]`"),
                    _ => format!(" under `[{section}]`"),
                };
                Some(format!(
                    "for example `{name} = {example}`{below}; `hull config default` shows every setting"
                ))
            }
            Self::NotASection { section, .. } => Some(format!(
                "write its settings below a line `[{section}]`; `hull config default` shows them"
            )),
            Self::BadSetting { .. } => Some("for example --set network.mtu=1450".into()),
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::InvalidData => {
                Some("a configuration file is a regular file of UTF-8 text, of at most 1 MiB, or a link to one".into())
            }
            Self::Read { .. } | Self::List { .. } => None,
        }
    }
}
