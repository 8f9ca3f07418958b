// SPDX-License-Identifier: Apache-2.0
//! The rate at which a log may grow, with a burst.
//!
//! Every byte costs time, and time is what the log has: it is paid up to a moment that may be as far in the future as a
//! burst lasts. One moment is all that is kept, and nothing is rounded away between calls.

use hull_proto::monitor::LogRate;
use std::time::{Duration, Instant};

/// The longest burst that is kept account of.
const BURST_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

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

    /// When the log is within its burst again, if it is not.
    pub(crate) fn wait_until(&self, now: Instant) -> Option<Instant> {
        let over = self.owed(now).checked_sub(self.burst).filter(|over| !over.is_zero())?;
        now.checked_add(over)
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
    fn who_waits_waits_for_what_is_over_the_burst() {
        let start = Instant::now();
        let mut of = rate(1000, 2000, start);
        assert_eq!(of.wait_until(start), None);
        of.charge(3500, start);
        assert_eq!(of.wait_until(start), Some(start + Duration::from_millis(1500)));
        assert_eq!(of.wait_until(start + Duration::from_millis(1500)), None);
    }

    #[test]
    fn numbers_without_sense_end_nothing() {
        let start = Instant::now();
        let mut of = rate(0, u64::MAX, start);
        of.charge(usize::MAX, start);
        of.charge(usize::MAX, start);
        let _any = of.wait_until(start);
    }
}
