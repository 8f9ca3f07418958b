// SPDX-License-Identifier: Apache-2.0
//! The removal of a container that no task owns.

use crate::container::ContainerRecord;
use crate::container::cgroup::clear_cgroup;
use crate::container::poststop;
use crate::error::{Chain, Error};
use crate::node::Node;
use crate::storage::blocking;
use hull_proto::id::ContainerId;
use std::sync::Arc;
use tracing::error;

/// Whether nothing of its cgroup is left.
pub(super) async fn clear(node: &Arc<Node>, record: &ContainerRecord, pod: &str) -> bool {
    let (shared, path, pod) = (Arc::clone(node), record.cgroup.clone(), pod.to_owned());
    let cleared = blocking(move || clear_cgroup(&shared.cgroups, &path, &pod)).await;
    if let Err(err) = &cleared {
        error!(container_id = %record.id, error = %Chain(err), "cgroup not cleared");
    }
    cleared.is_ok()
}

/// Whether nothing of it is left on disk.
pub(crate) async fn remove_container(node: &Arc<Node>, id: &ContainerId) -> bool {
    let (shared, name) = (Arc::clone(node), id.to_string());
    if let Err(err) = blocking(move || shared.images.remove_rootfs(&name)).await {
        error!(container_id = %id, error = %Chain(&err), "writable layer not removed");
        return false;
    }
    if !remove_hooks(node, id).await {
        return false;
    }
    if let Err(err) = node.plans.remove(id.as_str()) {
        error!(container_id = %id, error = %Chain(&err), "kept plan not removed");
        return false;
    }
    let removed = node.containers.remove(id.as_str());
    if let Err(err) = &removed {
        error!(container_id = %id, error = %Chain(err), "container record not removed");
    }
    removed.is_ok()
}

/// Removes its hooks, once its poststop hooks have run. Whether none are left.
pub(super) async fn remove_hooks(node: &Arc<Node>, id: &ContainerId) -> bool {
    let (shared, name) = (Arc::clone(node), id.to_string());
    let removed = blocking(move || {
        poststop::run_owed(&shared, &name)?;
        shared.bundles.remove(&name).map_err(|source| Error::Store { source })
    })
    .await;
    if let Err(err) = &removed {
        error!(container_id = %id, error = %Chain(err), "hooks not removed");
    }
    removed.is_ok()
}
