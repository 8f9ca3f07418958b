// SPDX-License-Identifier: Apache-2.0
//! Clears what is left of a container's exited run, so that it can run again with the same writable layer.

use super::{ContainerRecord, host_paths, poststop, volumes};
use crate::container::cgroup::clear_cgroup_of;
use crate::error::Error;
use crate::monitors::{self, Client};
use crate::node::Node;
use crate::storage::blocking;
use hull_proto::id::ContainerId;
use hull_proto::monitor::Command;
use std::sync::Arc;

/// Has the monitor forget the exited run, removes its cgroup, and makes the sources of volumes that are missing by now.
/// It may run any number of times.
pub(crate) async fn clear(
    node: &Arc<Node>,
    client: Option<Client>,
    id: &ContainerId,
    record: &Arc<ContainerRecord>,
    pod_cgroup: String,
) -> Result<(), Error> {
    const DOING: &str = "start the container again";
    let client = client.ok_or(Error::Monitor { doing: DOING, source: monitors::Error::Lost })?;
    // Its answer comes after everything that it has to say about that run.
    let forgotten = client.command(Command::Delete { container: id.clone() }, Vec::new()).await;
    forgotten.map_err(|source| Error::Monitor { doing: DOING, source })?;
    let (shared, known) = (Arc::clone(node), Arc::clone(record));
    blocking(move || {
        clear_cgroup_of(&shared, &known, &pod_cgroup)?;
        // Those of the exited run, before the next one owes its own.
        poststop::run_owed(&shared, &known.id)?;
        shared.bundles.end_run(&known.id)?;
        volumes::check(&shared, &known)
    })
    .await?;
    host_paths::make_missing(node, &record.config).await
}
