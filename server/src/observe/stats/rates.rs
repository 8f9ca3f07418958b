// SPDX-License-Identifier: Apache-2.0
//! CPU per second, without a loop that polls: the difference to the counter at the last request.
//!
//! The rule: an answer covers at least [`WINDOW_MIN_NS`]. An earlier or
//! concurrent request gets the rate of the last window; the first request, the average since the start.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Over a shorter window, a rate depends on the moment of reading more than on the load.
const WINDOW_MIN_NS: i64 = 1_000_000_000;

/// The counter at the end of a window, and the rate of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    at_ns: i64,
    usage_ns: u64,
    rate: u64,
}

/// The last window of each pod and container that was requested, by id.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    last: Mutex<HashMap<String, Sample>>,
}

impl Rates {
    /// Nanoseconds of CPU per second of what began at `began_ns` and has used `usage_ns` by now.
    pub(super) fn rate(&self, id: &str, began_ns: i64, at_ns: i64, usage_ns: u64) -> u64 {
        // Single inserts: a panic leaves nothing half done.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (rate, closed) = next(last.get(id).copied(), began_ns, at_ns, usage_ns);
        if let Some(sample) = closed {
            last.insert(id.to_owned(), sample);
        }
        rate
    }

    /// Forgets a pod or container.
    pub(crate) fn forget(&self, id: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// The rate to tell, and the sample that closes a window.
fn next(last: Option<Sample>, began_ns: i64, at_ns: i64, usage_ns: u64) -> (u64, Option<Sample>) {
    let from = last.unwrap_or(Sample { at_ns: began_ns, usage_ns: 0, rate: 0 });
    let elapsed_ns = at_ns.saturating_sub(from.at_ns);
    if elapsed_ns < WINDOW_MIN_NS
        && let Some(last) = last
    {
        return (last.rate, None);
    }
    let used = u128::from(usage_ns.saturating_sub(from.usage_ns));
    let rate = match u128::try_from(elapsed_ns) {
        // The clock was set back.
        Ok(0) | Err(_) => 0,
        Ok(elapsed) => u64::try_from(used * 1_000_000_000 / elapsed).unwrap_or(u64::MAX),
    };
    let is_whole = elapsed_ns >= WINDOW_MIN_NS;
    (rate, is_whole.then_some(Sample { at_ns, usage_ns, rate }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn the_first_answer_is_the_average_and_the_next_is_of_the_window() {
        let rates = Rates::default();
        assert_eq!(rates.rate("a", 10 * S, 14 * S, 2_000_000_000), 500_000_000);
        // Somebody else asks a moment later, when a burst has just been counted.
        assert_eq!(rates.rate("a", 10 * S, 14 * S + 5, 2_000_900_000), 500_000_000);
        assert_eq!(rates.rate("a", 10 * S, 16 * S, 2_200_000_000), 100_000_000);
        rates.forget("a");
        assert_eq!(rates.rate("a", 10 * S, 20 * S, 1_000_000_000), 100_000_000);
    }

    #[test]
    fn what_has_just_begun_has_a_rate_and_no_window_yet() {
        assert_eq!(next(None, S, S + S / 2, 250_000_000), (500_000_000, None));
        assert_eq!(next(None, S, S, 5), (0, None));
    }

    #[test]
    fn a_clock_set_back_and_a_counter_that_falls_are_survived() {
        let last = Some(Sample { at_ns: 9 * S, usage_ns: 100, rate: 7 });
        assert_eq!(next(last, 0, 5 * S, 200), (7, None));
        assert_eq!(next(last, 0, 11 * S, 50).0, 0);
        assert_eq!(next(None, 9 * S, 5 * S, 200), (0, None));
    }
}
