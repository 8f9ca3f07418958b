// SPDX-License-Identifier: Apache-2.0
//! Work that somebody waits for, and whether it may go on: who asked has not left, and it has not taken
//! more of the processor than it may.
//!
//! The rule: whatever takes longer the larger an image is asks between any two pieces of bounded size.

use super::budget::LAYER_SECONDS;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Some work. Clones are parts of the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    is_over: Arc<AtomicBool>,
}

/// Held by who wants the work done: it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Guard(Work);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Why work was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    #[error("given up: who asked for it has left, or it failed elsewhere")]
    Unwanted,
    #[error("given up after the {max} s of processor time that it may take (`{}`)", LAYER_SECONDS.name)]
    Seconds { max: u64 },
}

impl Ended {
    /// That error, if it is one.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl Work {
    /// Work that ends when the other one is dropped.
    pub(crate) fn guarded() -> (Self, Guard) {
        let work = Self::default();
        (work.clone(), Guard(work))
    }

    /// Ends it soon.
    pub(crate) fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether it may go on.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(io::Error::other(Ended::Unwanted));
        }
        Ok(())
    }

    /// This thread's part of it, which may take so many seconds of the processor.
    pub(crate) fn shift(&self, seconds: u64) -> Shift {
        let work = self.clone();
        Shift { work, seconds, until: processor_seconds().saturating_add(seconds) }
    }
}

/// What one thread does of some work.
#[derive(Debug)]
pub(crate) struct Shift {
    work: Work,
    seconds: u64,
    until: u64,
}

impl Shift {
    /// Whether it may go on.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.work.check()?;
        if processor_seconds() > self.until {
            return Err(io::Error::other(Ended::Seconds { max: self.seconds }));
        }
        Ok(())
    }
}

/// That this thread has had, `CLOCK_THREAD_CPUTIME_ID` of `clock_gettime(2)`.
fn processor_seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::ThreadCPUTime).tv_sec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_ends_with_who_wants_it_and_with_its_time() {
        let (work, guard) = Work::guarded();
        work.check().unwrap();
        let shift = work.shift(0);
        let ended = loop {
            if let Err(err) = shift.check() {
                break Ended::of(&err);
            }
        };
        assert_eq!(ended, Some(Ended::Seconds { max: 0 }));
        drop(guard);
        assert_eq!(Ended::of(&work.shift(9).check().unwrap_err()), Some(Ended::Unwanted));
    }
}
