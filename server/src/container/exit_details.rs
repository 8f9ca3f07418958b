// SPDX-License-Identifier: Apache-2.0
//! The circumstances of a container's exit: counters, whose memory limit was reached, denials.
//!
//! The container's cgroup exists until its removal, and the kernel's log is read up to its end first, so nothing
//! here depends on timing.

use crate::container::ContainerRecord;
use crate::container::state::{Event, ExitDetails, ExitReason, OutOfMemory, State};
use crate::node::Node;
use crate::pod::PodRecord;
use hull_plan::LastLines;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Exit, ExitHow};

/// The exit as an event of the container's machine, for the daemon that sees it and for one that recovers.
/// Reads the cgroup and the kernel's log.
pub(crate) fn event(
    node: &Node,
    pod: &PodRecord,
    id: &ContainerId,
    container: &ContainerRecord,
    exit: &Exit,
) -> Event {
    let running = &container.state;
    let pid = if let State::Running { pid, .. } = running { Some(*pid) } else { None };
    let details = ExitDetails {
        oom_kills: exit.oom_kills,
        memory_peak_bytes: exit.memory_peak_bytes,
        pids_refused: exit.pids_refused,
        stop_requested: container.stop_requested,
        out_of_memory: out_of_memory(node, pod, container, exit.oom_kills),
        denials: node.denials.of(id, pid),
        diagnosis: None,
        output: LastLines::default(),
    };
    let how = match exit.how {
        ExitHow::Code(code) => ExitReason::Code { code, details },
        ExitHow::Signal(signal) => ExitReason::Signal { signal, details },
    };
    Event::Exited { how, at_ns: exit.at_ns }
}

/// The cgroup whose memory limit was reached; `None` if nothing was killed, or if the kernel does not report it (v1).
fn out_of_memory(
    node: &Node,
    pod: &PodRecord,
    container: &ContainerRecord,
    kills: u64,
) -> Option<OutOfMemory> {
    if kills == 0 {
        return None;
    }
    let cgroup = hull_cgroup::Cgroup::at(&node.cgroups, &container.cgroup).ok()?;
    let reached = cgroup.out_of_memory().ok()?;
    Some(match reached {
        None => OutOfMemory::Node,
        Some(path) if path == container.cgroup => OutOfMemory::Container,
        Some(path)
            if path == pod.cgroup || Some(path.as_str()) == node.driver.parent_cgroup(pod) =>
        {
            OutOfMemory::Pod
        }
        Some(cgroup) => OutOfMemory::Above { cgroup },
    })
}
