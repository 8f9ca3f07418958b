// SPDX-License-Identifier: Apache-2.0
//! The size of writable layers: walked on request, and no more often than it is worth.
//!
//! The rule: a walk is good for [`WORTH`] times what it took, so asking costs a hundredth of a CPU at
//! most, however many files there are and however often it is asked; up to [`AGE_MAX`], because
//! eviction goes by it. An answer tells when it was true. Walks are made by [`WALKERS_MAX`] threads of their own,
//! one of each container at a time. A request waits for [`PATIENCE`] at most, and for no walk of others: then
//! the earlier value is reported, and the walk goes on for the next request. It ends with the container.

use crate::node::now_ns;
use hull_image::{FsUsage, Measure, Store};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const WORTH: u32 = 100;
const AGE_MAX: Duration = Duration::from_secs(60);
/// Threads that walk.
const WALKERS_MAX: usize = crate::limits::WALKERS.count();
/// How long an answer waits for a walk.
const PATIENCE: Duration = crate::limits::WALK_MS.time();

#[derive(Debug, Clone)]
struct Walk {
    usage: FsUsage,
    at_ns: i64,
    ended: Instant,
    took: Duration,
}

/// The last walk of each container's layer, by its id, and those that are due.
#[derive(Debug, Default, Clone)]
pub(crate) struct Layers {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// A walk has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last: HashMap<String, Walk>,
    /// Due or under way.
    underway: HashMap<String, Underway>,
    due: VecDeque<String>,
    walkers: usize,
}

#[derive(Debug)]
struct Underway {
    measure: Measure,
    due_since: Instant,
    /// None while it is not begun.
    walked_since: Option<Instant>,
}

impl State {
    fn is_known(&self, container: &str) -> bool {
        self.last.get(container).is_some_and(|walk| is_good(walk.took, walk.ended.elapsed()))
    }

    /// How long a container's walk is worth waiting for: not at all once a request has waited in vain, and
    /// not for a turn that none of the walkers will give soon.
    fn patience(&self, container: &str) -> Duration {
        let is_slow = |of: &&Underway| of.walked_since.is_some_and(|at| at.elapsed() >= PATIENCE);
        if self.underway.values().filter(is_slow).count() >= WALKERS_MAX {
            return Duration::ZERO;
        }
        let walk = self.underway.get(container);
        walk.map_or(Duration::ZERO, |walk| PATIENCE.saturating_sub(walk.due_since.elapsed()))
    }
}

impl Layers {
    /// The usage of a container's layer, and when it was measured. `None` if it has no layer any more, or one that
    /// was not measured yet: that takes longer than a response may. Blocks for [`PATIENCE`] at most.
    pub(super) fn usage(&self, images: &Store, container: &str) -> Option<(FsUsage, i64)> {
        let mut state = self.lock();
        if !state.is_known(container) {
            self.begin(&mut state, images, container);
            let patience = state.patience(container);
            let is_under_way = |state: &mut State| state.underway.contains_key(container);
            let waited = self.shared.ended.wait_timeout_while(state, patience, is_under_way);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.last.get(container).map(|walk| (walk.usage.clone(), walk.at_ns))
    }

    /// Has all layers walked whose last walk is not good any more. Does not wait for that.
    pub(crate) fn refresh(&self, images: &Store) {
        let there: BTreeSet<String> = images.rootfs_ids().into_iter().collect();
        let mut state = self.lock();
        state.last.retain(|container, _| there.contains(container));
        for container in &there {
            if !state.is_known(container) {
                self.begin(&mut state, images, container);
            }
        }
    }

    /// Forgets a container, and ends its walk.
    pub(crate) fn forget(&self, container: &str) {
        let mut state = self.lock();
        state.last.remove(container);
        if let Some(walk) = state.underway.remove(container) {
            walk.measure.stop();
        }
        state.due.retain(|of| of != container);
    }

    /// Has a container walked, unless that is under way.
    fn begin(&self, state: &mut State, images: &Store, container: &str) {
        if !state.underway.contains_key(container) {
            let measure = Measure::default();
            let walk = Underway { measure, due_since: Instant::now(), walked_since: None };
            state.underway.insert(container.to_owned(), walk);
            state.due.push_back(container.to_owned());
        }
        if state.walkers < WALKERS_MAX && !state.due.is_empty() {
            let (layers, images) = (self.clone(), images.clone());
            let walker = std::thread::Builder::new().name("walk".into());
            // Without a thread it stays due, and the next request tries again.
            match walker.spawn(move || layers.work(&images)) {
                Ok(_) => state.walkers += 1,
                Err(err) => tracing::warn!(error = %err, "writable layers not measured"),
            }
        }
    }

    /// Walks until nothing is due.
    fn work(&self, images: &Store) {
        let mut state = self.lock();
        while let Some(container) = state.due.pop_front() {
            let (began, at_ns) = (Instant::now(), now_ns());
            let Some(walk) = state.underway.get_mut(&container) else { continue };
            walk.walked_since = Some(began);
            let measure = walk.measure.clone();
            drop(state);
            // One that is being removed has none any more.
            let usage = images.rootfs_measured(&container, &measure).ok();
            state = self.lock();
            // It was forgotten meanwhile if it is not there.
            if state.underway.remove(&container).is_some()
                && let Some(usage) = usage
            {
                let walk = Walk { usage, at_ns, ended: Instant::now(), took: began.elapsed() };
                state.last.insert(container, walk);
            }
            self.shared.ended.notify_all();
        }
        state.walkers -= 1;
    }

    /// Held for a look-up or a single insert, never while walking.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn walk(due: u64, walked: Option<u64>) -> Underway {
        let ago = |ms| Instant::now().checked_sub(Duration::from_millis(ms)).unwrap();
        Underway { measure: Measure::default(), due_since: ago(due), walked_since: walked.map(ago) }
    }

    #[test]
    fn nobody_waits_long_for_a_walk_nor_behind_those_of_others() {
        let mut state = State::default();
        assert_eq!(state.patience("quick"), Duration::ZERO, "it is not walked");
        state.underway.insert("quick".into(), walk(0, None));
        state.underway.insert("one".into(), walk(9000, Some(9000)));
        assert!(state.patience("quick") > Duration::ZERO);
        assert_eq!(state.patience("one"), Duration::ZERO, "somebody has waited for it");
        state.underway.insert("two".into(), walk(9000, Some(9000)));
        assert_eq!(state.patience("quick"), Duration::ZERO, "all walkers are at work for long");
    }
}
