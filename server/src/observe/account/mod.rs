// SPDX-License-Identifier: Apache-2.0
//! The account of a pod, container or image: its timelines, its state, and what is wrong with it. `hull explain` and
//! `hull trace` print it; CRI's verbose info has its timeline.

mod finding;
mod judge;
#[cfg(test)]
mod page;
mod reading;

pub(crate) use finding::{Finding, Weight};

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
    let all = node.history.all().map_err(Unknown::Unreadable)?;
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
