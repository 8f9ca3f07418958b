// SPDX-License-Identifier: Apache-2.0
//! The feature gates that concern a container runtime, one by one: their specs, on a cluster or on one node, with the
//! gate where it is off by default.

use super::cluster;
use super::e2e;
use super::e2e_node;
use super::ginkgo::Run;
use super::layout::{Layout, Options};
use super::{page, programs};
use crate::shell::say;
use crate::suite::report::Report;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Longest run of the specs of one gate.
const GATE_MAX: Duration = Duration::from_secs(30 * 60);

/// Where the specs of a gate run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suite {
    /// e2e.test, on a cluster.
    Cluster,
    /// e2e_node.test, on one node.
    Node,
    /// None, because this host lacks something.
    No,
}

/// A gate, and the specs that try it.
#[derive(Debug, Clone, Copy)]
struct Gate {
    name: &'static str,
    /// `A=true` where it is off by default.
    set: &'static str,
    suite: Suite,
    focus: &'static str,
    skip: &'static str,
    /// A remark in the row of the table.
    note: &'static str,
}

const DEFAULT: Gate =
    Gate { name: "", set: "", suite: Suite::Cluster, focus: "", skip: "", note: "" };

/// Specs of pods' lives, for gates that change how the kubelet looks after all pods.
const LIVES: &str = r"\[sig-node\] (Container Lifecycle Hook|InitContainer|Probing container|Container Runtime blackbox|Pods should).*\[NodeConformance\]";
const SLOW: &str = r"\[Slow\]|back-off|\[Serial\]";

const GATES: [Gate; 18] = [
    Gate {
        name: "EventedPLEG",
        set: "EventedPLEG=true,PLEGOnDemandRelist=true",
        focus: LIVES,
        skip: SLOW,
        note: "no spec of its own: those of pods' lives",
        ..DEFAULT
    },
    Gate {
        name: "PodAndContainerStatsFromCRI",
        set: "PodAndContainerStatsFromCRI=true",
        suite: Suite::Node,
        focus: "Summary API|ContainerMetrics|ResourceMetrics",
        note: "no spec of its own that only needs a node: those of figures",
        ..DEFAULT
    },
    Gate {
        name: "CRIListStreaming",
        set: "CRIListStreaming=true",
        suite: Suite::Node,
        focus: r"\[Feature:CriProxy\].*\[FeatureGate:CRIListStreaming\]",
        ..DEFAULT
    },
    Gate {
        name: "CRIListStreaming",
        set: "CRIListStreaming=true",
        focus: LIVES,
        skip: SLOW,
        note: "every list of the kubelet is a stream",
        ..DEFAULT
    },
    Gate {
        name: "InPlacePodVerticalScaling",
        focus: r"Pod InPlace Resize.*\[FeatureGate:InPlacePodVerticalScaling\]",
        skip: "PLR|deferred|OffByDefault",
        ..DEFAULT
    },
    Gate {
        name: "InPlacePodVerticalScalingMemoryBackedVolumes",
        set: "InPlacePodVerticalScalingMemoryBackedVolumes=true",
        focus: r"\[FeatureGate:InPlacePodVerticalScalingMemoryBackedVolumes\]",
        ..DEFAULT
    },
    Gate {
        name: "PodLevelResources",
        focus: r"\[sig-node\].*\[FeatureGate:PodLevelResources\]",
        skip: "InPlacePodVerticalScaling|InPlacePodLevelResources|DRA",
        ..DEFAULT
    },
    Gate { name: "UserNamespacesSupport", focus: r"\[Feature:UserNamespacesSupport\]", ..DEFAULT },
    Gate {
        name: "ProcMountType",
        suite: Suite::Node,
        focus: r"\[Feature:ProcMountType\]|DefaultProcMount",
        ..DEFAULT
    },
    Gate { name: "ImageVolume", suite: Suite::Node, focus: r"\[sig-node\] ImageVolume", ..DEFAULT },
    Gate {
        name: "RecursiveReadOnlyMounts",
        suite: Suite::Node,
        focus: "Mount recursive read-only",
        note: "the kernel of the node decides which of them are skipped",
        ..DEFAULT
    },
    Gate {
        name: "SupplementalGroupsPolicy",
        focus: r"\[Feature:SupplementalGroupsPolicy\]",
        ..DEFAULT
    },
    Gate {
        name: "ContainerStopSignals",
        set: "ContainerStopSignals=true",
        focus: r"\[Feature:ContainerStopSignals\]",
        ..DEFAULT
    },
    Gate {
        name: "KubeletInUserNamespace",
        suite: Suite::No,
        note: "its spec asks a kubelet in a user namespace, which needs a rootless Hull",
        ..DEFAULT
    },
    Gate {
        name: "NodeSwap",
        suite: Suite::No,
        note: "the machines of a cluster have no swap of their own; `make e2e-vm` tries it on cgroup v2",
        ..DEFAULT
    },
    Gate {
        name: "DynamicResourceAllocation",
        suite: Suite::Node,
        focus: r"\[sig-node\].*\[Feature:DynamicResourceAllocation\]",
        skip: r"OffByDefault|\[Slow\]",
        note: "with CDI; a driver that is part of the suite",
        ..DEFAULT
    },
    Gate {
        name: "DynamicResourceAllocation",
        focus: r"\[DRA\].*\[Conformance\]",
        note: "of the API; the other specs on a cluster want the image hostpathplugin, which has no Go module",
        ..DEFAULT
    },
    Gate {
        name: "KubeletPSI",
        suite: Suite::Node,
        focus: r"\[FeatureGate:KubeletPSI\]",
        note: "needs cgroup v2",
        ..DEFAULT
    },
];

