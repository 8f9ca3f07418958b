// SPDX-License-Identifier: Apache-2.0
//! Timelines after the recovery: of the pods and containers that it has found, from their records where the daemon
//! before did not write one.

use crate::container::{ContainerRecord, State};
use crate::diagnostics::ending;
use crate::history::{Kind, Timeline};
use crate::node::Node;
use crate::pod::PodRecord;
use std::sync::Arc;

/// Goes on with the timelines of what the recovery has found, and writes them from now on.
pub(super) fn resume(node: &Arc<Node>) {
    let mut found = Vec::new();
    for view in node.registry.views() {
        let pod = of_pod(&view.record);
        let containers = view.containers.values();
        found.extend(containers.map(|container| of_container(&pod, &container.record)));
        found.push(pod);
    }
    node.history.resume(found);
    tokio::spawn(Arc::clone(&node.history).write_changes());
}

fn of_pod(record: &PodRecord) -> Timeline {
    let metadata = record.config.metadata.clone().unwrap_or_default();
    Timeline {
        kind: Kind::Pod,
        id: record.id.clone(),
        pod: record.id.clone(),
        namespace: metadata.namespace,
        pod_name: metadata.name,
        attempt: metadata.attempt,
        began_ns: record.created_ns,
        ..Timeline::default()
    }
}

fn of_container(pod: &Timeline, record: &ContainerRecord) -> Timeline {
    let (name, attempt) = record.metadata();
    let end = match &record.state {
        State::Exited { how, at_ns, .. } => Some(ending::of_exit(record, how, *at_ns)),
        State::Creating | State::Created | State::Running { .. } | State::Removing => None,
    };
    Timeline {
        kind: Kind::Container,
        id: record.id.clone(),
        name: name.to_owned(),
        attempt,
        image: record.image_name().to_owned(),
        began_ns: record.created_ns,
        end,
        ..pod.clone()
    }
}
