// SPDX-License-Identifier: Apache-2.0
//! The plan of a pod's pause process, from its record and the node's settings.

use super::PodRecord;
use crate::config::Size;
use crate::node::Node;
use crate::oci_spec::{self, PauseRequest};
use ::oci_spec::runtime::Spec;
use hull_plan::PausePlan;

/// The plan of the pause process, and its spec.
pub(crate) fn pause_plan(
    node: &Node,
    record: &PodRecord,
) -> Result<(PausePlan, Spec), oci_spec::Error> {
    let of_handler = record.handler_settings.as_ref().and_then(|of| of.shm_bytes);
    let of_node = || node.config.current().runtime.shm_bytes;
    oci_spec::pause(&PauseRequest {
        id: &record.id,
        config: &record.config,
        assigned_userns: record.assigned_userns.as_ref(),
        cgroup: &record.cgroup,
        shm_bytes: of_handler.map_or_else(of_node, Size::bytes),
        user_namespaces: &node.user_namespaces,
    })
}
