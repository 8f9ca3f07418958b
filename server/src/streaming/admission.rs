// SPDX-License-Identifier: Apache-2.0
//! Limits on connections that have not shown a token yet, and on sessions.
//!
//! The rule: a connection without a token costs other clients nothing. Any process on the node can open one, and
//! on loopback its address does not identify it. So a new connection is always accepted: if all slots are taken,
//! the oldest connection is closed. A client with a URL sends its request at once, and leaves this list before
//! that can happen. Sessions have limits of their own, in total and for each container or pod.

use crate::limits;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// Most connections at a time that have not shown a token.
pub(super) const PENDING_MAX: usize = limits::WAITING.count();
/// Most sessions at a time.
const SESSIONS_MAX: usize = limits::SESSIONS.count();
/// Most sessions at a time of one container or pod.
const SESSIONS_EACH_MAX: usize = limits::SESSIONS_EACH.count();

/// The connections that have not shown a token.
#[derive(Debug, Clone, Default)]
pub(super) struct PendingConnections {
    list: Arc<Mutex<PendingList>>,
}

#[derive(Debug, Default)]
struct PendingList {
    next: u64,
    /// The oldest first, sorted by number.
    all: VecDeque<(u64, AbortHandle)>,
}

/// The slot of one connection. It is freed by `leave` or on drop.
#[derive(Debug)]
pub(super) struct PendingSlot {
    pending: PendingConnections,
    number: u64,
}

impl PendingConnections {
    /// Adds a connection and serves it by `serve`. If there are too many, the oldest one is closed.
    pub(super) fn enter(&self, serve: impl FnOnce(PendingSlot) -> AbortHandle) {
        let mut list = lock(&self.list);
        if list.all.len() >= PENDING_MAX
            && let Some((_, oldest)) = list.all.pop_front()
        {
            oldest.abort();
        }
        let number = list.next;
        list.next += 1;
        // It cannot leave before it is in the list: that takes the lock.
        let handle = serve(PendingSlot { pending: self.clone(), number });
        list.all.push_back((number, handle));
    }
}

impl PendingSlot {
    /// Removes the connection from the list, so newer ones do not close it.
    pub(super) fn leave(&self) {
        let mut list = lock(&self.pending.list);
        if let Ok(at) = list.all.binary_search_by_key(&self.number, |(number, _)| *number) {
            drop(list.all.remove(at));
        }
    }
}

impl Drop for PendingSlot {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The number of sessions by the id of their container or pod.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions {
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

/// The slot of one session. It is freed on drop.
#[derive(Debug)]
pub(super) struct SessionSlot {
    sessions: Sessions,
    id: String,
}

impl Sessions {
    /// A slot for a session of the container or pod `id`; `None` if there are too many.
    pub(super) fn enter(&self, id: &str) -> Option<SessionSlot> {
        let mut all = lock(&self.counts);
        let each = all.get(id).copied().unwrap_or(0);
        if each >= SESSIONS_EACH_MAX || all.values().sum::<usize>() >= SESSIONS_MAX {
            return None;
        }
        all.insert(id.to_owned(), each + 1);
        Some(SessionSlot { sessions: self.clone(), id: id.to_owned() })
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        let mut all = lock(&self.sessions.counts);
        match all.get_mut(&self.id) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(all.remove(&self.id)),
        }
    }
}

/// A panic cannot leave these maps inconsistent, so a poisoned lock is used as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_connection_is_closed_for_a_new_one() {
        let pending = PendingConnections::default();
        let mut tasks = Vec::new();
        let mut enter = |leaves: bool| {
            let mut task = None;
            pending.enter(|slot| {
                let spawned = tokio::spawn(async move {
                    if leaves {
                        slot.leave();
                    }
                    std::future::pending::<()>().await;
                    drop(slot);
                });
                let handle = spawned.abort_handle();
                task = Some(spawned);
                handle
            });
            tasks.extend(task);
        };
        enter(true);
        tokio::task::yield_now().await;
        for _ in 0..=PENDING_MAX {
            enter(false);
        }
        let ended = tasks.remove(1).await.unwrap_err();
        assert!(ended.is_cancelled());
        tokio::task::yield_now().await;
        assert!(tasks.iter().all(|task| !task.is_finished()));
        assert_eq!(lock(&pending.list).all.len(), PENDING_MAX);
    }

    #[test]
    fn sessions_have_limits_and_slots_are_freed() {
        let sessions = Sessions::default();
        let mut slots: Vec<_> = (0..SESSIONS_EACH_MAX).map(|_| sessions.enter("a")).collect();
        assert!(slots.iter().all(Option::is_some));
        assert!(sessions.enter("a").is_none());
        for number in SESSIONS_EACH_MAX..SESSIONS_MAX {
            slots.push(sessions.enter(&format!("b{number}")));
        }
        assert!(slots.iter().all(Option::is_some));
        assert!(sessions.enter("c").is_none());
        slots.clear();
        assert!(lock(&sessions.counts).is_empty());
        assert!(sessions.enter("c").is_some());
    }
}
