// SPDX-License-Identifier: Apache-2.0
//! Faults of a container that runs: processes that the out-of-memory killer took, a full writable layer, and zombies. Read when its
//! status is asked for.

use super::ends::{memory, resources};
use crate::container::state::{ExitDetails, State};
use crate::container::{ContainerRecord, exit_details};
use crate::node::Node;
use crate::pod::PodRecord;
use hull_cgroup::Cgroup;
use hull_plan::{Certainty, Diagnosis, Layer};
use std::fs;

/// Children of a first process that are looked at.
const CHILDREN_MAX: usize = 1024;
/// Fewer zombies are normal: each ended process is one until its parent has waited for it.
const ZOMBIES_MIN: usize = 3;

/// The faults of a running container, the worst first. Reads the kernel's files: for zombies, only if the status is
/// `verbose`, one for each child of its first process.
pub(crate) fn faults(
    node: &Node,
    pod: &PodRecord,
    record: &ContainerRecord,
    verbose: bool,
) -> Vec<Diagnosis> {
    if !matches!(record.state, State::Running { .. }) {
        return Vec::new();
    }
    let killed = killed(node, pod, record);
    let zombies = if verbose { zombies(record) } else { None };
    killed.into_iter().chain(full_layer(node, record)).chain(zombies).collect()
}

/// A writable layer that has reached its limit.
fn full_layer(node: &Node, record: &ContainerRecord) -> Option<Diagnosis> {
    let full = exit_details::full_layer(node, record)?;
    Some(resources::full_layer("it can write nothing more".to_owned(), full))
}

/// Processes of the container that were killed for memory, while its first process lives.
fn killed(node: &Node, pod: &PodRecord, record: &ContainerRecord) -> Option<Diagnosis> {
    let cgroup = Cgroup::at(&node.cgroups, &record.cgroup).ok()?;
    let counters = cgroup.exit_counters().ok().filter(|counters| counters.oom_kills > 0)?;
    let reached = exit_details::reached(node, record, counters.oom_kills);
    let details = ExitDetails {
        oom_kills: counters.oom_kills,
        memory_peak_bytes: counters.memory_peak_bytes,
        reached_limit_bytes: reached.as_ref().and_then(|of| of.as_ref()?.limit_bytes),
        reached_peak_bytes: reached.as_ref().and_then(|of| of.as_ref()?.peak_bytes),
        out_of_memory: reached.map(|of| exit_details::out_of_memory(node, pod, record, of)),
        ..ExitDetails::default()
    };
    let limit = record.resources().map_or(0, |resources| resources.memory_limit_in_bytes);
    Some(memory::diagnosis(&details, u64::try_from(limit).unwrap_or(0), false))
}

/// Zombies that the first process does not wait for.
pub(super) fn zombies(record: &ContainerRecord) -> Option<Diagnosis> {
    let State::Running { pid, .. } = record.state else { return None };
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let children = children.split_ascii_whitespace().take(CHILDREN_MAX);
    let is_zombie = |child: &&str| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        is_zombie(&stat)
    };
    let count = children.filter(is_zombie).count();
    (count >= ZOMBIES_MIN).then(|| of_zombies(count))
}

/// By `proc_pid_stat(5)`: the state follows the name, which is in parentheses and may contain any character.
fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

pub(super) fn of_zombies(count: usize) -> Diagnosis {
    Diagnosis {
        kind: "zombies".into(),
        layer: Layer::Process,
        what: format!("{count} zombie processes: its first process (PID 1) does not wait for children that have ended"),
        cause: None,
        certainty: Certainty::Certain,
        evidence: vec!["each counts against the pod's pids limit".into()],
        fix: Some(
            "set the pod's annotation `hull.run/init: \"true\"` (`hull run --init`), so that an init of Hull's reaps; or start \
             the program by one (tini, dumb-init), or set `shareProcessNamespace: true`: the pod's pause process reaps then"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_are_known_by_their_state() {
        assert!(is_zombie("7 (a) Z b) Z 1 1"));
        assert!(!is_zombie("7 (a) Z b) S 1 1") && !is_zombie(""));
        let text = of_zombies(12).to_string();
        assert!(
            text.starts_with("12 zombie processes")
                && text.contains("hull.run/init")
                && text.contains("tini"),
            "{text}"
        );
    }
}
