// SPDX-License-Identifier: Apache-2.0
//! Timelines after the recovery: of the pods and containers that it has found, from their records where the daemon
//! before did not write one.

use crate::node::Node;
use crate::pod::timeline;
use std::sync::Arc;

/// Goes on with the timelines of what the recovery has found, and writes them from now on.
pub(super) fn resume(node: &Arc<Node>) {
    let mut found = Vec::new();
    for view in node.registry.views() {
        let containers = view.containers.values();
        found.extend(containers.map(|of| timeline::of_container(&view.record, &of.record)));
        found.push(timeline::of_pod(&view.record));
    }
    node.history.resume(found);
    tokio::spawn(Arc::clone(&node.history).write_changes());
}
