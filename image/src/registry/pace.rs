// SPDX-License-Identifier: Apache-2.0
//! Whether a stream of bytes still goes on.
//!
//! Pure. The rule: only time spent waiting for the network counts, so that a slow disk is no stall;
//! and progress counts, not time in all, so that a large layer may take hours.

use std::time::Duration;

/// Bytes that must come within the time that nothing at all may take. Less is no progress that a pull
/// could live on.
const BYTES_MIN: u64 = 1 << 10;

/// How a stream goes on.
#[derive(Debug)]
pub(super) struct Pace {
    stall: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(stall: Duration) -> Self {
        Self { stall, waited: Duration::ZERO, bytes: 0 }
    }

    /// How long the next bytes may take.
    pub(super) fn patience(&self) -> Duration {
        self.stall.saturating_sub(self.waited)
    }

    /// Bytes came after a wait.
    pub(super) fn came(&mut self, bytes: u64, after: Duration) {
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
        let mut pace = Pace::new(10 * SECOND);
        for left in (0..9).rev() {
            pace.came(1, SECOND);
            assert_eq!(pace.patience(), (left + 1) * SECOND);
        }
        pace.came(BYTES_MIN, SECOND / 2);
        assert_eq!(pace.patience(), 10 * SECOND);
        pace.came(0, 11 * SECOND);
        assert_eq!(pace.patience(), Duration::ZERO);
    }
}
