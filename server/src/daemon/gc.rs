// SPDX-License-Identifier: Apache-2.0
//! Periodic cleanup of the pods' network: a removed pod whose attachment a network plugin refused to delete is
//! detached again, and plugins receive the list of pods (CNI GC), so that they delete what belongs to none.
//!
//! Once after the recovery, and then at an interval. While pods are being attached or detached plugins
//! must not be asked: then it is tried again a little later.

use crate::config::NetworkMode;
use crate::error::Chain;
use crate::node::Node;
use crate::storage::blocking;
use hull_network::cni::Collected;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info, warn};

/// How long is waited for a moment in which no pod is being attached.
const BUSY: Duration = Duration::from_secs(5);

/// How often is looked whether the daemon has grown.
const HEAP: Duration = Duration::from_secs(20);
/// By how much, in pages of what it was: what is free in the allocator's heaps is given back then.
const GROWN: f64 = 1.1;

/// Starts what goes on for as long as the daemon does.
pub(crate) fn start(node: &Arc<Node>) {
    tokio::spawn(release_free_memory(Arc::clone(node)));
    if node.config.network.mode != NetworkMode::Cni {
        return;
    }
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let interval = Duration::from_secs(node.config.network.cni.gc_interval_s);
        loop {
            detach_orphans(&node).await;
            let wait = if collect_garbage(&node).await { interval } else { BUSY };
            tokio::time::sleep(wait).await;
        }
    });
}

/// Drops events that had no reader for long, and returns free memory to the kernel if there may be enough of it.
/// Each check is one read of a small file.
async fn release_free_memory(node: Arc<Node>) {
    let mut least = f64::INFINITY;
    loop {
        tokio::time::sleep(HEAP).await;
        node.events.expire();
        let Some(now) = resident_pages() else { return };
        if now > least * GROWN || least.is_infinite() {
            let trimmed = blocking(hull_sys::heap::trim).await;
            let after = resident_pages().unwrap_or(now);
            debug!(before = now, after, trimmed, "free memory given back");
            least = after;
        } else {
            least = least.min(now);
        }
    }
}

/// Of the daemon: proc(5), /proc/pid/statm.
fn resident_pages() -> Option<f64> {
    std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()
}

/// Detaches pods that the registry does not have any more. (A pod is entered before it is attached.)
async fn detach_orphans(node: &Arc<Node>) {
    for id in node.network.attachments() {
        if node.registry.pod(&id).is_some() {
            continue;
        }
        let (shared, pod) = (Arc::clone(node), id.clone());
        match blocking(move || shared.network.detach(&pod)).await {
            Ok(()) => info!(pod = %id, "network of a pod that is gone taken away"),
            Err(err) => {
                warn!(pod = %id, error = %Chain(&err), "network of a pod that is gone not taken away")
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
