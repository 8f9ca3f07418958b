// SPDX-License-Identifier: Apache-2.0
//! Writes to the log what the daemon is at: calls, operations with their stages and ages, and the tasks of pods. For
//! a daemon that seems to hang; it takes no lock that is held over work.

use super::call_log::CallLog;
use crate::history::{Stage, Timeline};
use crate::node::{Node, now_ns};
use tracing::info;

/// Writes everything, a line for each.
pub(super) fn dump(node: &Node, calls: &CallLog) {
    let (calls, views) = (calls.under_way(), node.registry.views());
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    info!(calls = calls.len(), pods = views.len(), tasks, "what the daemon is at, as requested");
    for (verb, age) in calls {
        info!(verb, age_ms = age.as_millis(), "call under way");
    }
    for timeline in node.history.all_present() {
        dump_operations(&timeline, now_ns());
    }
    for view in views {
        let containers = view.containers.len();
        info!(pod = view.record.full_name(), pod_id = %view.id.short(), state = view.record.state.name(), containers, "task of a pod");
    }
}

/// The operations of one object that are under way, each with its stages.
fn dump_operations(timeline: &Timeline, now_ns: i64) {
    let Timeline { namespace, pod_name, name, image, stages, .. } = timeline;
    let open = || stages.iter().filter(|stage| stage.took_us.is_none());
    let age_ms = |stage: &Stage| now_ns.saturating_sub(stage.began_ns) / 1_000_000;
    for operation in open().filter(|stage| stage.part_of.is_empty()) {
        let parts = open().filter(|stage| stage.part_of == operation.name);
        let parts = parts.map(|stage| format!("{} for {} ms", stage.name, age_ms(stage)));
        info!(
            pod = format!("{namespace}/{pod_name}"), container = name, image,
            operation = %operation.name, age_ms = age_ms(operation),
            stage = parts.collect::<Vec<_>>().join(", "), "operation under way"
        );
    }
}
