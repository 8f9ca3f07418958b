// SPDX-License-Identifier: Apache-2.0
//! Periodic cleanup of the pods' network: what only pods needed that are gone is removed from the bridge, a removed
//! pod whose attachment a network plugin refused to delete is detached again, and plugins receive the list of pods
//! (CNI GC), so that they delete what belongs to none.
//!
//! Once after the recovery, and then at an interval. While pods are being attached or detached plugins
//! must not be asked: then it is tried again a little later.

use crate::error::Chain;
use crate::node::Node;
use crate::storage::blocking;
use hull_network::cni::Collected;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// How long is waited for a moment in which no pod is being attached.
const BUSY: Duration = Duration::from_secs(5);

/// How often the daemon looks for free memory in its heaps.
const HEAP: Duration = Duration::from_secs(20);
/// Free memory that is not worth giving back, in bytes.
const WASTE_MAX: u64 = 256 << 10;

/// Starts what goes on for as long as the daemon does.
pub(crate) fn start(node: &Arc<Node>) {
    tokio::spawn(release_free_memory(Arc::clone(node)));
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

/// Drops events that had no reader for long, and returns free memory to the kernel when there is more of it than the
/// last time left behind.
async fn release_free_memory(node: Arc<Node>) {
    // Pages that are in use only in part, stacks of threads, and what the allocator needs for itself.
    let mut kept = 0;
    loop {
        tokio::time::sleep(HEAP).await;
        node.events.expire();
        let Some(before) = wasted_bytes() else { return };
        if before > kept + WASTE_MAX {
            let trimmed = blocking(hull_sys::heap::trim).await;
            kept = wasted_bytes().unwrap_or(before);
            let allocated = hull_sys::heap::allocated();
            debug!(before, after = kept, allocated, trimmed, "free memory given back");
        } else {
            kept = kept.min(before);
        }
    }
}

/// Memory of the daemon that no file backs and that is not allocated, in bytes. What is in use grows and shrinks
/// without being waste, so the size of the process alone says nothing.
fn wasted_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let anonymous = anonymous_bytes(&status)?;
    Some(anonymous.saturating_sub(hull_sys::heap::allocated()? as u64))
}

/// `RssAnon` of a `/proc/<pid>/status`, in bytes (proc_pid_status(5)).
fn anonymous_bytes(status: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Detaches pods that the registry does not have any more. (A pod is entered before it is attached.)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_without_a_file_is_read_from_a_status_as_the_kernel_writes_it() {
        let status = "VmRSS:\t    4000 kB\nRssAnon:\t     132 kB\nRssFile:\t    3868 kB\n";
        assert_eq!(anonymous_bytes(status), Some(132 << 10));
        for odd in ["", "RssAnon:\n", "RssAnon:\t132\n", "RssAnon:\t18446744073709551615 kB\n"] {
            assert_eq!(anonymous_bytes(odd), None, "{odd:?}");
        }
        assert!(wasted_bytes().is_some());
    }
}
