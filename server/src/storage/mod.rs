// SPDX-License-Identifier: Apache-2.0
//! Calls to file systems that are not Hull's own, such as pods' log directories: one that never answers (a dead
//! NFS or FUSE server) must delay only the calls that need it.
//!
//! ```text
//! call ─▶ a place ─▶ a thread ── answers ─▶ done
//!           └── none, or the directory hangs already ─▶ UNAVAILABLE
//!                                └── STORAGE_MAX ─▶ UNAVAILABLE; the thread stays, the directory counts as hanging
//! ```
//!
//! The rule: no thread of the runtime makes such a call, and a directory that is known to hang is not asked again, so it
//! holds no further thread. A thread that is stuck ends with its file system.

mod blocking;

pub(crate) use blocking::blocking;

use crate::error::Error;
use crate::limits;
use crate::limits::waits;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// The directories that hang, and places for calls.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    /// How long a call may take.
    limit: Duration,
    places: Arc<Semaphore>,
    hung: Arc<Mutex<BTreeSet<String>>>,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            limit: waits::STORAGE_MAX,
            places: Arc::new(Semaphore::new(limits::STORAGE_CALLS.count())),
            hung: Arc::default(),
        }
    }
}

impl Storage {
    /// Does `work`, which is about `directory` and what lies in it, on a thread.
    ///
    /// # Errors
    /// It has not ended within [`waits::STORAGE_MAX`], or an earlier one still has not. It may end later.
    pub(crate) async fn within<T: Send + 'static>(
        &self,
        doing: &'static str,
        directory: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let hangs = || Error::Storage { doing, directory: directory.to_owned() };
        if self.hung().contains(directory) {
            return Err(hangs());
        }
        let until = Instant::now() + self.limit;
        let place = timeout_at(until, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(hangs()) };
        let ended = Arc::new(AtomicBool::new(false));
        let call = tokio::task::spawn_blocking({
            let (hung, key, ended) =
                (Arc::clone(&self.hung), directory.to_owned(), Arc::clone(&ended));
            let span = tracing::Span::current();
            move || {
                let done = span.in_scope(work);
                let mut hung = lock(&hung);
                ended.store(true, Ordering::Relaxed);
                hung.remove(&key);
                drop(place);
                done
            }
        });
        match timeout_at(until, call).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
            Err(_late) => {}
        }
        let mut hung = self.hung();
        // Read under the lock: it may have ended just now.
        if !ended.load(Ordering::Relaxed) {
            hung.insert(directory.to_owned());
        }
        Err(hangs())
    }

    fn hung(&self) -> MutexGuard<'_, BTreeSet<String>> {
        lock(&self.hung)
    }
}

/// Nothing in there is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]
    use super::*;

    #[tokio::test]
    async fn a_directory_that_hangs_is_not_asked_again_until_it_answers_and_keeps_no_other_waiting()
    {
        let storage = Storage { limit: Duration::from_millis(20), ..Storage::default() };
        let (answer, wait) = std::sync::mpsc::channel::<()>();
        let stuck = storage.within("open", "/hangs", move || wait.recv()).await;
        assert!(matches!(stuck, Err(Error::Storage { .. })));
        let refused = storage.within("open", "/hangs", || panic!("it is not tried again")).await;
        assert!(matches!(refused, Err(Error::Storage { .. })));
        let other = Storage { limit: waits::STORAGE_MAX, ..storage.clone() };
        assert_eq!(other.within("open", "/answers", || 7).await.unwrap(), 7);
        answer.send(()).unwrap();
        // The thread that was stuck takes its directory off the list when it ends.
        while storage.hung().contains("/hangs") {
            tokio::task::yield_now().await;
        }
        let again = Storage { limit: waits::STORAGE_MAX, ..storage };
        assert_eq!(again.within("open", "/hangs", || 8).await.unwrap(), 8);
    }
}
