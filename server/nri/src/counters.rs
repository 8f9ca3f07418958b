// SPDX-License-Identifier: Apache-2.0
//! How often plugins were called, and how long that took, for metrics.

use crate::method::method;
use hull_proto::nri::Event;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The methods of plugins that verbs call; StateChange is the last one.
const METHODS: usize = Event::Last as usize;

/// The calls of one method so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallFigures {
    /// The name of the method in the interface.
    pub method: &'static str,
    /// Calls that were answered.
    pub succeeded: u64,
    /// Calls that were refused, or not answered.
    pub failed: u64,
    /// The time of all of them together, with the wait for the plugin's turn.
    pub took: Duration,
}

#[derive(Debug, Default)]
struct Counter {
    succeeded: AtomicU64,
    failed: AtomicU64,
    took_us: AtomicU64,
}

/// The calls by method.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    by_event: [Counter; METHODS],
}

/// The event of a place in the list. The first place, of an unknown event, is that of StateChange.
fn event(at: usize) -> Event {
    let number = i32::try_from(at).unwrap_or_default();
    Event::try_from(number).unwrap_or(Event::Unknown)
}

impl Counters {
    /// Counts a call of a method.
    pub(crate) fn count(&self, called: &'static str, succeeded: bool, took: Duration) {
        let at = (1..METHODS).find(|at| method(event(*at)) == called).unwrap_or(0);
        let Some(counter) = self.by_event.get(at) else { return };
        let outcome = if succeeded { &counter.succeeded } else { &counter.failed };
        outcome.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counter.took_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The calls so far, of every method that was called.
    pub(crate) fn figures(&self) -> Vec<CallFigures> {
        let figures = self.by_event.iter().enumerate().map(|(at, counter)| CallFigures {
            method: method(event(at)),
            succeeded: counter.succeeded.load(Ordering::Relaxed),
            failed: counter.failed.load(Ordering::Relaxed),
            took: Duration::from_micros(counter.took_us.load(Ordering::Relaxed)),
        });
        figures.filter(|of| of.succeeded + of.failed > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_counted_apart_and_state_changes_together() {
        let counters = Counters::default();
        counters.count("CreateContainer", true, Duration::from_millis(3));
        counters.count("CreateContainer", false, Duration::from_millis(4));
        counters.count("StateChange", true, Duration::from_millis(1));
        let of = |name: &str| counters.figures().into_iter().find(|of| of.method == name);
        let created = of("CreateContainer").unwrap();
        assert_eq!((created.succeeded, created.failed), (1, 1));
        assert_eq!(created.took, Duration::from_millis(7));
        assert_eq!(of("StateChange").unwrap().succeeded, 1);
        assert_eq!(of("StopContainer"), None);
    }
}
