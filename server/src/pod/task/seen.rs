// SPDX-License-Identifier: Apache-2.0
//! What was seen when a container ended: counters, whose memory ran out, what was denied to it.
//!
//! Its cgroup is there until the monitor is told to forget the container, and the kernel's log is read
//! on first; so nothing here depends on who is quicker.

use crate::container::ContainerRecord;
use crate::container::state::{OutOfMemory, Seen, State};
use crate::node::Node;
use crate::pod::PodRecord;
use hull_proto::id::ContainerId;
use hull_proto::monitor::Exit;

/// Gathers it.
pub(super) fn of(
    node: &Node,
    pod: &PodRecord,
    id: &ContainerId,
    container: &ContainerRecord,
    exit: &Exit,
    stop_asked: bool,
) -> Seen {
    let running = &container.state;
    let pid = if let State::Running { pid, .. } = running { Some(*pid) } else { None };
    Seen {
        oom_kills: exit.oom_kills,
        memory_peak_bytes: exit.memory_peak_bytes,
        pids_refused: exit.pids_refused,
        stop_asked,
        out_of_memory: out_of_memory(node, pod, container, exit.oom_kills),
        denials: node.denials.of(id, pid),
    }
}

/// Whose limit was reached; `None` where nothing was killed for it, or the kernel does not tell (v1).
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
        Some(path) if path == pod.cgroup || Some(path.as_str()) == node.driver.above(pod) => {
            OutOfMemory::Pod
        }
        Some(cgroup) => OutOfMemory::Above { cgroup },
    })
}
