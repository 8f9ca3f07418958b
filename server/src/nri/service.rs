// SPDX-License-Identifier: Apache-2.0
//! Starts plugins and serves their own requests: snapshots of the node, new limits and evictions.

use super::messages;
use crate::error::Chain;
use crate::node::Node;
use crate::pod::Command;
use crate::storage::blocking;
use hull_nri::{Host, PluginRequest, Settings};
use hull_proto::nri::{ContainerEviction, ContainerUpdate};
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::{info, warn};

/// Seconds between the stop signal and SIGKILL of an evicted container. The interface does not define a time; this
/// is the default of `docker stop`.
const EVICTION_GRACE_S: u64 = 10;

/// Starts plugins and serves their requests.
pub(crate) fn start(node: &Arc<Node>, host: Host) {
    let Some(settings) = settings(node) else { return };
    let requests = host.start(settings);
    tokio::spawn(serve(Arc::clone(node), requests));
}

fn settings(node: &Node) -> Option<Settings> {
    let config = node.config.current();
    let nri = &config.nri;
    nri.enable.then(|| Settings {
        socket: (!nri.disable_connections).then(|| nri.socket.clone()),
        plugin_path: nri.plugin_path.clone(),
        config_path: nri.plugin_config_path.clone(),
        timeouts: node.plugin_timeouts.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
    })
}

async fn serve(node: Arc<Node>, mut requests: mpsc::Receiver<PluginRequest>) {
    while let Some(request) = requests.recv().await {
        let node = Arc::clone(&node);
        match request {
            // The plugin may be disconnected by the time of the answer.
            PluginRequest::State { reply } => {
                tokio::spawn(async move {
                    let _gone = reply.send(blocking(move || messages::state(&node)).await);
                });
            }
            PluginRequest::Update { plugin, updates, reply } => {
                tokio::spawn(async move {
                    let failed = update(&node, &plugin, updates).await;
                    let _gone = reply.send(failed.into_iter().map(|of| of.update).collect());
                });
            }
            PluginRequest::Evict { plugin, evictions } => evict(&node, &plugin, evictions),
        }
    }
}

/// An update of a container's limits that failed, with the reason.
pub(super) struct FailedUpdate {
    pub(super) update: ContainerUpdate,
    pub(super) why: String,
}

/// Sets the limits of containers. Returns the updates that failed.
pub(super) async fn update(
    node: &Node,
    plugin: &str,
    updates: Vec<ContainerUpdate>,
) -> Vec<FailedUpdate> {
    let mut failed = Vec::new();
    for update in updates {
        if let Err(why) = update_one(node, &update).await {
            let container = &update.container_id;
            warn!(plugin, %container, why, ignored = update.ignore_failure,
                "limits of a plugin not applied to the container");
            failed.push(FailedUpdate { update, why });
        }
    }
    failed
}

async fn update_one(node: &Node, update: &ContainerUpdate) -> Result<(), String> {
    let resources = update.linux.as_ref().and_then(|linux| linux.resources.clone());
    let Some(resources) = resources else { return Ok(()) };
    // Full ids only: plugins get them from the daemon.
    let found = node.registry.container(&update.container_id);
    let found = found.filter(|(id, _)| id.as_str() == update.container_id);
    let Some((id, pod)) = found else { return Err("there is no such container".into()) };
    let resources = Box::new(resources);
    let done = pod.request(|reply| Command::Limit { id, resources, reply }).await;
    done.map_err(|err| Chain(&*err).to_string())
}

/// Stops containers in the background, each on its own.
pub(super) fn evict(node: &Node, plugin: &str, evictions: Vec<ContainerEviction>) {
    for ContainerEviction { container_id, reason } in evictions {
        let found = node.registry.container(&container_id);
        let Some((id, pod)) = found.filter(|(id, _)| id.as_str() == container_id) else {
            warn!(plugin, container = %container_id.escape_default(), "plugin evicts a container that does not exist");
            continue;
        };
        let view = pod.view();
        let (of_pod, name) =
            (view.record.full_name(), view.containers.get(&id).map(|of| of.record.metadata().0));
        info!(plugin, pod = of_pod, container = name, container_id = %id.short(), reason, "evicting a container for a plugin");
        drop(view);
        let metrics = Arc::clone(&node.metrics);
        tokio::spawn(async move {
            let grace_s = EVICTION_GRACE_S;
            let stopped =
                pod.request(|reply| Command::Stop { id: id.clone(), grace_s, reply }).await;
            match stopped {
                Ok(()) => metrics.evictions.count(&[]),
                Err(err) => {
                    warn!(pod = of_pod, container_id = %id.short(), error = %Chain(&*err), "container not evicted");
                }
            }
        });
    }
}
