// SPDX-License-Identifier: Apache-2.0
//! Recovery at the start of the daemon: adopts or removes what an earlier daemon left.
//!
//! ```text
//! record          monitor says             becomes
//! Building        anything                 taken down, record gone; what cannot be is tried again
//! Ready           pause runs               Ready; containers as the monitor knows them
//! Ready           not there, no pause      Stopping: what is left is ended; NOTREADY
//! Stopping        anything                 torn down again
//! Stopped         –                        Stopped; Stopping when its directories are there
//! of another id   –                        set aside by the store
//! none            anything                 a leak: swept
//! ```
//!
//! Pods are shown as they were recorded, and their monitors asked side by side. The daemon serves when all have
//! answered, or [`waits::RECOVER_MAX`] is over: those that take longer keep only the verbs about their own pods
//! waiting. A record that cannot be read was set aside when it was loaded, and does not keep the daemon from starting.

mod adopt;
mod partial;
mod records;
mod remove;
mod sweep;
mod wait;

pub(crate) use remove::remove_container;
pub(crate) use sweep::sweep_pod;

use crate::container::ContainerRecord;
use crate::error::Error;
use crate::limits::waits;
use crate::node::Node;
use crate::pod::registry::Key;
use crate::pod::{PodRecord, State};
use adopt::show;
use hull_proto::id::{ContainerId, PodId};
use partial::teardown_partial_pod;
use records::{Containers, Recorded, correct, is_named, load};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use sweep::sweep;
use tokio::task::JoinSet;
use tracing::{Instrument as _, error_span, info};
use wait::wait_until;

/// Brings the pods back, then sweeps what no record stands for.
pub(crate) async fn recover(node: &Arc<Node>) -> Result<(), Error> {
    let began = Instant::now();
    let mut pods = load(&node.pods, |name, record: &PodRecord| {
        is_named(name, &record.id, PodId::parse(&record.id).err())
    })?;
    // Of two pods with one name, that one has it which is ready, or was made last.
    pods.sort_by_key(|record| Reverse((record.state.is_ready(), record.created_ns)));
    let mut containers: HashMap<String, Containers> = HashMap::new();
    let recorded = load(&node.containers, |name, record: &ContainerRecord| {
        is_named(name, &record.id, ContainerId::parse(&record.id).err())
    })?;
    for record in recorded {
        if let Ok(id) = ContainerId::parse(&record.id) {
            containers.entry(record.pod.clone()).or_default().push((id, record));
        }
    }
    let mut work = JoinSet::new();
    let found = pods.len();
    // Also those that are only being taken down: they have records, so nothing of them is a leak.
    let recorded = Recorded {
        pods: pods.iter().map(|record| record.id.clone()).collect(),
        containers: containers.values().flatten().map(|(id, _)| id.to_string()).collect(),
    };
    for mut record in pods {
        let Ok(id) = PodId::parse(&record.id) else { continue };
        let mut containers = containers.remove(&record.id).unwrap_or_default();
        correct(node, &id, &mut record, &mut containers);
        let span = error_span!(parent: None, "pod", pod = record.full_name(), id = id.short());
        if matches!(record.state, State::Building) {
            let node = Arc::clone(node);
            let teardown =
                async move { teardown_partial_pod(&node, &id, record, containers).await };
            work.spawn(teardown.instrument(span));
        } else {
            let key = Key::of(&record.config.metadata.clone().unwrap_or_default());
            let start = show(node, Some(key), &id, &record, &containers);
            let adopted = adopt::pod(Arc::clone(node), id, record, containers, start);
            work.spawn(adopted.instrument(span));
        }
    }
    // A container without its pod stands for nothing that anybody could ask for.
    let orphans: Containers = containers.into_values().flatten().collect();
    let until = tokio::time::Instant::now() + waits::RECOVER_MAX;
    wait_until(until, &mut work).await;
    sweep(node, &recorded, orphans, until).await;
    info!(pods = found, took_ms = began.elapsed().as_millis(), "recovered");
    Ok(())
}
