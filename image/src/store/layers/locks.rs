// SPDX-License-Identifier: Apache-2.0
//! One unpacking of a layer at a time, whichever images the layer belongs to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A lock for each layer that is being unpacked.
#[derive(Debug, Default)]
pub(crate) struct LayerLocks {
    of: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl LayerLocks {
    /// Waits until no other pull or import unpacks `layer`.
    pub(crate) async fn lock(&self, layer: &str) -> Option<OwnedSemaphorePermit> {
        let lock = {
            let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
            of.retain(|_, lock| lock.strong_count() > 0);
            let known = of.get(layer).and_then(Weak::upgrade);
            let lock = known.unwrap_or_else(|| Arc::new(Semaphore::new(1)));
            of.insert(layer.to_owned(), Arc::downgrade(&lock));
            lock
        };
        lock.acquire_owned().await.ok()
    }
}
