// SPDX-License-Identifier: Apache-2.0
//! How often plugins were called, and how long that took, for metrics.

use super::protocol::Verb;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The calls of one command so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallFigures {
    pub command: Verb,
    /// Calls that succeeded.
    pub succeeded: u64,
    /// Calls that failed, timed out, or were answered with nonsense.
    pub failed: u64,
    /// The time of all of them together.
    pub took: Duration,
}

#[derive(Debug, Default)]
struct Counter {
    succeeded: AtomicU64,
    failed: AtomicU64,
    took_us: AtomicU64,
}

/// The calls by command.
#[derive(Debug, Default)]
pub(super) struct Counters {
    add: Counter,
    del: Counter,
    check: Counter,
    status: Counter,
    gc: Counter,
    version: Counter,
}

impl Counters {
    fn of(&self, command: Verb) -> &Counter {
        match command {
            Verb::Add => &self.add,
            Verb::Del => &self.del,
            Verb::Check => &self.check,
            Verb::Status => &self.status,
            Verb::Gc => &self.gc,
            Verb::Version => &self.version,
        }
    }

    /// Counts a call.
    pub(super) fn count(&self, command: Verb, succeeded: bool, took: Duration) {
        let counter = self.of(command);
        let outcome = if succeeded { &counter.succeeded } else { &counter.failed };
        outcome.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counter.took_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The calls so far, of every command.
    pub(super) fn figures(&self) -> [CallFigures; 6] {
        let all = [Verb::Add, Verb::Del, Verb::Check, Verb::Status, Verb::Gc, Verb::Version];
        all.map(|command| {
            let counter = self.of(command);
            CallFigures {
                command,
                succeeded: counter.succeeded.load(Ordering::Relaxed),
                failed: counter.failed.load(Ordering::Relaxed),
                took: Duration::from_micros(counter.took_us.load(Ordering::Relaxed)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_counted_apart() {
        let counters = Counters::default();
        counters.count(Verb::Add, true, Duration::from_millis(5));
        counters.count(Verb::Add, false, Duration::from_millis(7));
        counters.count(Verb::Del, true, Duration::from_millis(1));
        let [add, del, check, ..] = counters.figures();
        assert_eq!((add.succeeded, add.failed, add.took), (1, 1, Duration::from_millis(12)));
        assert_eq!((del.command, del.succeeded), (Verb::Del, 1));
        assert_eq!((check.succeeded, check.failed), (0, 0));
    }
}
