// SPDX-License-Identifier: Apache-2.0
//! Cancellation of work: when its caller leaves, or when it has used its processor time.
//!
//! The rule: work that grows with the size of an image checks between any two pieces of bounded size.

use super::budget::LAYER_SECONDS;
use super::implied_names::ImpliedNames;
use super::windows::{Window, Windows};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Work that can be cancelled. Clones belong to the same work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    is_over: Arc<AtomicBool>,
    windows: Arc<Windows>,
    /// The memory of all layers for the names of implied directories, in bytes.
    implied_bytes: Arc<AtomicU64>,
}

/// Held by the caller: dropping it cancels the work.
#[derive(Debug)]
pub(crate) struct Guard(Work);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Why work was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    #[error("cancelled: the caller left, or another part failed")]
    Unwanted,
    #[error("cancelled after {max} s of processor time (`{}`)", LAYER_SECONDS.name)]
    Seconds { max: u64 },
}

impl Ended {
    /// The cancellation in an I/O error, if it is one.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl Work {
    /// Work, and the guard that cancels it on drop.
    pub(crate) fn guarded() -> (Self, Guard) {
        let work = Self::default();
        (work.clone(), Guard(work))
    }

    /// Cancels the work.
    pub(crate) fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.windows.wake();
    }

    /// Memory for a zstd window of `bytes`, once the other layers of this work leave enough of it.
    ///
    /// # Errors
    /// The work was cancelled meanwhile.
    pub(crate) fn window(&self, bytes: u64) -> io::Result<Window> {
        self.windows.take(bytes, || self.check())
    }

    /// The memory of one more layer for the names of directories that it implies, which all layers share.
    pub(crate) fn implied_names(&self) -> ImpliedNames {
        ImpliedNames::new(Arc::clone(&self.implied_bytes))
    }

    /// Fails if the work was cancelled.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(io::Error::other(Ended::Unwanted));
        }
        Ok(())
    }

    /// This thread's part of the work, limited to `seconds` of processor time.
    pub(crate) fn shift(&self, seconds: u64) -> Shift {
        let work = self.clone();
        Shift { work, seconds, until: processor_seconds().saturating_add(seconds) }
    }
}

/// One thread's part of some work.
#[derive(Debug)]
pub(crate) struct Shift {
    work: Work,
    seconds: u64,
    until: u64,
}

impl Shift {
    /// The work that this is a part of.
    pub(crate) fn work(&self) -> &Work {
        &self.work
    }

    /// Fails if the work was cancelled.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.work.check()?;
        if processor_seconds() > self.until {
            return Err(io::Error::other(Ended::Seconds { max: self.seconds }));
        }
        Ok(())
    }
}

/// Processor time of this thread: `CLOCK_THREAD_CPUTIME_ID` of `clock_gettime(2)`.
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
