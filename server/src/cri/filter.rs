// SPDX-License-Identifier: Apache-2.0
//! The filters of lists: id prefix, state, pod, labels. All that are set must match. Pods and containers that
//! are still being created are in no list.

use super::convert;
use crate::container::{ContainerSnapshot, State as ContainerState};
use crate::pod::{PodSnapshot, State};
use hull_proto::cri as api;
use std::collections::HashMap;

pub(super) fn pod(by: Option<&api::PodSandboxFilter>, view: &PodSnapshot) -> bool {
    if matches!(view.record.state, State::Building) {
        // Its id was not returned yet.
        return false;
    }
    let Some(by) = by else { return true };
    starts(&by.id, view.id.as_str())
        && by.state.as_ref().is_none_or(|state| state.state == convert::pod_state(view) as i32)
        && labels(&by.label_selector, &view.record.config.labels)
}

pub(super) fn pod_stats(by: Option<&api::PodSandboxStatsFilter>, view: &PodSnapshot) -> bool {
    let Some(by) = by else { return true };
    starts(&by.id, view.id.as_str()) && labels(&by.label_selector, &view.record.config.labels)
}

pub(super) fn container(by: Option<&api::ContainerFilter>, view: &ContainerSnapshot) -> bool {
    if matches!(view.record.state, ContainerState::Creating) {
        // Its id was not returned yet.
        return false;
    }
    let Some(by) = by else { return true };
    starts(&by.id, view.id.as_str())
        && starts(&by.pod_sandbox_id, view.pod.as_str())
        && by
            .state
            .as_ref()
            .is_none_or(|state| state.state == convert::container_state(&view.record.state) as i32)
        && labels(&by.label_selector, &view.record.config.labels)
}

pub(super) fn container_stats(
    by: Option<&api::ContainerStatsFilter>,
    view: &ContainerSnapshot,
) -> bool {
    let Some(by) = by else { return true };
    starts(&by.id, view.id.as_str())
        && starts(&by.pod_sandbox_id, view.pod.as_str())
        && labels(&by.label_selector, &view.record.config.labels)
}

/// Anything starts with nothing: an empty field asks for nothing in particular.
fn starts(prefix: &str, id: &str) -> bool {
    id.starts_with(prefix)
}

fn labels(wanted: &HashMap<String, String>, have: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| have.get(key) == Some(value))
}
