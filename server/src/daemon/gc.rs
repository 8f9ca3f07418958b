// SPDX-License-Identifier: Apache-2.0
//! Periodic cleanup of the pods' network: what only pods needed that are gone is removed from the bridge, a removed
//! pod whose attachment a network plugin refused to delete is detached again, and plugins receive the list of pods
//! (CNI GC), so that they delete what belongs to none.
//!
//! Once after the recovery, and then at an interval. While pods are being attached or detached plugins
//! must not be asked: then it is tried again a little later.

use super::free_memory;
use crate::error::Chain;
use crate::node::Node;
use crate::storage::blocking;
use hull_network::cni::Collected;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// How long is waited for a moment in which no pod is being attached.
const BUSY: Duration = Duration::from_secs(5);

/// Starts what goes on for as long as the daemon does.
pub(crate) fn start(node: &Arc<Node>) {
    tokio::spawn(free_memory::release(Arc::clone(node)));
    let node = Arc::clone(node);
    tokio::spawn(async move {
        loop {
            let shared = Arc::clone(&node);
            blocking(move || shared.network.maintain()).await;
            detach_orphans(&node).await;
            if collect_garbage(&node).await {
                wait_interval(&node).await;
            } else {
                tokio::time::sleep(BUSY).await;
            }
        }
    });
}

/// Waits until the interval is over. One that is changed meanwhile counts from the same moment.
async fn wait_interval(node: &Node) {
    let began = Instant::now();
    loop {
        let interval = Duration::from_secs(node.config.current().network.cni.gc_interval_s);
        tokio::select! {
            () = tokio::time::sleep(interval.saturating_sub(began.elapsed())) => return,
            () = node.reconfigured.notified() => {}
        }
    }
}

async fn detach_orphans(node: &Arc<Node>) {
    for id in node.network.attachments_by_plugins() {
        if node.registry.pod(&id).is_some() {
            continue;
        }
        let (shared, pod) = (Arc::clone(node), id.clone());
        match blocking(move || shared.network.detach(&pod)).await {
            Ok(()) => info!(pod_id = %id, "network of a pod that is gone taken away"),
            Err(err) => {
                warn!(pod_id = %id, error = %Chain(&err), "network of a pod that is gone not taken away")
            }
        }
    }
}

/// Has plugins collect their garbage. Returns `false` if pods are being attached or detached, so it must be
/// repeated later.
async fn collect_garbage(node: &Arc<Node>) -> bool {
    let shared = Arc::clone(node);
    match blocking(move || shared.network.collect_garbage()).await {
        Ok(Collected::Busy) => return false,
        Ok(Collected::Done(failed)) => {
            for err in &failed {
                warn!(error = %Chain(err), "network plugin did not collect its garbage");
            }
            debug!(failed = failed.len(), "network plugins have the list of pods");
        }
        // The condition NetworkReady reports it.
        Err(err) => {
            info!(error = %Chain(&err), "no network plugins that take the list of pods")
        }
    }
    true
}
