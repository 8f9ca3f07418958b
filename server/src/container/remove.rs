// SPDX-License-Identifier: Apache-2.0
//! Taking away what is left of a container that does not run. Any number of times.

use super::{ContainerRecord, poststop};
use crate::container::cgroup::clear_cgroup_of;
use crate::error::Error;
use crate::monitors::Client;
use crate::node::Node;
use crate::storage::blocking;
use hull_proto::id::ContainerId;
use hull_proto::monitor::Command;
use std::sync::Arc;
use tracing::debug;

/// Removes its cgroup, its writable layer, its kept plan and its hooks, once its poststop hooks have run. The log stays:
/// it is the kubelet's.
pub(crate) async fn remove(
    node: &Arc<Node>,
    client: Option<Client>,
    id: &ContainerId,
    record: &Arc<ContainerRecord>,
    pod_cgroup: String,
) -> Result<(), Error> {
    if let Some(client) = client
        && let Err(err) =
            client.command(Command::Delete { container: id.clone() }, Vec::new()).await
    {
        // The monitor ended meanwhile; the cgroup is cleared below all the same.
        debug!(error = %err, "monitor did not forget the container");
    }
    let (node, record) = (Arc::clone(node), Arc::clone(record));
    blocking(move || {
        clear_cgroup_of(&node, &record, &pod_cgroup)?;
        node.images
            .remove_rootfs(&record.id)
            .map_err(|source| Error::Rootfs { container: record.id.clone(), source })?;
        poststop::run_owed(&node, &record.id)?;
        let stored = |source| Error::Store { source };
        node.bundles.remove(&record.id).map_err(stored)?;
        node.plans.remove(&record.id).map_err(stored)
    })
    .await
}
