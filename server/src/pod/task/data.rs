// SPDX-License-Identifier: Apache-2.0
//! The data of a pod's task, and how it is recorded and published.

use super::entry::ContainerEntry;
use super::teardown_state::{NriVisibility, Removal, Teardown};
use super::work::WorkSet;
use crate::container::ContainerSnapshot;
use crate::error::{Chain, Error, Result};
use crate::monitors::{Client, MonitorEvent};
use crate::node::Node;
use crate::pod::registry::Key;
use crate::pod::state::Event;
use crate::pod::{PodRecord, PodSnapshot, Reply};
use crate::storage::blocking;
use hull_proto::id::{ContainerId, PodId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tracing::error;

/// The task's own data.
#[derive(Debug)]
pub(crate) struct Task {
    pub(super) node: Arc<Node>,
    pub(super) id: PodId,
    pub(super) key: Key,
    pub(super) record: Arc<PodRecord>,
    pub(super) client: Option<Client>,
    pub(super) containers: BTreeMap<ContainerId, ContainerEntry>,
    /// Why the pod could not be built.
    pub(super) failure: Option<Arc<Error>>,
    pub(super) view: watch::Sender<Arc<PodSnapshot>>,
    pub(super) monitor_events: mpsc::Receiver<MonitorEvent>,
    pub(super) monitor_events_in: mpsc::Sender<MonitorEvent>,
    pub(super) work: WorkSet,
    pub(super) next_waiter: u64,
    pub(super) stop_waiters: Vec<Reply<()>>,
    pub(super) remove_waiters: Vec<Reply<()>>,
    pub(super) teardown: Teardown,
    pub(super) removal: Removal,
    pub(super) nri: NriVisibility,
    pub(super) began: Instant,
}

impl Task {
    /// The name of a container, for the log; its id when it is gone.
    pub(super) fn name_of<'t>(&'t self, id: &'t ContainerId) -> &'t str {
        self.containers.get(id).map_or(id.short(), |entry| entry.record.metadata().0)
    }

    /// The image of a container as requested, for the log.
    pub(super) fn image_of(&self, id: &ContainerId) -> &str {
        self.containers.get(id).map_or("", |entry| entry.record.image_name())
    }

    pub(super) async fn transition(&mut self, event: &Event) {
        match self.record.state.clone().next(event) {
            Ok(state) => {
                let mut record = (*self.record).clone();
                record.enter(state, event);
                self.record = Arc::new(record);
                self.save().await;
            }
            Err(refused) => error!(error = %refused, "pod machine refused an event"),
        }
        self.publish();
    }

    pub(super) async fn save(&self) {
        let (node, record) = (Arc::clone(&self.node), Arc::clone(&self.record));
        let saved = blocking(move || node.pods.save(&record.id, &*record)).await;
        if let Err(err) = saved {
            // The state lives on in memory; only a restart of the daemon would read the older one, and
            // recovery takes its facts from the monitor anyway.
            error!(error = %Chain(&err), "pod record not written");
        }
    }

    pub(super) fn publish(&self) {
        let now = Arc::new(self.snapshot());
        let before = self.view.send_replace(Arc::clone(&now));
        self.node.events.publish(&before, &now);
    }

    pub(super) fn snapshot(&self) -> PodSnapshot {
        let visible = self.containers.iter().filter(|(_, entry)| entry.operation.is_visible());
        let containers = visible.map(|(id, entry)| {
            let view = ContainerSnapshot {
                id: id.clone(),
                pod: self.id.clone(),
                record: Arc::clone(&entry.record),
                execs: Arc::clone(&entry.execs),
                restarting: !entry.restart.is_no() || self.restarts(id),
            };
            (id.clone(), Arc::new(view))
        });
        PodSnapshot {
            id: self.id.clone(),
            record: Arc::clone(&self.record),
            containers: containers.collect(),
            images: self.containers.values().flat_map(|entry| entry.record.images()).collect(),
            failure: self.failure.clone().filter(|_| self.teardown.may_report_failure()),
            client: self.client.clone(),
            gone: self.teardown.is_done(),
        }
    }
}

/// Answers a caller, who may have disconnected.
pub(super) fn answer<T>(reply: Option<Reply<T>>, result: Result<T>) {
    if let Some(reply) = reply {
        let _gone = reply.send(result);
    }
}
