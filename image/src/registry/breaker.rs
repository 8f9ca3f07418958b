// SPDX-License-Identifier: Apache-2.0
//! Circuit breakers: hosts that are not requested for a while, because they failed or asked for it.
//!
//! ```text
//! closed ──connection fails───→ open (10 s, doubled each time, at most 5 min) ──→ half-open, one try
//!    ↑──────────────────────────────an answer, whatever it says───────────────────────┘
//! ```
//!
//! The rule: a mirror that is dead costs one connection attempt per period, not one per layer. The
//! last endpoint is requested even when its breaker is open: there is no other.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// The largest number of hosts; beyond it all are forgotten.
const HOSTS_MAX: usize = 1024;

/// The breaker of one host.
#[derive(Debug, Clone, Default)]
struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
    /// The time before which the registry asked for no requests.
    not_before: Option<Instant>,
}

impl Breaker {
    fn failed(&mut self, now: Instant) -> Duration {
        let open = FIRST.saturating_mul(1 << self.failures.min(8)).min(LONGEST);
        self.failures += 1;
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

    /// Whether the breaker of the host is open.
    pub(super) fn is_open(&self, host: &str) -> bool {
        self.with(host, |of| of.is_open(Instant::now()))
    }

    /// Records a failed connection. Returns how long the breaker is open, if it was closed.
    pub(super) fn failed(&self, host: &str) -> Option<Duration> {
        let now = Instant::now();
        self.with(host, |of| (!of.is_open(now)).then(|| of.failed(now)))
    }

    /// Records a response, which closes the breaker.
    pub(super) fn answered(&self, host: &str) {
        self.with(host, |of| (of.failures, of.open_until) = (0, None));
    }

    /// Records that the host asked to wait; all pulls of this node wait.
    pub(super) fn asks_to_wait(&self, host: &str, wait: Duration) {
        let until = Instant::now() + wait;
        self.with(host, |of| of.not_before = of.not_before.max(Some(until)));
    }

    /// How long to wait before the next request.
    pub(super) fn wait(&self, host: &str) -> Option<Duration> {
        let wait = self.with(host, |of| of.not_before)?.checked_duration_since(Instant::now());
        wait.filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_fails_is_left_alone_longer_each_time_until_it_answers() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert!(!breaker.is_open(now));
        let open: Vec<u64> = (0..8).map(|_| breaker.failed(now).as_secs()).collect();
        assert_eq!(open, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert!(breaker.is_open(now) && !breaker.is_open(now + LONGEST));
    }

    #[test]
    fn hosts_are_kept_apart_and_an_answer_closes_again() {
        let breakers = Breakers::default();
        assert_eq!(breakers.failed("a"), Some(FIRST));
        assert_eq!(breakers.failed("a"), None, "it is open already");
        assert!(breakers.is_open("a") && !breakers.is_open("b"));
        breakers.answered("a");
        assert!(!breakers.is_open("a"));
        breakers.asks_to_wait("a", Duration::from_secs(30));
        breakers.asks_to_wait("a", Duration::from_secs(1));
        assert!(
            breakers.wait("a").unwrap() > Duration::from_secs(20) && breakers.wait("b").is_none()
        );
    }
}
