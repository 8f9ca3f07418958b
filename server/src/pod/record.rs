// SPDX-License-Identifier: Apache-2.0
//! The record of a pod: what the daemon keeps of it on disk.

use super::state::State;
use hull_proto::cri;
use serde::{Deserialize, Serialize};

/// The record of a pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) id: String,
    /// As the kubelet asked for it.
    pub(crate) config: cri::PodSandboxConfig,
    /// RuntimeClass handler; empty is the native one.
    pub(crate) handler: String,
    /// Nanoseconds since the epoch.
    pub(crate) created_ns: i64,
    /// Path of the pod's cgroup below each hierarchy's root.
    pub(crate) cgroup: String,
    /// We made that cgroup, so we take it away.
    pub(crate) cgroup_is_ours: bool,
    pub(crate) state: State,
}

impl PodRecord {
    /// Uses the host's network?
    pub(crate) fn host_network(&self) -> bool {
        let node = cri::NamespaceMode::Node as i32;
        self.namespaces().is_some_and(|options| options.network == node)
    }

    /// `namespace/name`, as people call it.
    pub(crate) fn full_name(&self) -> String {
        let metadata = self.config.metadata.as_ref();
        metadata.map_or_else(String::new, |of| format!("{}/{}", of.namespace, of.name))
    }

    /// Has a user namespace of its own? Checked when it was asked for.
    pub(crate) fn id_maps(&self) -> Option<hull_plan::IdMaps> {
        crate::oci_spec::userns::of_pod(&self.config).ok().flatten()
    }

    pub(crate) fn namespaces(&self) -> Option<&cri::NamespaceOption> {
        self.config.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref()
    }
}
