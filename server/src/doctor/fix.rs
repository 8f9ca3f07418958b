// SPDX-License-Identifier: Apache-2.0
//! Removes leaks, by the same functions as the recovery of a daemon.

use super::leaks::Leak;
use crate::container::cgroup::clear_cgroup;
use crate::error::Chain;
use crate::node::Node;
use crate::pod::recover;
use crate::storage::blocking;
use hull_proto::id::PodId;
use std::sync::Arc;
use tracing::info;

/// Removes a leak, or returns the reason, a clause.
pub(super) async fn remove(node: &Arc<Node>, leak: Leak) -> Result<(), String> {
    info!(leak = ?leak, "leak is removed by request");
    match leak {
        Leak::Directory { pod, .. } | Leak::Monitor { pod } | Leak::PodCgroup { pod, .. } => {
            take_down(node, &pod).await
        }
        Leak::ContainerCgroup { path, pod_path, .. } => {
            let shared = Arc::clone(node);
            let cleared = blocking(move || clear_cgroup(&shared.cgroups, &path, &pod_path)).await;
            cleared.map_err(|err| format!("cannot clear it: {}", Chain(&err)))
        }
        Leak::Network { pod } => {
            let shared = Arc::clone(node);
            let released = blocking(move || shared.network.release(&pod)).await;
            released.map_err(|err| format!("cannot release it: {}", Chain(&err)))
        }
        Leak::Mount { .. } => {
            Err("Hull has not mounted it: unmount it by hand if it is not needed".into())
        }
        Leak::WritableLayer { container } | Leak::Plan { container } => {
            if recover::remove_container(node, &container).await {
                Ok(())
            } else {
                Err("it could not be removed: the daemon's log says why".into())
            }
        }
    }
}

/// All that a pod without a record has. A part that is not there counts as removed, so it may run once for each.
async fn take_down(node: &Arc<Node>, pod: &PodId) -> Result<(), String> {
    if recover::sweep_pod(node, pod).await {
        Ok(())
    } else {
        Err("it could not be removed: the daemon's log says why".into())
    }
}
