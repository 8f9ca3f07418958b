// SPDX-License-Identifier: Apache-2.0
//! Plugins and our pods: what plugins are told of them, what they ask for put into effect.
//!
//! The rules: a verb holds the roster that it began with until what it did can be seen; what plugins
//! want in a container that is being made is kept in its record, so that its spec can always be worked
//! out again; and nothing of that is dropped: it is done, or the verb fails and says what cannot be.
//!
//! Which plugins there are and how they are spoken to is `hull-nri`'s.

mod adjust;
mod check;
mod error;
pub(crate) mod resources;
pub(crate) mod verbs;
mod view;

pub(crate) use adjust::{cgroup, spec as adjusted_spec};
pub(crate) use error::Error;
pub(crate) use verbs::Adjusted;

use crate::config::Config;
use crate::error::Chain;
use crate::node::Node;
use crate::pod::Command;
use crate::storage::blocking;
use hull_nri::{Ask, Host, Settings, Times};
use hull_proto::nri::{ContainerEviction, ContainerUpdate};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{info, warn};

/// How long an evicted container has between its stop signal and SIGKILL. Nobody says how long; this is
/// what `docker stop` gives.
const EVICTION_GRACE_S: u64 = 10;

/// Starts plugins and serves what they ask for.
pub(crate) fn start(node: &Arc<Node>, host: Host) {
    let Some(settings) = settings(&node.config) else { return };
    let asks = host.start(settings);
    tokio::spawn(serve(Arc::clone(node), asks));
}

fn settings(config: &Config) -> Option<Settings> {
    let nri = &config.nri;
    nri.enable.then(|| Settings {
        socket: (!nri.disable_connections).then(|| nri.socket.clone()),
        plugin_path: nri.plugin_path.clone(),
        config_path: nri.plugin_config_path.clone(),
        times: Times {
            registration: Duration::from_millis(nri.registration_timeout_ms),
            request: Duration::from_millis(nri.request_timeout_ms),
        },
        version: env!("CARGO_PKG_VERSION").into(),
    })
}

async fn serve(node: Arc<Node>, mut asks: mpsc::Receiver<Ask>) {
    while let Some(ask) = asks.recv().await {
        let node = Arc::clone(&node);
        match ask {
            // A plugin that is gone by then needs no answer.
            Ask::State { reply } => {
                tokio::spawn(async move {
                    let _gone = reply.send(blocking(move || view::state(&node)).await);
                });
            }
            Ask::Update { plugin, updates, reply } => {
                tokio::spawn(async move {
                    let failed = update(&node, &plugin, updates).await;
                    let _gone = reply.send(failed.into_iter().map(|of| of.update).collect());
                });
            }
            Ask::Evict { plugin, evictions } => evict(&node, &plugin, evictions),
        }
    }
}

/// Limits that a container could not be given, and why.
struct Failed {
    update: ContainerUpdate,
    why: String,
}

/// Sets other limits for containers. Those that could not be had come back.
async fn update(node: &Node, plugin: &str, updates: Vec<ContainerUpdate>) -> Vec<Failed> {
    let mut failed = Vec::new();
    for update in updates {
        if let Err(why) = update_one(node, &update).await {
            let container = &update.container_id;
            warn!(plugin, %container, why, ignored = update.ignore_failure,
                "container not given the limits that a plugin asks for");
            failed.push(Failed { update, why });
        }
    }
    failed
}

async fn update_one(node: &Node, update: &ContainerUpdate) -> Result<(), String> {
    let asked = update.linux.as_ref().and_then(|linux| linux.resources.clone());
    let Some(resources) = asked else { return Ok(()) };
    // Whole ids only: a plugin has them from us.
    let found = node.registry.container(&update.container_id);
    let found = found.filter(|(id, _)| id.as_str() == update.container_id);
    let Some((id, pod)) = found else { return Err("there is no such container".into()) };
    let resources = Box::new(resources);
    let done = pod.request(|reply| Command::Limit { id, resources, reply }).await;
    done.map_err(|err| Chain(&*err).to_string())
}

/// Ends containers, each on its own: nobody waits for that.
fn evict(node: &Node, plugin: &str, evictions: Vec<ContainerEviction>) {
    for ContainerEviction { container_id, reason } in evictions {
        let found = node.registry.container(&container_id);
        let Some((id, pod)) = found.filter(|(id, _)| id.as_str() == container_id) else {
            warn!(plugin, container = %container_id.escape_default(), "plugin evicts a container that is not there");
            continue;
        };
        info!(plugin, container = %id.short(), reason, "evicting a container as a plugin asks");
        tokio::spawn(async move {
            let grace_s = EVICTION_GRACE_S;
            let stopped =
                pod.request(|reply| Command::Stop { id: id.clone(), grace_s, reply }).await;
            if let Err(err) = stopped {
                warn!(container = %id.short(), error = %Chain(&*err), "container not evicted");
            }
        });
    }
}
