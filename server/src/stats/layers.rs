// SPDX-License-Identifier: Apache-2.0
//! What containers have written: walked when somebody asks, and no more often than it is worth.
//!
//! The rule: a walk is good for [`WORTH`] times what it took, so asking costs a hundredth of a CPU at
//! most, however many files there are and however often it is asked; up to [`AGE_MAX`], because
//! eviction goes by it. An answer tells when it was true. Who asks for the sum of all is told it as it is
//! known, and waits for no walk: those that are due are made behind its back, for who asks next.

use crate::node::{Node, now_ns};
use hull_image::FsUsage;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

const WORTH: u32 = 100;
const AGE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
struct Walk {
    usage: FsUsage,
    at_ns: i64,
    ended: Instant,
    took: Duration,
}

/// The last walk of each container's layer, by its id.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    last: Mutex<HashMap<String, Walk>>,
    /// Held by who makes the walks that are due.
    refreshing: Mutex<()>,
}

impl Layers {
    /// What a container holds, and when that was so. `None` when it has no layer any more.
    pub(super) fn usage(&self, node: &Node, container: &str) -> Option<(FsUsage, i64)> {
        if let Some(walk) = self.lock().get(container)
            && is_good(walk.took, walk.ended.elapsed())
        {
            return Some((walk.usage.clone(), walk.at_ns));
        }
        let (began, at_ns) = (Instant::now(), now_ns());
        let usage = node.images.rootfs_usage(container).ok()?;
        let walk = Walk { usage, at_ns, ended: Instant::now(), took: began.elapsed() };
        let told = (walk.usage.clone(), walk.at_ns);
        self.lock().insert(container.to_owned(), walk);
        Some(told)
    }

    /// Walks all layers whose last walk is not good any more, unless somebody does already. Blocks.
    pub(crate) fn refresh(&self, node: &Node) {
        let _turn = match self.refreshing.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let there: BTreeSet<String> = node.images.rootfs_ids().into_iter().collect();
        self.lock().retain(|container, _| there.contains(container));
        for container in &there {
            // One that is being removed has none any more.
            let _gone = self.usage(node, container);
        }
    }

    /// Forgets a container.
    pub(crate) fn forget(&self, container: &str) {
        self.lock().remove(container);
    }

    /// Held for a look-up or a single insert, never while walking.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Walk>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_good(took: Duration, age: Duration) -> bool {
    age < took.saturating_mul(WORTH).min(AGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_good_for_as_long_as_it_was_dear() {
        let ms = Duration::from_millis;
        assert!(is_good(ms(1), ms(99)));
        assert!(!is_good(ms(1), ms(101)));
        assert!(is_good(ms(5000), ms(59_000)));
        assert!(!is_good(ms(5000), ms(61_000)), "eviction must not go by what is long past");
    }
}
