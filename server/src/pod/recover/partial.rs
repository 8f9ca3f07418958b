// SPDX-License-Identifier: Apache-2.0
//! A pod whose setup was cut short by the end of the earlier daemon.

use super::adopt::show;
use super::records::Containers;
use super::remove::remove_container;
use crate::error::Chain;
use crate::node::Node;
use crate::pod::{PodRecord, State, teardown, user_namespace};
use hull_proto::id::PodId;
use std::sync::Arc;
use tracing::{error, info};

/// Tears down a pod whose setup was cut short: its id was never returned, so nothing of it may stay. If that fails,
/// the pod becomes visible, and its task tries again.
pub(super) async fn teardown_partial_pod(
    node: &Arc<Node>,
    id: &PodId,
    mut record: PodRecord,
    containers: Containers,
) {
    let _ids = user_namespace::hold(node, &record);
    info!(pod_id = %id, "taking down a pod that was only half made");
    let cgroups = containers.iter().map(|(_, container)| container.cgroup.clone()).collect();
    let removed = match teardown::take_down(node, id, &record, cgroups, None).await {
        Ok(()) => remove_records(node, id, &containers).await,
        Err(err) => {
            error!(pod_id = %id, error = %Chain(&err), "half-made pod could not be taken down; tried again");
            false
        }
    };
    if !removed {
        record.state = State::Stopping;
        let mut start = show(node, None, id, &record, &containers);
        start.adopt(None, record, containers, Vec::new());
        start.remove_unasked();
        start.run();
    }
}

/// The records of a pod that is taken down, its containers' first. Whether all are gone.
async fn remove_records(node: &Arc<Node>, id: &PodId, containers: &Containers) -> bool {
    let mut all = true;
    for (container, _) in containers {
        all &= remove_container(node, container).await;
    }
    if !all {
        return false;
    }
    let removed = node.pods.remove(id.as_str());
    if let Err(err) = &removed {
        error!(pod_id = %id, error = %Chain(err), "record of a half-made pod not removed");
    }
    removed.is_ok()
}
