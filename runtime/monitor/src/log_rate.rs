// SPDX-License-Identifier: Apache-2.0
//! The rate at which a log may grow, with a burst.
//!
//! Every byte costs time, and time is what the log has: it is paid up to a moment that may be as far in the future as a
//! burst lasts. One moment is all that is kept, and nothing is rounded away between calls.

use hull_proto::monitor::LogRate;
use std::time::{Duration, Instant};

/// The longest burst that is kept account of.
const BURST_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a stream waits at least, unless the burst is whole before.
const WAIT_STEP: Duration = Duration::from_millis(50);

/// A limit on the rate of a log.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_per_s: u64,
    /// The time that a burst costs.
    burst: Duration,
    /// Up to when the log so far is paid.
    paid: Instant,
}

impl Rate {
    pub(crate) fn new(rate: LogRate, now: Instant) -> Self {
        let bytes_per_s = rate.bytes_per_s.max(1);
        let burst = cost(rate.burst_bytes, bytes_per_s).min(BURST_MAX);
        Self { bytes_per_s, burst, paid: now }
    }

    /// Whether so many bytes are within the burst.
    pub(crate) fn admits(&self, bytes: usize, now: Instant) -> bool {
        let owed = self.owed(now).saturating_add(self.cost(bytes));
        owed <= self.burst
    }

    /// Whether half of a burst is free again. What was dropped for the rate goes on only then: else a few lines would
    /// pass between every two notices.
    pub(crate) fn has_recovered(&self, now: Instant) -> bool {
        self.owed(now) <= self.burst / 2
    }

    /// Adds bytes to the account, whether they are within the burst or not.
    pub(crate) fn charge(&mut self, bytes: usize, now: Instant) {
        let from = self.paid.max(now);
        self.paid = from.checked_add(self.cost(bytes)).unwrap_or(from);
    }

    /// How many bytes are within the burst, if that is `least` or more; else the time at which it is worth to look
    /// again. `least` is bounded by the burst, so that time comes.
    pub(crate) fn room(&self, least: usize, now: Instant) -> Result<usize, Instant> {
        let free = self.burst.saturating_sub(self.owed(now));
        let needed = self.cost(least).min(self.burst);
        let Some(missing) = needed.checked_sub(free).filter(|missing| !missing.is_zero()) else {
            let bytes = free.as_nanos() * u128::from(self.bytes_per_s) / 1_000_000_000;
            return Ok(usize::try_from(bytes).unwrap_or(usize::MAX));
        };
        // Not for every few bytes: what collects in a while is read at once.
        let wait = missing.saturating_add(WAIT_STEP).min(self.burst.saturating_sub(free));
        Err(now.checked_add(wait.max(missing)).unwrap_or(now))
    }

    /// Has the whole burst again.
    pub(crate) fn refill(&mut self, now: Instant) {
        self.paid = now;
    }

    pub(crate) fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s
    }

    fn owed(&self, now: Instant) -> Duration {
        self.paid.saturating_duration_since(now)
    }

    fn cost(&self, bytes: usize) -> Duration {
        cost(u64::try_from(bytes).unwrap_or(u64::MAX), self.bytes_per_s)
    }
}

fn cost(bytes: u64, bytes_per_s: u64) -> Duration {
    let ns = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_s);
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_proto::monitor::LogPolicy;

    fn rate(bytes_per_s: u64, burst_bytes: u64, now: Instant) -> Rate {
        Rate::new(LogRate { bytes_per_s, burst_bytes, policy: LogPolicy::Drop }, now)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut of = rate(1000, 5000, start);
        for _ in 0..5 {
            assert!(of.admits(1000, start));
            of.charge(1000, start);
        }
        assert!(!of.admits(1, start));
        assert!(!of.has_recovered(start));
        let later = start + Duration::from_millis(10);
        assert!(of.admits(10, later));
        assert!(!of.admits(11, later));
        assert!(of.has_recovered(start + Duration::from_millis(2500)));
        // A long rest gives no more than a burst.
        assert!(!of.admits(5001, start + Duration::from_secs(1000)));
    }

    #[test]
    fn small_steps_add_up_to_the_rate() {
        let start = Instant::now();
        let mut of = rate(1000, 2000, start);
        of.charge(2000, start);
        // Half a byte is paid in each.
        let passed = (1..=20_000_u32).filter(|step| {
            let now = start + Duration::from_micros(500) * *step;
            let admits = of.admits(1, now);
            if admits {
                of.charge(1, now);
            }
            admits
        });
        assert_eq!(passed.count(), 10_000);
    }

    #[test]
    fn who_waits_waits_for_the_room_that_is_needed() {
        let start = Instant::now();
        let mut of = rate(1000, 2000, start);
        assert_eq!(of.room(100, start), Ok(2000));
        of.charge(1950, start);
        let then = start + Duration::from_millis(50) + WAIT_STEP;
        assert_eq!(of.room(100, start), Err(then));
        assert_eq!(of.room(100, then), Ok(150));
        // More than the burst is never free.
        let whole = start + Duration::from_millis(1950);
        assert_eq!(of.room(5000, start), Err(whole));
        assert_eq!(of.room(5000, whole), Ok(2000));
        of.charge(5000, whole);
        assert_eq!(of.room(0, whole), Ok(0));
        of.refill(whole);
        assert_eq!(of.room(5000, whole), Ok(2000));
    }

    #[test]
    fn numbers_without_sense_end_nothing() {
        let start = Instant::now();
        let mut of = rate(0, u64::MAX, start);
        of.charge(usize::MAX, start);
        of.charge(usize::MAX, start);
        let _any = of.room(usize::MAX, start);
    }
}
