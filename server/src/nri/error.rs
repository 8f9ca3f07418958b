// SPDX-License-Identifier: Apache-2.0
//! Adjustments and limits of plugins that cannot be applied. Texts read after "cannot".

use crate::oci_spec;

/// An adjustment or a limit of a plugin that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("apply {what}: this version of hull does not support that")]
    Unsupported { what: &'static str },
    #[error("use cgroup `{path}`: it is not the container's own below its pod's, {pod}")]
    Cgroup { path: String, pod: String },
    #[error("apply the adjustments of NRI plugin `{plugin}`")]
    Value { plugin: String, source: oci_spec::Error },
    #[error("apply the adjustments of NRI plugins to the runtime spec")]
    Form { source: serde_json::Error },
    #[error("apply the limits of NRI plugins")]
    Limits { source: hull_plan::Error },
}

impl Error {
    /// The change by which an operator fixes this.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unsupported { what } => {
                Some(format!("configure the plugin so that it does not set {what}, or remove it"))
            }
            Self::Cgroup { .. } => Some(
                "a plugin may choose a path below the pod's cgroup that ends in the container's id"
                    .into(),
            ),
            Self::Value { plugin, .. } => {
                Some(format!("see the configuration and the log of plugin `{plugin}`"))
            }
            Self::Form { .. } | Self::Limits { .. } => Some(
                "see the log for the plugin that sets it, and that plugin's configuration".into(),
            ),
        }
    }
}
