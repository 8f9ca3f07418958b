// SPDX-License-Identifier: Apache-2.0
//! The last events of the node, for people who ask afterwards: `hull events --since`.
//!
//! Each reader has a position in one list, and no queue of its own. The oldest events make room for new ones. A reader
//! whose position has gone with them receives the time since when events are kept, and goes on there.

use crate::container::State;
use crate::pod::PodSnapshot;
use hull_proto::cri::ContainerEventType as Kind;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Events that are kept. Each has a few names.
const KEPT_MAX: usize = crate::limits::EVENTS.count();

/// An event without the pod as it was then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoggedEvent {
    pub(crate) at_ns: i64,
    pub(crate) kind: Kind,
    /// Of the container, or of the pod.
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// `None` if it is an event of the pod.
    pub(crate) container: Option<String>,
    /// Of a container that has exited.
    pub(crate) exit_code: Option<i32>,
}

impl LoggedEvent {
    /// An event of the pod in `view`, or of the container `id` in it.
    pub(super) fn new(id: &str, kind: Kind, at_ns: i64, view: &PodSnapshot) -> Self {
        let metadata = view.record.config.metadata.clone().unwrap_or_default();
        let container = view.containers.values().find(|of| of.id.as_str() == id);
        let exit_code = container.and_then(|of| match &of.record.state {
            State::Exited { how, .. } => Some(how.exit_code()),
            State::Creating | State::Created | State::Running { .. } | State::Removing => None,
        });
        let name = container.map(|of| of.record.metadata().0.to_owned());
        let is_pod = view.id.as_str() == id;
        Self {
            at_ns,
            kind,
            id: id.to_owned(),
            namespace: metadata.namespace,
            pod: metadata.name,
            container: (!is_pod).then(|| name.unwrap_or_default()),
            exit_code,
        }
    }
}

/// The list of the last events, with a position for each reader.
#[derive(Debug)]
pub(crate) struct EventLog {
    kept: Mutex<Kept>,
    /// The number of the next event.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    events: VecDeque<Arc<LoggedEvent>>,
    /// The number of the first event in the list.
    first: u64,
    /// The list has all events since then, in nanoseconds since the epoch.
    from_ns: i64,
}

/// A reader's position.
#[derive(Debug)]
pub(crate) struct Reader {
    next: u64,
    since_ns: i64,
    /// Events that it asked for are not kept, which it has yet to receive.
    is_short: bool,
    changes: watch::Receiver<u64>,
}

/// The next item of a reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Event(Arc<LoggedEvent>),
    /// Earlier events that it asked for are not kept; all since this time are.
    KeptFrom(i64),
}

impl EventLog {
    /// An empty list of events from now on.
    pub(crate) fn new(now_ns: i64) -> Self {
        let kept = Kept { events: VecDeque::new(), first: 0, from_ns: now_ns };
        Self { kept: Mutex::new(kept), next: watch::channel(0).0 }
    }

    /// Adds an event.
    pub(super) fn add(&self, event: LoggedEvent) {
        let mut kept = self.kept();
        if kept.events.len() == KEPT_MAX
            && let Some(oldest) = kept.events.pop_front()
        {
            kept.first += 1;
            kept.from_ns = kept.from_ns.max(oldest.at_ns.saturating_add(1));
        }
        kept.events.push_back(Arc::new(event));
        self.next.send_replace(kept.first + kept.events.len() as u64);
    }

    /// A reader of events since then, or from now on.
    pub(crate) fn reader(&self, since_ns: Option<i64>) -> Reader {
        let changes = self.next.subscribe();
        let kept = self.kept();
        let next = match since_ns {
            Some(_) => kept.first,
            None => kept.first + kept.events.len() as u64,
        };
        let is_short = since_ns.is_some_and(|since_ns| since_ns < kept.from_ns);
        Reader { next, since_ns: since_ns.unwrap_or(i64::MIN), is_short, changes }
    }

    /// Returns the items that the reader has not got yet.
    pub(crate) fn read(&self, reader: &mut Reader) -> Vec<Read> {
        let kept = self.kept();
        let mut read = Vec::new();
        if std::mem::take(&mut reader.is_short) || reader.next < kept.first {
            read.push(Read::KeptFrom(kept.from_ns));
            reader.next = reader.next.max(kept.first);
        }
        let from = usize::try_from(reader.next - kept.first).unwrap_or(usize::MAX);
        let fresh = kept.events.iter().skip(from).filter(|event| event.at_ns >= reader.since_ns);
        read.extend(fresh.map(|event| Read::Event(Arc::clone(event))));
        reader.next = kept.first + kept.events.len() as u64;
        read
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Pushes and removals of whole entries: a panic leaves nothing half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Resolves when there may be more to read; false when the daemon ends.
    pub(crate) async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_ns: i64) -> LoggedEvent {
        LoggedEvent {
            at_ns,
            kind: Kind::ContainerStartedEvent,
            id: at_ns.to_string(),
            namespace: "ns".into(),
            pod: "web".into(),
            container: Some("app".into()),
            exit_code: None,
        }
    }

    fn times(read: &[Read]) -> Vec<i64> {
        let at = |of: &Read| match of {
            Read::Event(event) => event.at_ns,
            Read::KeptFrom(from_ns) => -from_ns,
        };
        read.iter().map(at).collect()
    }

    #[tokio::test]
    async fn a_new_reader_gets_what_comes_and_one_that_asks_what_is_kept() {
        let log = EventLog::new(1);
        log.add(event(10));
        log.add(event(20));
        let (mut fresh, mut late) = (log.reader(None), log.reader(Some(15)));
        assert!(log.read(&mut fresh).is_empty());
        assert_eq!(times(&log.read(&mut late)), [20]);
        assert!(log.read(&mut late).is_empty());
        log.add(event(30));
        assert!(fresh.changed().await);
        assert_eq!(
            (times(&log.read(&mut fresh)), times(&log.read(&mut late))),
            (vec![30], vec![30])
        );
    }

    #[test]
    fn only_a_position_that_is_gone_is_told_and_its_reader_goes_on() {
        let log = EventLog::new(1);
        let mut slow = log.reader(None);
        let count = i64::try_from(KEPT_MAX).unwrap() + 5;
        for at in 0..count {
            log.add(event(10 + at));
        }
        let mut early = log.reader(Some(12));
        assert_eq!(times(&log.read(&mut early))[..2], [-15, 15]);
        let mut asks_for_kept = log.reader(Some(15));
        assert_eq!(times(&log.read(&mut asks_for_kept))[0], 15);
        let mut fresh = log.reader(None);
        assert!(log.read(&mut fresh).is_empty(), "a new reader begins now, without an error");
        let read = times(&log.read(&mut slow));
        assert_eq!(read[..2], [-15, 15]);
        assert_eq!(read.len(), KEPT_MAX + 1);
        log.add(event(10_000));
        assert_eq!(times(&log.read(&mut slow)), [10_000]);
    }
}
