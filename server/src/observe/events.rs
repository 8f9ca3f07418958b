// SPDX-License-Identifier: Apache-2.0
//! Events of pods and containers, for kubelets that listen (KEP-3386) instead of polling lists.
//!
//! ```text
//! pod's task ──publishes a snapshot──▶ between(before, now) ──▶ readers, each with a queue of its own
//!                                                         └──▶ kept, while nobody reads
//! ```
//!
//! The rule: an event is computed from two snapshots, so there is one for every change that was
//! published and none without. Events without a reader (the daemon or the kubelet
//! has just started) are kept for the first one, the newest [`KEPT_MAX`]. A reader that does not keep up
//! loses its place and gets an error that says so; it never holds up a pod. A new reader begins with what is kept,
//! whatever went before: it has asked for no position, and lists in any case.
//!
//! People read another list, [`EventLog`], and take nothing from the kubelet.
//!
//! A new daemon compares with what the records say: an exit that was not seen while there
//! was no daemon is reported then. What the old daemon had recorded but not sent yet when it was killed is not
//! reported again; a reader lists after each connect, as kubelets do.

use crate::container::State as ContainerState;
use crate::node::now_ns;
use crate::observe::event_log::{EventLog, LoggedEvent};
use crate::pod::PodSnapshot;
use hull_proto::cri::ContainerEventType as Kind;
use prost::Message as _;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tracing::warn;

/// Events that wait for one reader: a node's worth of pods, all ending at once.
const QUEUE: usize = crate::limits::EVENTS.count();
/// Events that wait without a reader. Each holds a snapshot, which it mostly shares with others.
const KEPT_MAX: usize = crate::limits::EVENTS.count();

const KEPT_NS: i64 = crate::limits::EVENTS_KEPT_S.number() as i64 * 1_000_000_000;
const KEPT_BYTES_MAX: u64 = crate::limits::EVENTS_BYTES.default;

/// About how much memory a view takes: its configs, as they were received.
fn bytes_of(view: &PodSnapshot) -> u64 {
    let containers = view.containers.values().map(|of| of.record.config.encoded_len());
    (view.record.config.encoded_len() + containers.sum::<usize>()) as u64
}

/// Something that happened, and the pod as it was then.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// Of the container, or of the pod.
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) at_ns: i64,
    pub(crate) view: Arc<PodSnapshot>,
}

/// Where events go.
#[derive(Debug)]
pub(crate) struct Events {
    inner: Mutex<Inner>,
    pub(crate) log: EventLog,
}

impl Default for Events {
    fn default() -> Self {
        Self { inner: Mutex::default(), log: EventLog::new(now_ns()) }
    }
}

#[derive(Debug, Default)]
struct Inner {
    readers: Vec<Reader>,
    kept: VecDeque<Event>,
    /// About how much memory their configs take. Counted once per event, also where events share a view.
    kept_bytes: u64,
}

#[derive(Debug)]
struct Reader {
    queue: mpsc::Sender<Event>,
    behind: Arc<AtomicBool>,
}

/// A reader's end.
#[derive(Debug)]
pub(crate) struct Reading {
    queue: mpsc::Receiver<Event>,
    behind: Arc<AtomicBool>,
}

/// A reader missed events, because it was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missed;

impl Events {
    /// Tells what changed from `before` to `now`.
    pub(crate) fn publish(&self, before: &PodSnapshot, now: &Arc<PodSnapshot>) {
        let happened = between(before, now);
        if happened.is_empty() {
            return;
        }
        let at_ns = now_ns();
        // Pushes and removals of whole entries: a panic leaves nothing half done.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, kind) in happened {
            // What is gone has its names in the snapshot before.
            let named = if kind == Kind::ContainerDeletedEvent { before } else { now };
            self.log.add(LoggedEvent::new(&id, kind, at_ns, named));
            inner.deliver(Event { id, kind, at_ns, view: Arc::clone(now) });
        }
    }

    /// Drops what was kept for `events_kept_s` without a reader.
    pub(crate) fn expire(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = now_ns().saturating_sub(KEPT_NS);
        while inner.kept.front().is_some_and(|event| event.at_ns < oldest) {
            inner.drop_oldest();
        }
        inner.kept.shrink_to_fit();
    }

    /// Begins to read: what was kept first.
    pub(crate) fn read(&self) -> Reading {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (queue, receiver) = mpsc::channel(QUEUE.max(KEPT_MAX));
        let behind = Arc::new(AtomicBool::new(false));
        inner.kept_bytes = 0;
        for event in std::mem::take(&mut inner.kept) {
            // The queue has room for all that are kept.
            let _room = queue.try_send(event);
        }
        inner.readers.push(Reader { queue, behind: Arc::clone(&behind) });
        Reading { queue: receiver, behind }
    }
}

