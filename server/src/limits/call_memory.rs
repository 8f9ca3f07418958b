// SPDX-License-Identifier: Apache-2.0
//! The memory budget of all calls together, so that too many large ones at a time are refused, before the daemon
//! is killed.
//!
//! ```text
//! request body ──▶ counted as it comes ─┐
//!                                       ├─ a lease on `runtime.call_memory_bytes_max`
//! ExecSync output ▶ counted as it grows ┘   ▶ goes with the last byte of the answer
//! ```
//!
//! A method that receives a stream of messages gives each of them back when it is done with it ([`Received`]).
//!
//! The rule: small calls are never refused. The first [`FREE_BYTES`] of each request and of each stream of output are
//! not counted; all beyond is counted before it is kept, twice, as a message and its fields are there side by
//! side. A call that finds nothing left gets RESOURCE_EXHAUSTED at once; no call waits while it holds a part.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Of each request and each stream of output this much is not counted, in bytes.
pub(crate) const FREE_BYTES: usize = crate::limits::CALL_FREE_BYTES.count();
/// How often a byte is there at a time: encoded, and decoded.
const COPIES: u64 = 2;

/// All that calls may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    most: AtomicU64,
    used: AtomicU64,
}

/// The budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsedUp {
    pub(crate) most: u64,
}

impl Budget {
    pub(crate) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most: AtomicU64::new(most), used: AtomicU64::new(0) })
    }

    /// Changes how much there is. What is leased stays leased.
    pub(crate) fn set_most(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// A lease on nothing yet.
    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        Lease { of: Arc::clone(self), held: 0 }
    }
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    of: Arc<Budget>,
    held: u64,
}

impl Lease {
    /// Counts `bytes` more, and their copies.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), UsedUp> {
        let most = self.of.most.load(Ordering::Relaxed);
        let more = (bytes as u64).saturating_mul(COPIES);
        let grown = |used: u64| used.checked_add(more).filter(|used| *used <= most);
        match self.of.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) {
            Ok(_) => {
                self.held += more;
                Ok(())
            }
            Err(_) => Err(UsedUp { most }),
        }
    }
}

impl Lease {
    /// Gives back `bytes` that were counted, and their copies.
    fn shrink(&mut self, bytes: usize) {
        let less = (bytes as u64).saturating_mul(COPIES).min(self.held);
        self.held -= less;
        self.of.used.fetch_sub(less, Ordering::Relaxed);
    }
}

/// The lease on the body of a request, in the extensions of that request.
#[derive(Debug, Clone)]
pub(crate) struct Received(Arc<Mutex<Lease>>);

impl Received {
    pub(crate) fn new(lease: Lease) -> Self {
        Self(Arc::new(Mutex::new(lease)))
    }

    /// Counts `bytes` more of the body.
    pub(crate) fn grow(&self, bytes: usize) -> Result<(), UsedUp> {
        // Nothing in there is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).grow(bytes)
    }

    /// Gives back `bytes` of messages that are no longer in memory.
    pub(crate) fn release(&self, bytes: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).shrink(bytes);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// A lease that a response holds until its last byte is sent; kept in the extensions of the response.
#[derive(Debug, Clone)]
pub(crate) struct Held(#[expect(dead_code, reason = "it is held, not looked at")] Arc<Lease>);

impl Held {
    pub(crate) fn new(lease: Lease) -> Self {
        Self(Arc::new(lease))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_leased_comes_back_and_nobody_gets_more_than_there_is() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.lease(), budget.lease());
        one.grow(30).unwrap();
        two.grow(20).unwrap();
        assert_eq!(two.grow(1), Err(UsedUp { most: 100 }));
        assert_eq!(one.grow(usize::MAX), Err(UsedUp { most: 100 }));
        drop(one);
        two.grow(30).unwrap();
        budget.set_most(60);
        assert_eq!(two.grow(1), Err(UsedUp { most: 60 }));
        drop(two);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_stream_of_messages_needs_no_more_than_one_of_them() {
        let budget = Budget::new(100);
        let received = Received::new(budget.lease());
        for _ in 0..10 {
            received.grow(40).unwrap();
            received.release(38);
            // The rest of each is its frame.
            assert!(budget.used.load(Ordering::Relaxed) <= 100);
            received.release(2);
        }
        // No more comes back than was counted.
        received.release(usize::MAX);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
