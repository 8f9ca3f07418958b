// SPDX-License-Identifier: Apache-2.0
//! Requests of plugins that cannot be granted. Texts read after "cannot".

use crate::oci_spec;

/// Why what plugins ask for cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("use {what}: this version of hull does not have that")]
    Unsupported { what: &'static str },
    #[error("use cgroup `{path}`: it is not the container's own below its pod's, {pod}")]
    Cgroup { path: String, pod: String },
    #[error("do what NRI plugin `{plugin}` asks")]
    Value { plugin: String, source: oci_spec::Error },
    #[error("put the adjustments of NRI plugins into the runtime spec")]
    Form { source: serde_json::Error },
    #[error("set the limits of NRI plugins")]
    Limits { source: hull_plan::Error },
}

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unsupported { what } => {
                Some(format!("configure the plugin that asks for {what} not to, or take it away"))
            }
            Self::Cgroup { .. } => Some(
                "a plugin may choose a path below the pod's cgroup that ends in the container's id"
                    .into(),
            ),
            Self::Value { plugin, .. } => {
                Some(format!("see the configuration and the log of plugin `{plugin}`"))
            }
            Self::Form { .. } | Self::Limits { .. } => {
                Some("see which plugin asks for it in the log, and its configuration".into())
            }
        }
    }
}