impl Inner {
    fn deliver(&mut self, event: Event) {
        self.readers.retain(|reader| match reader.queue.try_send(event.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                warn!(waiting = QUEUE, "a reader of events does not keep up; its stream ends");
                reader.behind.store(true, Ordering::Release);
                false
            }
        });
        if !self.readers.is_empty() {
            return;
        }
        self.kept_bytes = self.kept_bytes.saturating_add(bytes_of(&event.view));
        // Nothing of a pod's processes is held for a reader that may never come.
        let view = PodSnapshot { client: None, ..(*event.view).clone() };
        self.kept.push_back(Event { view: Arc::new(view), ..event });
        while self.kept.len() > KEPT_MAX || self.kept_bytes > KEPT_BYTES_MAX {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let bytes = self.kept.pop_front().map_or(0, |event| bytes_of(&event.view));
        self.kept_bytes = self.kept_bytes.saturating_sub(bytes);
    }
}

impl Reading {
    /// The next event; `None` when the daemon ends.
    ///
    /// # Errors
    /// [`Missed`], once, after the last event before the gap.
    pub(crate) async fn next(&mut self) -> Option<Result<Event, Missed>> {
        match self.queue.recv().await {
            Some(event) => Some(Ok(event)),
            None => self.behind.swap(false, Ordering::Acquire).then_some(Err(Missed)),
        }
    }
}

/// The events between two snapshots of a pod, in the order in which they must have happened.
fn between(before: &PodSnapshot, now: &PodSnapshot) -> Vec<(String, Kind)> {
    let mut happened = Vec::new();
    let mut add = |id: &str, kind| happened.push((id.to_owned(), kind));
    let pod = now.id.as_str();
    let (was_ready, is_ready) = (before.record.state.is_ready(), now.record.state.is_ready());
    if !was_ready && is_ready {
        add(pod, Kind::ContainerCreatedEvent);
        add(pod, Kind::ContainerStartedEvent);
    }
    for (id, view) in &now.containers {
        let old = before.containers.get(id).map_or(0, |old| stage(&old.record.state));
        let new = stage(&view.record.state);
        // One that could not be started was created and has stopped, but never ran.
        let ran = matches!(
            view.record.state,
            ContainerState::Running { .. } | ContainerState::Exited { since_ns: Some(_), .. }
        );
        for (at, kind) in [
            (1, Kind::ContainerCreatedEvent),
            (2, Kind::ContainerStartedEvent),
            (3, Kind::ContainerStoppedEvent),
        ] {
            if old < at && at <= new && (at != 2 || ran) {
                add(id.as_str(), kind);
            }
        }
    }
    for (id, old) in &before.containers {
        // What was never shown as created is not shown as deleted.
        if !now.containers.contains_key(id) && stage(&old.record.state) > 0 {
            add(id.as_str(), Kind::ContainerDeletedEvent);
        }
    }
    if was_ready && !is_ready {
        add(pod, Kind::ContainerStoppedEvent);
    }
    // A pod that could not be built was never shown.
    if now.gone && !before.gone && now.failure.is_none() {
        add(pod, Kind::ContainerDeletedEvent);
    }
    happened
}

/// How far a container has come: nothing to tell yet, created, running, ended.
fn stage(state: &ContainerState) -> u8 {
    match state {
        ContainerState::Creating => 0,
        // A removal in progress has no event: that it ended came before, if it ran.
        ContainerState::Created | ContainerState::Removing => 1,
        ContainerState::Running { .. } => 2,
        ContainerState::Exited { .. } => 3,
    }
}

#[cfg(test)]
mod tests;
