// SPDX-License-Identifier: Apache-2.0
//! Detects that a stream makes no progress.
//!
//! Pure. The rule: only time spent waiting for the network counts, so a slow disk is not a stall;
//! and only time without progress counts, so a large layer may take hours.

use std::time::Duration;

/// The least number of bytes within the stall time that counts as progress.
const BYTES_MIN: u64 = 1 << 10;

/// The progress of one stream.
#[derive(Debug)]
pub(super) struct StallDetector {
    stall: Duration,
    waited: Duration,
    bytes: u64,
}

impl StallDetector {
    pub(super) fn new(stall: Duration) -> Self {
        Self { stall, waited: Duration::ZERO, bytes: 0 }
    }

    /// The time limit for the next bytes.
    pub(super) fn time_left(&self) -> Duration {
        self.stall.saturating_sub(self.waited)
    }

    /// Records bytes that were received after a wait.
    pub(super) fn received(&mut self, bytes: u64, after: Duration) {
        self.waited += after;
        self.bytes += bytes;
        if self.bytes >= BYTES_MIN {
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn patience_ends_when_hardly_anything_comes_and_is_new_when_something_does() {
        let mut stall = StallDetector::new(10 * SECOND);
        for left in (0..9).rev() {
            stall.received(1, SECOND);
            assert_eq!(stall.time_left(), (left + 1) * SECOND);
        }
        stall.received(BYTES_MIN, SECOND / 2);
        assert_eq!(stall.time_left(), 10 * SECOND);
        stall.received(0, 11 * SECOND);
        assert_eq!(stall.time_left(), Duration::ZERO);
    }
}
