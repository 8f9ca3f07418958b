// SPDX-License-Identifier: Apache-2.0
//! Containers: what is recorded and shown of one, and the work of making, starting, ending and
//! removing one.
//!
//! The pod's task owns them: it decides by [`state`], records, and hands the work below to the
//! runtime. The work itself changes no state.

pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod exit_details;
pub(crate) mod log;
pub(crate) mod plans;
pub(crate) mod remove;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod stop;
pub(crate) mod volumes;

use crate::nri::resources::to_cri;
use crate::spec;
use hull_proto::id::{ContainerId, PodId};
use hull_proto::{cri, nri};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};

pub(crate) use state::State;
pub(crate) use volumes::ImageVolume;

/// What is kept of a container on disk.
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
    /// What `image_ref` shows: a digest reference where there is one, else the id.
    pub(crate) image_ref: String,
    /// Nanoseconds since the epoch.
    pub(crate) created_ns: i64,
    /// Path of its cgroup below each hierarchy's root.
    pub(crate) cgroup: String,
    /// Whole path of its log; empty without one.
    pub(crate) log_path: String,
    /// What plugins asked for when it was made, and limits they set since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) adjust: Option<Box<nri::ContainerAdjustment>>,
    /// Whom its first process runs as; known once it is made.
    pub(crate) user: Option<User>,
    /// Kernel number of the signal that asks it to stop.
    pub(crate) stop_signal: i32,
    /// The end was requested: by StopContainer, by a removal, or with the pod's.
    #[serde(default)]
    pub(crate) stop_requested: bool,
    pub(crate) state: State,
}

/// Whom a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

impl ContainerRecord {
    /// The ids of the images that it needs.
    pub(crate) fn images(&self) -> impl Iterator<Item = String> + '_ {
        let volumes = self.image_volumes.iter().map(|volume| volume.image_id.clone());
        std::iter::once(self.image_id.clone()).chain(volumes)
    }

    /// What it is to have: as the kubelet asked, and as plugins changed that.
    pub(crate) fn resources(&self) -> Option<cri::LinuxContainerResources> {
        let asked = self.config.linux.as_ref().and_then(|linux| linux.resources.clone());
        let adjusted = self.adjust.as_ref().and_then(|adjust| adjust.linux.as_ref());
        let Some(adjusted) = adjusted.and_then(|linux| linux.resources.as_ref()) else {
            return asked;
        };
        let mut resources = asked.unwrap_or_default();
        spec::merge_resources(&mut resources, &to_cri(adjusted));
        Some(resources)
    }

    /// Its name and attempt.
    pub(crate) fn metadata(&self) -> (&str, u32) {
        self.config.metadata.as_ref().map_or(("", 0), |meta| (meta.name.as_str(), meta.attempt))
    }
}

/// What is shown of a container.
#[derive(Debug, Clone)]
pub(crate) struct ContainerView {
    pub(crate) id: ContainerId,
    pub(crate) pod: PodId,
    pub(crate) record: Arc<ContainerRecord>,
    pub(crate) execs: Execs,
}

/// The plan that CreateContainer made, cached so that StartContainer does not read it back from [`plans`].
#[derive(Debug, Default)]
pub(crate) struct Planned(Option<Box<hull_plan::Plan>>);

impl Planned {
    pub(crate) fn of(plan: hull_plan::Plan) -> Self {
        Self(Some(Box::new(plan)))
    }

    /// The plan, once.
    pub(crate) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    pub(crate) fn into_plan(self) -> Option<hull_plan::Plan> {
        self.0.map(|plan| *plan)
    }
}

/// What the container's execs have in common, once there was one. Whoever changes the config makes a
/// new one.
pub(crate) type Execs = Arc<OnceLock<hull_plan::Template>>;
