// SPDX-License-Identifier: Apache-2.0
//! The start of a pod's task: of a new pod, or of one that an earlier daemon recorded.

use super::data::Task;
use super::entry::ContainerEntry;
use super::teardown_state::{NriVisibility, Removal, Teardown};
use super::work::WorkSet;
use crate::container::ContainerRecord;
use crate::monitors::{Client, MonitorEvent};
use crate::node::Node;
use crate::pod::registry::Key;
use crate::pod::{Pod, PodRecord, PodSnapshot, Requested, State};
use crate::tracer;
use hull_proto::id::{ContainerId, PodId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;

/// Commands that may wait for the task.
const QUEUE: usize = 64;

/// Where a monitor's monitor_events go until the pod's task takes them.
pub(crate) fn monitor_events() -> (mpsc::Sender<MonitorEvent>, mpsc::Receiver<MonitorEvent>) {
    mpsc::channel(QUEUE)
}

/// A pod's task before it runs, and the handle on it.
pub(crate) fn prepare(
    node: &Arc<Node>,
    id: PodId,
    record: PodRecord,
    monitor_events_in: mpsc::Sender<MonitorEvent>,
    monitor_events: mpsc::Receiver<MonitorEvent>,
) -> (Pod, Start) {
    let record = Arc::new(record);
    let view = PodSnapshot {
        id: id.clone(),
        record: Arc::clone(&record),
        containers: BTreeMap::new(),
        images: BTreeSet::new(),
        failure: None,
        client: None,
        gone: false,
    };
    let (view, seen) = watch::channel(Arc::new(view));
    let (commands, inbox) = mpsc::channel(QUEUE);
    let metadata = record.config.metadata.clone().unwrap_or_default();
    let task = Task {
        node: Arc::clone(node),
        id: id.clone(),
        key: Key::of(&metadata),
        record,
        client: None,
        containers: BTreeMap::new(),
        failure: None,
        view,
        monitor_events,
        monitor_events_in,
        work: WorkSet::default(),
        next_waiter: 0,
        stop_waiters: Vec::new(),
        remove_waiters: Vec::new(),
        teardown: Teardown::No,
        removal: Removal::OnRequest,
        nri: NriVisibility::Unknown,
        began: Instant::now(),
    };
    (Pod { id, commands, view: seen }, Start { task, inbox, starting: Vec::new() })
}

/// A task that is ready to run.
#[derive(Debug)]
pub(crate) struct Start {
    task: Task,
    inbox: mpsc::Receiver<Requested>,
    starting: Vec<ContainerId>,
}

impl Start {
    /// Has the containers' records seen, as the last daemon left them.
    pub(crate) fn show(&mut self, recorded: Vec<(ContainerId, ContainerRecord)>) {
        let task = &mut self.task;
        for (id, record) in recorded {
            task.node.registry.enter_container(id.clone(), task.id.clone());
            task.containers.insert(id, ContainerEntry::recorded(record));
        }
        task.view.send_replace(Arc::new(task.snapshot()));
    }

    /// Where the monitor_events of this pod's monitor go.
    pub(crate) fn monitor_events(&self) -> mpsc::Sender<MonitorEvent> {
        self.task.monitor_events_in.clone()
    }

    /// Takes over what recovery found: a connection, and the records as they are now. What differs from
    /// what was [shown](Self::show) happened meanwhile. Those that are `starting` an earlier daemon had
    /// started: their starts are waited for as if this one had.
    pub(crate) fn adopt(
        &mut self,
        client: Option<Client>,
        record: PodRecord,
        containers: Vec<(ContainerId, ContainerRecord)>,
        starting: Vec<ContainerId>,
    ) {
        let task = &mut self.task;
        task.record = Arc::new(record);
        // A plugin that connects is synchronized with every pod.
        task.nri = match task.record.state {
            State::Stopped => NriVisibility::Stopped,
            State::Building | State::Ready { .. } | State::Stopping => NriVisibility::Running,
        };
        task.client = client;
        let gone = std::mem::take(&mut task.containers);
        for (id, record) in containers {
            task.containers.insert(id, ContainerEntry::recorded(record));
        }
        for id in gone.keys().filter(|id| !task.containers.contains_key(*id)) {
            task.node.registry.leave_container(id);
        }
        task.record_missed_exits();
        task.publish();
        self.starting = starting;
    }

    /// Removes the pod as soon as possible, without a request.
    pub(crate) fn remove_unasked(&mut self) {
        self.task.removal = Removal::Automatic;
    }

    /// Runs the task. A pod that is Building is built; one that is Stopping is torn down.
    pub(crate) fn run(self) {
        let Self { mut task, inbox, starting } = self;
        let began_in = tracer::current();
        // Not within the call that makes the pod, which ends before it.
        let (pod, id) = (task.record.full_name(), task.id.short());
        let span = tracing::error_span!(parent: None, "pod", pod, id);
        let run = async move {
            for id in starting {
                // No caller of this daemon has requested it.
                let (reply, _nobody) = tokio::sync::oneshot::channel();
                task.start(&id, reply).await;
            }
            task.resume_restarts().await;
            if task.removal == Removal::Automatic {
                task.remove_automatically().await;
            }
            task.run(inbox, began_in).await;
        };
        tokio::spawn(run.instrument(span));
    }
}