/// Tries the gates whose names contain `only`, and writes the table into the page `file`. Whether nothing failed that is
/// not on the list of the cluster's specs.
#[must_use]
pub fn run(only: &str, processes: u8, file: Option<&Path>) -> bool {
    let mut rows: Vec<(Gate, Option<Report>)> = Vec::new();
    let chosen: Vec<Gate> = GATES.into_iter().filter(|gate| gate.name.contains(only)).collect();
    assert!(!chosen.is_empty(), "no gate is called {only:?}");
    let mut sets: Vec<(Suite, &str)> = chosen.iter().map(|gate| (gate.suite, gate.set)).collect();
    sets.dedup();
    let mut done: Vec<(Suite, &str)> = Vec::new();
    for set in sets {
        if done.contains(&set) {
            continue;
        }
        done.push(set);
        let of: Vec<Gate> =
            chosen.iter().copied().filter(|gate| (gate.suite, gate.set) == set).collect();
        rows.extend(run_set(set, &of, processes));
    }
    let order = |gate: &Gate| GATES.iter().position(|of| of.name == gate.name);
    rows.sort_by_key(|(gate, _)| order(gate));
    let text = table(&rows);
    say(&text);
    if let Some(file) = file {
        page::replace(file, "Feature gates", &text);
    }
    let failed = |(gate, report): &(Gate, Option<Report>)| {
        report.as_ref().is_some_and(|report| !unexpected(gate.suite, report).is_empty())
    };
    !rows.iter().any(failed)
}

/// Runs the gates of one cluster or node.
fn run_set(
    (suite, set): (Suite, &str),
    gates: &[Gate],
    processes: u8,
) -> Vec<(Gate, Option<Report>)> {
    let nodes = if suite == Suite::Cluster { 2 } else { 1 };
    let layout = Layout::new(Options { nodes, gates: set.into(), ..Options::default() });
    let one = |gate: &Gate, run: &dyn Fn(&Run) -> Report| {
        say(&format!("{}: {}", gate.name, gate.focus));
        let report = run(&Run {
            focus: gate.focus.into(),
            skip: gate.skip.into(),
            files: String::new(),
            processes,
            timeout: GATE_MAX,
        });
        say(&others(gate.suite, &report));
        (*gate, Some(report))
    };
    let rows = match suite {
        Suite::No => return gates.iter().map(|gate| (*gate, None)).collect(),
        Suite::Cluster => {
            let hub = cluster::up(&layout);
            gates.iter().map(|gate| one(gate, &|run| e2e::run(&hub, &layout, run).report)).collect()
        }
        Suite::Node => {
            let node = cluster::up_node(&layout);
            gates
                .iter()
                .map(|gate| one(gate, &|run| e2e_node::run(&node, &layout, run, set)))
                .collect()
        }
    };
    cluster::down();
    rows
}

/// The specs of a suite that did not pass, with reasons.
fn others(suite: Suite, report: &Report) -> String {
    match suite {
        Suite::Node => e2e_node::others(report),
        Suite::Cluster | Suite::No => e2e::others(report),
    }
}

/// The specs of a suite that failed without a reason that is known.
fn unexpected(suite: Suite, report: &Report) -> Vec<String> {
    match suite {
        Suite::Node => e2e_node::unexpected(report),
        Suite::Cluster | Suite::No => e2e::unexpected(report),
    }
}

fn table(rows: &[(Gate, Option<Report>)]) -> String {
    let version = programs::version(&programs::built(&["kubelet"]));
    let mut text = format!(
        "`make e2e-gates` on {}, with Kubernetes {version}. The suite is e2e.test on a cluster, or e2e_node.test on one \
         node.\n\n| Gate | Set | Suite | Specs | Passed | Failed | Skipped | |\n|---|---|---|---|---|---|---|---|\n",
        page::today()
    );
    for (gate, report) in rows {
        let suite = match gate.suite {
            Suite::Cluster => "cluster",
            Suite::Node => "node",
            Suite::No => "-",
        };
        let set = if gate.set.is_empty() { "by default" } else { gate.set };
        let counts = report.as_ref().map_or("- | - | - | -".to_owned(), |report| {
            let (passed, failed, skipped) = report.counts();
            format!("{} | {passed} | {failed} | {skipped}", report.specs.len())
        });
        let note = gate.note;
        let _infallible = writeln!(text, "| {} | {set} | {suite} | {counts} | {note} |", gate.name);
    }
    text.push_str("\n### Specs of gates that did not pass\n\n");
    let others: String = rows
        .iter()
        .filter_map(|(gate, report)| report.as_ref().map(|report| others(gate.suite, report)))
        .filter(|text| text != "None.\n")
        .collect();
    text.push_str(if others.is_empty() { "None.\n" } else { &others });
    text
}
