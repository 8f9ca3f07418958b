// SPDX-License-Identifier: Apache-2.0
//! The account of a pod, container or image: its timelines, its state, and what is wrong with it. `hull explain` and
//! `hull trace` print it; CRI's verbose info has its timeline.

mod finding;
mod judge;
mod reading;

pub(crate) use finding::{Finding, Weight};

use crate::container::State as ContainerState;
use crate::history::{Kind, Selected, Timeline, related, select};
use crate::node::{Node, now_ns};
use crate::records;
use reading::Reading;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the document.
const VERSION: u32 = 1;

/// All that is known of one object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Account {
    pub(crate) version: u32,
    pub(crate) kind: Kind,
    pub(crate) id: String,
    /// `namespace/pod`, `namespace/pod/container`, or the image.
    pub(crate) name: String,
    /// Its state in words.
    pub(crate) state: String,
    /// Nothing is wrong with it.
    pub(crate) is_well: bool,
    pub(crate) findings: Vec<Finding>,
    /// Its own timeline first, then those of its pod, containers and pulls.
    pub(crate) timelines: Vec<Timeline>,
    /// When this was read, nanoseconds since the epoch.
    pub(crate) at_ns: i64,
}

/// Why there is no account.
#[derive(Debug)]
pub(crate) enum Unknown {
    /// Nothing of that name is or was here.
    Nothing,
    /// It may stand for each of these.
    Several(Vec<String>),
    Unreadable(records::Error),
}

/// The account of what `name` stands for. Reads records and cgroups: it blocks.
pub(crate) fn account(node: &Node, name: &str) -> Result<Account, Unknown> {
    let mut all = node.history.all().map_err(Unknown::Unreadable)?;
    add_unrecorded(node, &mut all);
    let timelines = match select(&all, name) {
        Selected::One(of) => related(&all, of),
        Selected::Several(names) => return Err(Unknown::Several(names)),
        // Imported, or pulled long ago.
        Selected::Nothing => {
            let image = node.images.find(name).ok_or(Unknown::Nothing)?;
            vec![of_image(&image)]
        }
    };
    let readings = reading::of(node, &timelines);
    Ok(told(timelines, &readings, now_ns()))
}

/// Adds objects without a timeline, which an earlier release has made, and ends that only the records have.
fn add_unrecorded(node: &Node, all: &mut Vec<Timeline>) {
    for view in node.registry.views() {
        let metadata = view.record.config.metadata.clone().unwrap_or_default();
        let pod = Timeline {
            kind: Kind::Pod,
            id: view.id.to_string(),
            pod: view.id.to_string(),
            namespace: metadata.namespace,
            pod_name: metadata.name,
            attempt: metadata.attempt,
            began_ns: view.record.created_ns,
            ..Timeline::default()
        };
        for (id, container) in &view.containers {
            let record = &container.record;
            let (name, attempt) = record.metadata();
            let end = match &record.state {
                ContainerState::Exited { how, at_ns, .. } => {
                    Some(crate::diagnostics::ending::of_exit(record, how, *at_ns))
                }
                ContainerState::Creating
                | ContainerState::Created
                | ContainerState::Running { .. }
                | ContainerState::Removing => None,
            };
            if let Some(known) = all.iter_mut().find(|of| of.id == id.as_str()) {
                known.end = known.end.take().or(end);
                continue;
            }
            all.push(Timeline {
                kind: Kind::Container,
                id: id.to_string(),
                name: name.to_owned(),
                attempt,
                image: record.image_name().to_owned(),
                began_ns: record.created_ns,
                end,
                ..pod.clone()
            });
        }
        if !all.iter().any(|of| of.id == pod.id) {
            all.push(pod);
        }
    }
}

fn of_image(image: &hull_image::Image) -> Timeline {
    let name = image.repo_tags.first().unwrap_or(&image.id).clone();
    Timeline { kind: Kind::Image, id: image.id.clone(), image: name, ..Timeline::default() }
}

/// The account from what was read. Pure.
fn told(timelines: Vec<Timeline>, readings: &BTreeMap<String, Reading>, at_ns: i64) -> Account {
    let findings = judge::findings(&timelines, readings, at_ns);
    let is_well = findings.iter().all(|of| of.weight == Weight::Note);
    let own = timelines.first().cloned().unwrap_or_default();
    let state = readings.get(&own.id).map_or_else(|| past_state(&own), |of| of.state.clone());
    Account {
        version: VERSION,
        kind: own.kind,
        name: own.full_name(),
        id: own.id,
        state,
        is_well,
        findings,
        timelines,
        at_ns,
    }
}

/// The state of a pod or container that is not there.
fn past_state(of: &Timeline) -> String {
    if of.gone_ns.is_some() { "removed".into() } else { "not known".into() }
}
