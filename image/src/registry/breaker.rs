// SPDX-License-Identifier: Apache-2.0
//! Circuit breakers: hosts that are not requested for a while, because they failed or asked for it.
//!
//! ```text
//! closed ──a request fails───→ open (10 s, doubled each time, at most 5 min) ──→ half-open, one try
//!    ↑──────────────────a complete object, or a clear refusal────────────────────────┘
//! ```
//!
//! The rule: a mirror that is dead costs one request per period, not one per layer; the period is longer than what
//! that request cost. The last endpoint is requested even when its breaker is open: there is no other.

use super::counters::BreakerStates;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// A host that took long to fail is left alone for so many times as long.
const COST_FACTOR: u32 = 4;
/// The largest number of hosts; beyond it all are forgotten.
const HOSTS_MAX: usize = 1024;

/// The breaker of one host.
#[derive(Debug, Clone, Default)]
struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
    /// The time before which the registry asked for no requests, and the HTTP status with which it did.
    not_before: Option<(Instant, u16)>,
}

impl Breaker {
    fn failed(&mut self, now: Instant, took: Duration) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(8));
        let open = doubled.max(took.saturating_mul(COST_FACTOR)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.open_until = Some(now + open);
        open
    }

    fn is_open(&self, now: Instant) -> bool {
        self.open_until.is_some_and(|until| until > now)
    }
}

/// The breakers of all hosts.
#[derive(Debug, Default)]
pub(super) struct Breakers {
    hosts: Mutex<HashMap<String, Breaker>>,
}

impl Breakers {
    fn with<T>(&self, host: &str, change: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(host) {
            hosts.clear();
        }
        change(hosts.entry(host.to_owned()).or_default())
    }

    /// The number of hosts by the state of their breakers.
    pub(super) fn states(&self) -> BreakerStates {
        let now = Instant::now();
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut states = BreakerStates::default();
        for breaker in hosts.values() {
            if breaker.is_open(now) {
                states.open += 1;
            } else if breaker.failures > 0 {
                states.half_open += 1;
            } else {
                states.closed += 1;
            }
        }
        states
    }

    /// Whether the breaker of the host is open.
    pub(super) fn is_open(&self, host: &str) -> bool {
        self.with(host, |of| of.is_open(Instant::now()))
    }

    /// Records a request that failed after `took`. Returns how long the breaker is open, if it was closed.
    pub(super) fn failed(&self, host: &str, took: Duration) -> Option<Duration> {
        let now = Instant::now();
        self.with(host, |of| (!of.is_open(now)).then(|| of.failed(now, took)))
    }

    /// Records a complete object or a clear refusal, which closes the breaker.
    pub(super) fn answered(&self, host: &str) {
        self.with(host, |of| (of.failures, of.open_until) = (0, None));
    }

    /// Records that the host asked to wait; all pulls of this node wait.
    pub(super) fn asks_to_wait(&self, host: &str, wait: Duration, status: u16) {
        let until = Instant::now() + wait.min(LONGEST);
        self.with(host, |of| of.not_before = of.not_before.max(Some((until, status))));
    }

    /// How long to wait before the next request, and the HTTP status with which the host asked for that.
    pub(super) fn wait(&self, host: &str) -> Option<(Duration, u16)> {
        let (until, status) = self.with(host, |of| of.not_before)?;
        let wait = until.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())?;
        Some((wait, status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_fails_is_left_alone_longer_each_time_until_it_answers() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert!(!breaker.is_open(now));
        let open: Vec<u64> = (0..8).map(|_| breaker.failed(now, FIRST / 10).as_secs()).collect();
        assert_eq!(open, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert!(breaker.is_open(now) && !breaker.is_open(now + LONGEST));
        let mut slow = Breaker::default();
        assert_eq!(slow.failed(now, 2 * FIRST), 2 * FIRST * COST_FACTOR);
        assert_eq!(slow.failed(now, Duration::MAX), LONGEST);
    }

    #[test]
    fn hosts_are_kept_apart_and_an_answer_closes_again() {
        let breakers = Breakers::default();
        assert_eq!(breakers.failed("a", Duration::ZERO), Some(FIRST));
        assert_eq!(breakers.failed("a", Duration::ZERO), None, "it is open already");
        assert!(breakers.is_open("a") && !breakers.is_open("b"));
        assert_eq!(breakers.states(), BreakerStates { closed: 1, open: 1, half_open: 0 });
        breakers.answered("a");
        assert!(!breakers.is_open("a"));
        assert_eq!(breakers.states(), BreakerStates { closed: 2, open: 0, half_open: 0 });
        breakers.asks_to_wait("a", Duration::from_secs(30), 503);
        breakers.asks_to_wait("a", Duration::from_secs(1), 429);
        breakers.asks_to_wait("b", Duration::MAX, 429);
        assert!(breakers.wait("b").unwrap().0 <= LONGEST);
        let (wait, status) = breakers.wait("a").unwrap();
        assert!(wait > Duration::from_secs(20) && status == 503 && breakers.wait("c").is_none());
    }
}
