// SPDX-License-Identifier: Apache-2.0
//! Removes leaks, by the same functions as the recovery of a daemon.

use super::cgroups;
use super::leaks::Leak;
use crate::container::cgroup::clear_cgroup;
use crate::error::Chain;
use crate::history::{Kind, Timeline};
use crate::node::Node;
use crate::pod::recover;
use crate::storage::blocking;
use hull_cgroup::Cgroup;
use hull_network::cni;
use hull_proto::id::PodId;
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::info;

/// Removes a leak, or returns the reason, a clause. `past` is what there is and was.
pub(super) async fn remove(node: &Arc<Node>, leak: Leak, past: &[Timeline]) -> Result<(), String> {
    info!(leak = ?leak, "leak is removed by request");
    match leak {
        Leak::PodCgroup { pod, path } => {
            if !past.iter().any(|of| of.id == pod.as_str() || of.pod == pod.as_str()) {
                let shared = Arc::clone(node);
                blocking(move || check_is_empty(&shared, &path)).await?;
            }
            take_down(node, &pod, past).await
        }
        Leak::Directory { pod, .. } | Leak::Monitor { pod } => take_down(node, &pod, past).await,
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
        Leak::Netns { path, .. } => {
            let unpinned = blocking(move || cni::unpin(&path)).await;
            unpinned.map_err(|err| format!("cannot unpin it: {}", Chain(&err)))
        }
        Leak::Quota { project } => {
            let shared = Arc::clone(node);
            let freed = blocking(move || shared.images.free_quota(project)).await;
            freed.map_err(|err| format!("cannot remove it: {}", Chain(&err)))
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

/// Refuses a cgroup with processes. For cgroups of pods that Hull does not remember: anybody can give a cgroup such a
/// name.
fn check_is_empty(node: &Node, path: &str) -> Result<(), String> {
    let cgroup = Cgroup::at(&node.cgroups, path).map_err(|err| Chain(&err).to_string())?;
    if !cgroup.is_populated_anywhere().map_err(|err| Chain(&err).to_string())? {
        return Ok(());
    }
    Err("processes run in it that hull does not know: end them first (systemd-cgls, cgroup.procs)"
        .into())
}

/// All that a pod without a record has. A part that is not there counts as removed, so it may run once for each. Its
/// cgroups are searched for by name, because the record that said where they are is gone.
async fn take_down(node: &Arc<Node>, pod: &PodId, past: &[Timeline]) -> Result<(), String> {
    let (shared, id) = (Arc::clone(node), pod.to_string());
    let containers = past.iter().filter(|of| of.kind == Kind::Container && of.pod == id);
    let mut names: BTreeSet<String> = containers.map(|of| of.id.clone()).collect();
    names.extend([format!("pod{id}"), format!("hull-{id}.scope"), id]);
    let cleared = blocking(move || {
        let found = cgroups::named(&shared.cgroups, &names);
        found.iter().try_for_each(|path| clear_cgroup(&shared.cgroups, path, path))
    });
    cleared.await.map_err(|err| format!("cannot clear its cgroups: {}", Chain(&err)))?;
    if recover::sweep_pod(node, pod).await {
        Ok(())
    } else {
        Err("it could not be removed: the daemon's log says why".into())
    }
}
