// SPDX-License-Identifier: Apache-2.0
//! The turns of reloads, and what the last one said.

use crate::config::Change;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The reloads of the daemon: one at a time.
#[derive(Debug)]
pub(crate) struct Reloads {
    turn: Arc<Semaphore>,
    /// The settings that were last named as waiting for a restart.
    named: Mutex<Vec<Change>>,
}

impl Default for Reloads {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), named: Mutex::default() }
    }
}

impl Reloads {
    /// Waits for the turn of a reload, which lasts until it is dropped.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.turn).acquire_owned().await.ok()
    }

    /// Whether others wait for a restart than those that were named.
    pub(super) fn is_news(&self, waiting: &[Change]) -> bool {
        // The lock holds a list, which a panic leaves whole.
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *named != waiting;
        waiting.clone_into(&mut named);
        is_news
    }
}
