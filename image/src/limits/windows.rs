// SPDX-License-Identifier: Apache-2.0
//! Memory for the windows of zstd decoders, shared by the layers of one pull or import.
//!
//! The rule: one pull never waits for another. A registry that sends slowly holds only its own layers' windows.

use super::budget::ZSTD_WINDOWS_BYTES;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The windows of one pull.
#[derive(Debug, Default)]
pub(super) struct Windows {
    used: Mutex<u64>,
    freed: Condvar,
}

/// A window's memory, given back on drop.
#[derive(Debug)]
pub(crate) struct Window {
    of: Arc<Windows>,
    bytes: u64,
}

impl Windows {
    /// Waits until `bytes` are free. Calls `check` at each change; its error ends the wait.
    pub(super) fn take(
        self: &Arc<Self>,
        bytes: u64,
        check: impl Fn() -> io::Result<()>,
    ) -> io::Result<Window> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // One window always fits, however small the limit is.
        while *used > 0 && used.saturating_add(bytes) > ZSTD_WINDOWS_BYTES.default {
            check()?;
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        check()?;
        *used += bytes;
        Ok(Window { of: Arc::clone(self), bytes })
    }

    /// Has all that wait look whether they are still wanted.
    pub(super) fn wake(&self) {
        // With the lock, so that no thread is between its check and its wait.
        let _used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.freed.notify_all();
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let mut used = self.of.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(self.bytes);
        self.of.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Work;

    #[test]
    fn windows_beyond_the_limit_wait_for_others_and_end_with_their_pull() {
        let (work, guard) = Work::guarded();
        let half = ZSTD_WINDOWS_BYTES.default / 2;
        let (one, _two) = (work.window(half).unwrap(), work.window(half).unwrap());
        std::thread::scope(|scope| {
            let third = scope.spawn(|| work.window(half));
            drop(one);
            let _third = third.join().unwrap().unwrap();
            let fourth = scope.spawn(|| work.window(half));
            drop(guard);
            fourth.join().unwrap().unwrap_err();
        });
        // Another pull has its own.
        Work::default().window(half).unwrap();
    }
}
