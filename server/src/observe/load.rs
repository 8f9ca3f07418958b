// SPDX-License-Identifier: Apache-2.0
//! The load of this node's containers, for `hull top`: counters, of which a client takes the difference.

use super::stats;
use crate::container::State;
use crate::history::Kind;
use crate::node::{Node, now_ns};
use hull_cgroup::{Cgroup, Psi};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One reading. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Load {
    pub(crate) at_ns: i64,
    pub(crate) containers: Vec<ContainerLoad>,
    /// Pulls under way.
    pub(crate) pulls: Vec<Pull>,
}

/// The counters of a running container. What the kernel does not count is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerLoad {
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) attempt: u32,
    /// CPU time so far, nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Working set, bytes.
    pub(crate) memory_bytes: u64,
    pub(crate) memory_limit_bytes: Option<u64>,
    /// Share of the last ten seconds in which a task waited, in percent.
    pub(crate) cpu_pressure: Option<f64>,
    pub(crate) memory_pressure: Option<f64>,
    pub(crate) io_pressure: Option<f64>,
    /// Periods of the CPU quota, and those in which it was used up.
    pub(crate) cpu_periods: Option<u64>,
    pub(crate) cpu_throttled_periods: Option<u64>,
    pub(crate) oom_kills: Option<u64>,
    /// Commands that were run in it so far, since the daemon knows it.
    pub(crate) execs: u64,
}

/// A pull under way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Pull {
    pub(crate) image: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) began_ns: i64,
}

/// Reads the counters of all running containers. A container that ends meanwhile is left out. Blocks.
pub(crate) fn read(node: &Node) -> Load {
    let timelines = node.history.all_present();
    let execs: BTreeMap<&str, u64> =
        timelines.iter().map(|of| (of.id.as_str(), of.execs)).collect();
    let mut containers = Vec::new();
    for view in node.registry.views() {
        let metadata = view.record.config.metadata.clone().unwrap_or_default();
        for container in view.containers.values() {
            let record = &container.record;
            if !matches!(record.state, State::Running { .. }) {
                continue;
            }
            let Ok(Some(stats)) = stats::read(node, &record.cgroup) else { continue };
            let cgroup = Cgroup::at(&node.cgroups, &record.cgroup);
            let counters = cgroup.and_then(|cgroup| cgroup.counters()).unwrap_or_default();
            let (name, attempt) = record.metadata();
            containers.push(ContainerLoad {
                id: record.id.clone(),
                namespace: metadata.namespace.clone(),
                pod: metadata.name.clone(),
                container: name.to_owned(),
                attempt,
                cpu_ns: stats.cpu_usage_ns,
                memory_bytes: stats.working_set_bytes,
                memory_limit_bytes: stats.memory_limit_bytes,
                cpu_pressure: waited(stats.psi_cpu.as_ref()),
                memory_pressure: waited(stats.psi_memory.as_ref()),
                io_pressure: waited(stats.psi_io.as_ref()),
                cpu_periods: counters.cpu_periods,
                cpu_throttled_periods: counters.cpu_throttled_periods,
                oom_kills: counters.oom_kills,
                execs: execs.get(record.id.as_str()).copied().unwrap_or(0),
            });
        }
    }
    let under_way = timelines.iter().filter(|of| of.kind == Kind::Image && of.gone_ns.is_none());
    let pulls = under_way.map(|of| Pull {
        image: of.image.clone(),
        namespace: of.namespace.clone(),
        pod: of.pod_name.clone(),
        began_ns: of.began_ns,
    });
    Load { at_ns: now_ns(), containers, pulls: pulls.collect() }
}

fn waited(psi: Option<&Psi>) -> Option<f64> {
    psi.map(|psi| psi.some.avg10)
}
