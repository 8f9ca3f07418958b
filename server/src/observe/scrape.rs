// SPDX-License-Identifier: Apache-2.0
//! The daemon's own metrics as text: what was counted, and what is read when somebody asks.

use super::process;
use crate::container;
use crate::metrics::{Exemplars, Scraped, table};
use crate::monitors;
use crate::node::Node;
use crate::pod::State;
use hull_image::{HostFigures, PullFigures};
use std::collections::BTreeMap;
use std::fmt;

/// The metrics of the daemon as OpenMetrics text. `by` is the way that they are asked for. Blocks.
pub(crate) fn text(
    node: &Node,
    by: &'static str,
    exemplars: Exemplars,
) -> Result<String, fmt::Error> {
    node.metrics.scrapes.count(&[by]);
    let mut scraped = Scraped::default();
    operations(&mut scraped, node);
    objects(&mut scraped, node);
    pulls(&mut scraped, &node.images.pull_figures());
    plugins(&mut scraped, node);
    let denials = node.denials.counts();
    scraped.all(table::DENIALS, denials.map(|(module, of, count)| ([module, of], float(count))));
    processes(&mut scraped, node);
    let build = [env!("CARGO_PKG_VERSION"), env!("HULL_COMMIT"), env!("HULL_TARGET")];
    scraped.all(table::BUILD_INFO, [(build, 1.0)]);
    node.metrics.text(&scraped, exemplars)
}

/// A number of events or bytes; beyond 2^53 it is rounded.
#[expect(clippy::cast_precision_loss, reason = "OpenMetrics has no other numbers")]
fn float(number: u64) -> f64 {
    number as f64
}

/// Adds one to the count of a key, and keeps the larger age.
fn older(of: &mut (f64, f64), age: f64) {
    *of = (of.0 + 1.0, of.1.max(age));
}

fn operations(scraped: &mut Scraped, node: &Node) {
    let mut operations: BTreeMap<&'static str, (f64, f64)> = BTreeMap::new();
    let mut stages: BTreeMap<(&'static str, &'static str), (f64, f64)> = BTreeMap::new();
    for stage in node.history.open_stages() {
        let age = stage.age.as_secs_f64();
        if stage.part_of.is_empty() {
            older(operations.entry(stage.name).or_default(), age);
        } else {
            older(stages.entry((stage.part_of, stage.name)).or_default(), age);
        }
    }
    let counts = operations.iter().map(|(name, (count, _))| ([*name], *count));
    scraped.all(table::OPERATIONS_IN_PROGRESS, counts);
    let ages = operations.iter().map(|(name, (_, age))| ([*name], *age));
    scraped.all(table::OPERATION_OLDEST_SECONDS, ages);
    let ages = stages.iter().map(|((part_of, name), (_, age))| ([*part_of, *name], *age));
    scraped.all(table::STAGE_OLDEST_SECONDS, ages);
}

fn pod_state(state: &State) -> &'static str {
    match state {
        State::Building => "building",
        State::Ready { .. } => "ready",
        State::Stopping => "stopping",
        State::Stopped => "stopped",
    }
}

fn container_state(state: &container::State) -> &'static str {
    match state {
        container::State::Creating => "creating",
        container::State::Created => "created",
        container::State::Running { .. } => "running",
        container::State::Exited { .. } => "exited",
        container::State::Removing => "removing",
    }
}

fn objects(scraped: &mut Scraped, node: &Node) {
    // States without objects are 0, so that none disappears.
    let empty = |states: &[&'static str]| -> BTreeMap<&'static str, f64> {
        states.iter().map(|state| (*state, 0.0)).collect()
    };
    let mut pods = empty(&["building", "ready", "stopping", "stopped"]);
    let mut containers = empty(&["creating", "created", "running", "exited", "removing"]);
    for view in node.registry.views() {
        *pods.entry(pod_state(&view.record.state)).or_default() += 1.0;
        for of in view.containers.values() {
            *containers.entry(container_state(&of.record.state)).or_default() += 1.0;
        }
    }
    scraped.all(table::PODS, pods.into_iter().map(|(state, count)| ([state], count)));
    scraped.all(table::CONTAINERS, containers.into_iter().map(|(state, count)| ([state], count)));
    scraped.one(table::IMAGES, float(node.images.list().len() as u64));
}

fn pulls(scraped: &mut Scraped, figures: &PullFigures) {
    let PullFigures { registries, mirrors, breakers, .. } = figures;
    let hosts: [(&'static str, &HostFigures); 2] = [("registry", registries), ("mirror", mirrors)];
    let bytes = hosts.map(|(source, of)| ([source], float(of.layer_bytes)));
    scraped.all(table::PULL_BYTES, bytes);
    let objects = hosts.into_iter().flat_map(|(source, of)| {
        [([source, "success"], float(of.objects)), ([source, "error"], float(of.failed))]
    });
    scraped.all(table::PULL_OBJECTS, objects);
    scraped.one(table::PULL_RETRIES, float(figures.retries));
    let stages =
        [("resolve", figures.resolving), ("layers", figures.layers), ("record", figures.recording)];
    let stages = stages.map(|(stage, took)| ([stage], took.as_secs_f64()));
    scraped.all(table::PULL_STAGE_SECONDS, stages);
    scraped.one(table::PULLS_IN_PROGRESS, float(figures.running));
    let states =
        [("closed", breakers.closed), ("half_open", breakers.half_open), ("open", breakers.open)];
    scraped.all(table::BREAKERS, states.map(|(state, hosts)| ([state], float(hosts))));
}

fn plugins(scraped: &mut Scraped, node: &Node) {
    scraped.one(table::NRI_PLUGINS, float(node.plugins.connected() as u64));
    let calls = node.plugins.calls();
    let results = calls
        .iter()
        .flat_map(|of| [([of.method, "success"], of.succeeded), ([of.method, "error"], of.failed)]);
    scraped.all(table::NRI_CALLS, results.map(|(labels, count)| (labels, float(count))));
    let times = calls.iter().map(|of| ([of.method], of.took.as_secs_f64()));
    scraped.all(table::NRI_CALL_SECONDS, times);
    let calls = node.network.plugin_calls();
    let results = calls.iter().flat_map(|of| {
        let command = of.command.text();
        [([command, "success"], of.succeeded), ([command, "error"], of.failed)]
    });
    scraped.all(table::CNI_CALLS, results.map(|(labels, count)| (labels, float(count))));
    let times = calls.iter().map(|of| ([of.command.text()], of.took.as_secs_f64()));
    scraped.all(table::CNI_CALL_SECONDS, times);
}

/// The daemon as the kernel sees it, and its monitors. What cannot be read is left out.
fn processes(scraped: &mut Scraped, node: &Node) {
    let own = process::own();
    scraped.some(table::FDS, own.open_files.map(float));
    scraped.some(table::FDS_MAX, own.open_files_max.map(float));
    scraped.some(table::MEMORY, own.resident_bytes.map(float));
    scraped.some(table::THREADS, own.threads.map(float));
    scraped.some(table::CPU_SECONDS, own.cpu.map(|cpu| cpu.as_secs_f64()));
    scraped.one(table::START_TIME, node.metrics.started_s());
    let pods = node.registry.views().iter().map(|view| view.id.clone()).collect();
    let running = monitors::memory(&pods);
    scraped.one(table::MONITORS, float(running.count));
    scraped.one(table::MONITORS_MEMORY, float(running.bytes));
}
