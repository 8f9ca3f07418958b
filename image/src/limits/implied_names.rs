// SPDX-License-Identifier: Apache-2.0
//! Memory for the names of directories that layers imply, shared by the layers of one pull or import.
//!
//! The rule: a layer's part counts until it is dropped. A layer that waits for those below keeps its names, and an image
//! may have hundreds of such layers.

use super::budget::IMPLIED_NAME_BYTES;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The part of one layer, in bytes, given back on drop.
#[derive(Debug, Default)]
pub(crate) struct ImpliedNames {
    of_all: Arc<AtomicU64>,
    bytes: u64,
}

impl ImpliedNames {
    /// The part of another layer, which has nothing yet. `of_all` counts the bytes of all layers.
    pub(super) fn new(of_all: Arc<AtomicU64>) -> Self {
        Self { of_all, bytes: 0 }
    }

    /// Takes `bytes` more; returns whether all layers together stay within the limit.
    pub(crate) fn take(&mut self, bytes: u64) -> bool {
        let before = self.of_all.fetch_add(bytes, Ordering::Relaxed);
        self.bytes = self.bytes.saturating_add(bytes);
        before.saturating_add(bytes) <= IMPLIED_NAME_BYTES.default
    }

    /// Gives `bytes` back that were taken.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.of_all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for ImpliedNames {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use crate::limits::{IMPLIED_NAME_BYTES, Work};

    #[test]
    fn the_names_of_all_layers_of_a_pull_count_together() {
        let work = Work::default();
        let most = IMPLIED_NAME_BYTES.default;
        let (mut one, mut other) = (work.implied_names(), work.implied_names());
        assert!(one.take(most / 2) && other.take(most / 2) && !other.take(1));
        other.give_back(most);
        assert!(one.take(most / 2) && !one.take(1));
        drop(one);
        assert!(other.take(most) && Work::default().implied_names().take(most));
    }
}
