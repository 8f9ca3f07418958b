// SPDX-License-Identifier: Apache-2.0
//! The timelines of a pod and its containers as their records begin them, without stages. Pure.

use super::PodRecord;
use crate::container::{ContainerRecord, State};
use crate::diagnostics::ending;
use crate::history::{Kind, Timeline};

/// The timeline of a pod.
pub(crate) fn of_pod(record: &PodRecord) -> Timeline {
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

/// The timeline of a container of that pod, with its end if it has exited.
pub(crate) fn of_container(pod: &PodRecord, record: &ContainerRecord) -> Timeline {
    let (name, attempt) = record.metadata();
    let end_of = |state: &State| match state {
        State::Exited { how, at_ns, .. } => Some(ending::of_exit(record, how, *at_ns)),
        State::Creating | State::Created | State::Running { .. } | State::Removing => None,
    };
    let previous = record.previous.as_deref();
    Timeline {
        kind: Kind::Container,
        id: record.id.clone(),
        name: name.to_owned(),
        attempt,
        image: record.image_name().to_owned(),
        began_ns: previous.map_or(record.created_ns, |previous| previous.until_ns),
        end: end_of(&record.state),
        previous_end: previous.and_then(|previous| end_of(&previous.state)),
        ..of_pod(pod)
    }
}
