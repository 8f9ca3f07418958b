// SPDX-License-Identifier: Apache-2.0
//! The circumstances of a container's exit: counters, whose memory limit was reached, denials.
//!
//! The container's cgroup exists until its removal, and the kernel's log is read up to its end first, so nothing
//! here depends on timing.

use crate::container::ContainerRecord;
use crate::container::state::{Event, ExitDetails, ExitReason, FullLayer, OutOfMemory, State};
use crate::diagnostics::ends;
use crate::node::Node;
use crate::pod::PodRecord;
use crate::storage::blocking;
use hull_cgroup::ReachedLimit;
use hull_plan::LastLines;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Exit, ExitHow, LastOutput};
use std::sync::Arc;

/// The exit as an event of the container's machine, for the daemon that sees it and for one that recovers.
/// Reads the cgroup and the kernel's log, and for a failure what explains it.
pub(crate) async fn event(
    node: &Arc<Node>,
    pod: &Arc<PodRecord>,
    id: &ContainerId,
    container: &Arc<ContainerRecord>,
    exit: Exit,
    output: Option<LastOutput>,
) -> Event {
    let how = {
        let (node, pod, id, container) =
            (Arc::clone(node), Arc::clone(pod), id.clone(), Arc::clone(container));
        blocking(move || reason(&node, &pod, &id, &container, &exit)).await
    };
    let started_ns = match container.state {
        State::Running { since_ns, .. } => Some(since_ns),
        State::Creating | State::Created | State::Exited { .. } | State::Removing => None,
    };
    let ended = ends::Ended { node, pod, record: container, started_ns, at_ns: exit.at_ns, output };
    Event::Exited { how: ends::explain(ended, how).await, at_ns: exit.at_ns }
}

/// How metrics count a container that ended with its monitor.
pub(crate) const UNSEEN: &str = "unknown";

/// How metrics count an exit.
pub(crate) const fn kind(how: ExitHow) -> &'static str {
    match how {
        ExitHow::Code(0) => "success",
        ExitHow::Code(_) => "error",
        ExitHow::Signal(_) => "signal",
    }
}

fn reason(
    node: &Node,
    pod: &PodRecord,
    id: &ContainerId,
    container: &ContainerRecord,
    exit: &Exit,
) -> ExitReason {
    let running = &container.state;
    let pid = if let State::Running { pid, .. } = running { Some(*pid) } else { None };
    let reached = reached(node, container, exit.oom_kills);
    let details = ExitDetails {
        oom_kills: exit.oom_kills,
        memory_peak_bytes: exit.memory_peak_bytes,
        pids_refused: exit.pids_refused,
        stop_requested: container.stop_requested,
        reached_limit_bytes: reached.as_ref().and_then(|of| of.as_ref()?.limit_bytes),
        reached_peak_bytes: reached.as_ref().and_then(|of| of.as_ref()?.peak_bytes),
        out_of_memory: reached.map(|of| out_of_memory(node, pod, container, of)),
        full_layer: full_layer(node, container).map(Box::new),
        denials: node.denials.of(id, pid).into(),
        diagnosis: None,
        output: LastLines::default(),
    };
    match exit.how {
        ExitHow::Code(code) => ExitReason::Code { code, details },
        ExitHow::Signal(signal) => ExitReason::Signal { signal, details },
    }
}

/// The writable layer of a container and its limit, if it has reached that.
pub(crate) fn full_layer(node: &Node, container: &ContainerRecord) -> Option<FullLayer> {
    let full = node.images.rootfs_quota(&container.id).filter(|of| of.is_full())?;
    Some(FullLayer { used_bytes: full.used_bytes, limit_bytes: full.limit_bytes })
}

/// The limit that was reached, `Some(None)` for the node's memory; `None` if nothing was killed, or if the kernel does
/// not report it.
pub(crate) fn reached(
    node: &Node,
    container: &ContainerRecord,
    kills: u64,
) -> Option<Option<ReachedLimit>> {
    if kills == 0 {
        return None;
    }
    let cgroup = hull_cgroup::Cgroup::at(&node.cgroups, &container.cgroup).ok()?;
    cgroup.out_of_memory().ok()
}

/// The owner of the limit: the container, its pod, a cgroup above, or the node.
pub(crate) fn out_of_memory(
    node: &Node,
    pod: &PodRecord,
    container: &ContainerRecord,
    reached: Option<ReachedLimit>,
) -> OutOfMemory {
    match reached.map(|of| of.cgroup) {
        None => OutOfMemory::Node,
        Some(path) if path == container.cgroup => OutOfMemory::Container,
        Some(path)
            if path == pod.cgroup || Some(path.as_str()) == node.driver.parent_cgroup(pod) =>
        {
            OutOfMemory::Pod
        }
        Some(cgroup) => OutOfMemory::Above { cgroup },
    }
}
