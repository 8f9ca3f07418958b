// SPDX-License-Identifier: Apache-2.0
//! The present state of pods and containers, for their account: from snapshots and cgroups.

use crate::container::{ContainerSnapshot, State as ContainerState};
use crate::diagnostics::{frozen, links, running};
use crate::history::{Kind, Timeline};
use crate::node::Node;
use crate::observe::stats;
use crate::pod::{PodRecord, State};
use hull_cgroup::{Cgroup, Counters};
use hull_plan::{Certainty, Diagnosis, Layer};
use std::collections::BTreeMap;

/// The present state of one object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reading {
    /// In words, with the cause of a state that is not wanted.
    pub(super) state: String,
    /// A container that runs.
    pub(super) runs: bool,
    /// Working set, bytes.
    pub(super) memory_bytes: u64,
    pub(super) memory_limit_bytes: Option<u64>,
    /// The faults of a container that runs, the worst first, as in its status.
    pub(super) faults: Vec<Diagnosis>,
    /// Periods of the CPU quota, and those in which it was used up.
    pub(super) cpu_periods: u64,
    pub(super) cpu_throttled_periods: u64,
    /// Faults that it goes on with: frozen processes, a cut link.
    pub(super) warnings: Vec<Diagnosis>,
    /// Parts of its config that have no effect, in sentences.
    pub(super) remarks: Vec<String>,
    /// Why an image cannot be used, a clause.
    pub(super) fault: Option<String>,
}

/// The readings of those that are there, by id.
pub(super) fn of(node: &Node, timelines: &[Timeline]) -> BTreeMap<String, Reading> {
    let mut readings = BTreeMap::new();
    // Only the image that was asked for: those of a pod are judged by its containers.
    if let Some(own) = timelines.first().filter(|own| own.kind == Kind::Image) {
        readings.insert(own.id.clone(), of_image(node, own));
    }
    for view in node.registry.views() {
        if timelines.iter().any(|of| of.id == view.id.as_str()) {
            let state = match &view.record.state {
                State::Building => "being started",
                State::Ready { .. } => "ready",
                State::Stopping => "being stopped",
                State::Stopped => "stopped, so not ready",
            };
            let own = timelines.iter().find(|of| of.id == view.id.as_str());
            let state = format!("{state}{}", since(own.and_then(changed_ns)));
            let remarks = node.network.remarks(view.id.as_str());
            let warnings = of_pod(node, &view.record);
            let reading = Reading { state, remarks, warnings, ..Reading::default() };
            readings.insert(view.id.to_string(), reading);
        }
        for (id, container) in &view.containers {
            if timelines.iter().any(|of| of.id == id.as_str()) {
                let own = timelines.iter().find(|of| of.id == id.as_str());
                let name = own.map(Timeline::full_name).unwrap_or_default();
                readings.insert(id.to_string(), of_container(node, &view.record, container, &name));
            }
        }
    }
    readings
}

/// The faults of a pod that it goes on with.
fn of_pod(node: &Node, pod: &PodRecord) -> Vec<Diagnosis> {
    let cut = links::fault(node, pod).map(|(what, fix)| Diagnosis {
        kind: "link-cut".into(),
        layer: Layer::Namespace,
        what: what.to_owned(),
        cause: None,
        certainty: Certainty::Certain,
        evidence: Vec::new(),
        fix: Some(fix),
    });
    cut.into_iter().chain(frozen::pod(node, pod)).collect()
}

fn of_container(node: &Node, pod: &PodRecord, view: &ContainerSnapshot, name: &str) -> Reading {
    let record = &view.record;
    let state = match &record.state {
        ContainerState::Creating => "being created".into(),
        ContainerState::Created => "created, not started".into(),
        ContainerState::Running { pid, since_ns } => {
            format!("running as process {pid}{}", since(Some(*since_ns)))
        }
        ContainerState::Exited { at_ns, .. } => format!("exited{}", since(Some(*at_ns))),
        ContainerState::Removing => "being removed".into(),
    };
    let remarks = record.remarks.clone();
    let reading = Reading { state, remarks, ..Reading::default() };
    if !matches!(record.state, ContainerState::Running { .. }) {
        return reading;
    }
    // A cgroup that cannot be read has no numbers; the state is worth showing without them.
    let stats = stats::read(node, &record.cgroup).ok().flatten().unwrap_or_default();
    let counters = counters(node, &record.cgroup);
    Reading {
        runs: true,
        memory_bytes: stats.working_set_bytes,
        memory_limit_bytes: stats.memory_limit_bytes,
        faults: running::faults(node, pod, record, true),
        warnings: frozen::container(node, &record.cgroup, name).into_iter().collect(),
        cpu_periods: counters.cpu_periods.unwrap_or(0),
        cpu_throttled_periods: counters.cpu_throttled_periods.unwrap_or(0),
        ..reading
    }
}

/// The reading of an image.
fn of_image(node: &Node, own: &Timeline) -> Reading {
    let pulls = own.gone_ns.is_none() && !own.stages.is_empty();
    let (state, fault) = match node.images.find(&own.image).or_else(|| node.images.find(&own.id)) {
        Some(image) if node.images.is_whole(&image) => ("on this node", None),
        Some(_) => ("on this node", Some("a layer of it is broken")),
        None if pulls => ("not on this node", None),
        None => ("not on this node", Some("it is not on this node")),
    };
    let pulls = if pulls { "; it is being pulled" } else { "" };
    let fault = fault.map(str::to_owned);
    Reading { state: format!("{state}{pulls}"), fault, ..Reading::default() }
}

/// When the last verb of CRI on it ended.
fn changed_ns(of: &Timeline) -> Option<i64> {
    let verbs = of.stages.iter().filter(|stage| stage.part_of.is_empty());
    verbs.filter(|stage| stage.took_us.is_some()).map(|stage| stage.end_ns(0)).max()
}

/// The time, as an addition to a state; empty if it is not known.
fn since(at_ns: Option<i64>) -> String {
    let Some(at_ns) = at_ns.filter(|at_ns| *at_ns > 0) else { return String::new() };
    let text = hull_sys::time::rfc3339(at_ns);
    let text = String::from_utf8_lossy(text.get(..19).unwrap_or_default()).into_owned();
    format!(", since {text}Z")
}

/// The counters of a cgroup; all unknown if it cannot be read.
fn counters(node: &Node, cgroup: &str) -> Counters {
    let cgroup = Cgroup::at(&node.cgroups, cgroup);
    cgroup.and_then(|cgroup| cgroup.counters()).unwrap_or_default()
}
