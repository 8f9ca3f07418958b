// SPDX-License-Identifier: Apache-2.0
//! The teardown of a pod on the host.
//!
//! [`take_down`] is the only teardown: a failed start, StopPodSandbox, RemovePodSandbox and recovery
//! all come here. Each part is found by a name that follows from the pod's id, and a part that does not exist
//! counts as removed; so a teardown may run at any time, any number of times.

use super::error::Error;
use super::record::PodRecord;
use crate::container::cgroup::clear_cgroup;
use crate::history::timed;
use crate::limits::waits;
use crate::monitors::{self, Client};
use crate::node::Node;
use crate::storage::blocking;
use hull_proto::id::PodId;
use hull_proto::monitor::Command;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The stage of a pod's timeline that all of this is a part of.
const STAGE: &str = "stop pod";

/// Takes it all away again, last part first.
///
/// It stops at the first part that will not go, because taking away what lies below would make it
/// harder to try again. `containers` are the cgroups of the pod's containers. The pod's links go with
/// its network namespace a little later, and its addresses are kept for it until then.
pub(crate) async fn take_down(
    node: &Arc<Node>,
    id: &PodId,
    record: &PodRecord,
    containers: Vec<String>,
    client: Option<Client>,
) -> Result<(), Error> {
    let (stopped, closed) = tokio::join!(
        timed(
            &node.history,
            id.as_str(),
            (STAGE, "processes"),
            end_processes(node, id, record, containers, client)
        ),
        timed(
            &node.history,
            id.as_str(),
            (STAGE, "host ports"),
            unpublish_ports(node, id, record.host_network())
        )
    );
    stopped?;
    closed?;
    timed(
        &node.history,
        id.as_str(),
        (STAGE, "addresses released"),
        release(node, id, record.host_network()),
    )
    .await?;
    let dirs = [node.pod_files(id), node.pod_dir(id)];
    let removed = blocking(move || {
        dirs.into_iter().try_for_each(|path| {
            hull_sys::remove_tree(&path).map_err(|source| Error::RemoveDirectory { path, source })
        })
    });
    timed(&node.history, id.as_str(), (STAGE, "directories"), removed).await
}

/// Nobody is led to a pod that is going, and the next can have its ports at once.
async fn unpublish_ports(node: &Arc<Node>, id: &PodId, host_network: bool) -> Result<(), Error> {
    if host_network {
        return Ok(());
    }
    let (node, id) = (Arc::clone(node), id.clone());
    let withdrawn = blocking(move || node.network.unpublish_ports(id.as_str())).await;
    withdrawn.map_err(|source| Error::Detach { source })
}

async fn release(node: &Arc<Node>, id: &PodId, host_network: bool) -> Result<(), Error> {
    if host_network {
        return Ok(());
    }
    let (node, id) = (Arc::clone(node), id.clone());
    let released = blocking(move || node.network.release(id.as_str())).await;
    released.map_err(|source| Error::Detach { source })
}

/// Ends every process of the pod: by its monitor where there is one that answers, and by the cgroups in
/// any case.
async fn end_processes(
    node: &Arc<Node>,
    id: &PodId,
    record: &PodRecord,
    containers: Vec<String>,
    client: Option<Client>,
) -> Result<(), Error> {
    let client = match client {
        Some(client) => Some(client),
        None => find_monitor(node, id).await,
    };
    let shutdown = match client {
        Some(client) => shut_down(id, &client).await,
        None => Shutdown::Unresponsive,
    };
    let (node, id) = (Arc::clone(node), id.clone());
    let mut paths = cgroups(record, containers);
    // Whatever a record says, what goes by the pod's own name is the pod's.
    paths.push(node.driver.default_path(&id));
    let pod = record.cgroup.clone();
    let cleared = blocking(move || {
        if shutdown == Shutdown::Unresponsive && monitors::kill(&id) {
            tracing::warn!(pod_id = %id, "monitor that did not answer killed");
        }
        paths.iter().try_for_each(|path| clear_cgroup(&node.cgroups, path, &pod))?;
        // Nothing of the pod is left that it could wait for.
        if shutdown == Shutdown::InProgress && monitors::kill(&id) {
            tracing::warn!(pod_id = %id, "monitor that did not end with its pod killed");
        }
        Ok(())
    });
    cleared.await.map_err(|source| Error::ClearCgroup { source })
}

/// The cgroups of a pod that are ours to clear, inner ones first.
fn cgroups(record: &PodRecord, containers: Vec<String>) -> Vec<String> {
    let mut paths = containers;
    paths.push(format!("{}/{}", record.cgroup, record.id));
    if record.cgroup_is_ours {
        paths.push(record.cgroup.clone());
    }
    paths
}

/// The monitor's response to the end of its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    Done,
    /// It answers, but is not done yet.
    InProgress,
    /// It does not answer, or there is no connection.
    Unresponsive,
}

/// Has the monitor end its pod.
async fn shut_down(id: &PodId, client: &Client) -> Shutdown {
    if client.hangs() {
        return Shutdown::Unresponsive;
    }
    let request = client.command(Command::Shutdown, Vec::new());
    match tokio::time::timeout(waits::SHUTDOWN_MAX, request).await {
        Ok(Ok(())) => Shutdown::Done,
        // The cgroups have to do it.
        Ok(Err(err)) => {
            tracing::warn!(pod_id = %id, error = %err, "monitor did not shut its pod down");
            Shutdown::Unresponsive
        }
        Err(_) => {
            tracing::warn!(pod = %id, "monitor has not shut its pod down yet; clearing cgroups without it");
            match client.is_alive().await {
                Ok(()) => Shutdown::InProgress,
                Err(_) => Shutdown::Unresponsive,
            }
        }
    }
}

/// The monitor of a pod whose connection we do not have (any more).
async fn find_monitor(node: &Node, id: &PodId) -> Option<Client> {
    let (monitor_events, _nobody) = mpsc::channel(1);
    let socket = node.monitor_socket(id);
    // Bounded by what a monitor may take to answer.
    node.monitors.connect(&socket, monitor_events).await.ok().map(|(client, _)| client)
}
