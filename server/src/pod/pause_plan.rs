// SPDX-License-Identifier: Apache-2.0
//! The plan of a pod's pause process, from its record and the node's settings.

use super::PodRecord;
use crate::node::Node;
use crate::oci_spec::{self, PauseRequest};
use ::oci_spec::runtime::Spec;
use hull_plan::PausePlan;

/// The plan of the pause process, and its spec.
pub(crate) fn pause_plan(
    node: &Node,
    record: &PodRecord,
) -> Result<(PausePlan, Spec), oci_spec::Error> {
    oci_spec::pause(&PauseRequest {
        id: &record.id,
        config: &record.config,
        assigned_userns: record.assigned_userns.as_ref(),
        cgroup: &record.cgroup,
        shm_bytes: node.config.current().runtime.shm_bytes,
        user_namespaces: &node.user_namespaces,
    })
}
