// SPDX-License-Identifier: Apache-2.0
//! The record of a container: what the daemon keeps of it on disk.

use super::state::State;
use crate::nri::resources::to_cri;
use crate::oci_spec;
use hull_proto::{cri, nri};
use serde::{Deserialize, Serialize};

/// The record of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) pod: String,
    /// As the kubelet asked for it; resources as last updated.
    pub(crate) config: cri::ContainerConfig,
    /// The image's id, `sha256:…`.
    pub(crate) image_id: String,
    /// The images that its mounts are of.
    #[serde(default)]
    pub(crate) image_volumes: Vec<ImageVolume>,
    /// `image_ref` in statuses: a digest reference if the image has one, else its id.
    pub(crate) image_ref: String,
    /// Nanoseconds since the epoch.
    pub(crate) created_ns: i64,
    /// Path of its cgroup below each hierarchy's root.
    pub(crate) cgroup: String,
    /// Whole path of its log; empty without one.
    pub(crate) log_path: String,
    /// Adjustments by plugins at creation, and limits that plugins have set since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) adjust: Option<Box<nri::ContainerAdjustment>>,
    /// The user of its first process; known once it is created.
    pub(crate) user: Option<User>,
    /// Kernel number of the signal that asks it to stop.
    pub(crate) stop_signal: i32,
    /// The end was requested: by StopContainer, by a removal, or with the pod's.
    #[serde(default)]
    pub(crate) stop_requested: bool,
    /// When the stop signal was first sent with time to end by itself, in nanoseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stop_signal_ns: Option<i64>,
    /// The last signal that a client had sent to it, while it ran: `hull kill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signal_requested: Option<i32>,
    /// When that was, in nanoseconds since the epoch; not known of a container that an earlier release ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signal_requested_ns: Option<i64>,
    /// Parts of its config that have no effect on this node, each in a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) remarks: Vec<String>,
    pub(crate) state: State,
}

/// The user and groups of a process, and its home directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// A mount of a container whose source is an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageVolume {
    /// Index into the config's mounts.
    pub(crate) mount: usize,
    /// The image's id, `sha256:…`.
    pub(crate) image_id: String,
}

impl ContainerRecord {
    /// The ids of the images that it needs.
    pub(crate) fn images(&self) -> impl Iterator<Item = String> + '_ {
        let volumes = self.image_volumes.iter().map(|volume| volume.image_id.clone());
        std::iter::once(self.image_id.clone()).chain(volumes)
    }

    /// Its resources: the kubelet's request, with the changes by plugins.
    pub(crate) fn resources(&self) -> Option<cri::LinuxContainerResources> {
        let requested = self.config.linux.as_ref().and_then(|linux| linux.resources.clone());
        let adjusted = self.adjust.as_ref().and_then(|adjust| adjust.linux.as_ref());
        let Some(adjusted) = adjusted.and_then(|linux| linux.resources.as_ref()) else {
            return requested;
        };
        let mut resources = requested.unwrap_or_default();
        oci_spec::merge_resources(&mut resources, &to_cri(adjusted));
        Some(resources)
    }

    /// The image's name as a person wrote it, if the kubelet sends that; else the requested one, often an id.
    pub(crate) fn image_name(&self) -> &str {
        let image = self.config.image.as_ref();
        image.map_or("", |image| match image.user_specified_image.as_str() {
            "" => image.image.as_str(),
            written => written,
        })
    }

    /// Its name and attempt.
    pub(crate) fn metadata(&self) -> (&str, u32) {
        self.config.metadata.as_ref().map_or(("", 0), |meta| (meta.name.as_str(), meta.attempt))
    }
}
