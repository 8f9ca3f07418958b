// SPDX-License-Identifier: Apache-2.0
//! Who may connect: how many connections may be there before they have shown a token, and how many
//! sessions after that.
//!
//! The rule: a connection without a token costs others nothing. Anybody on the node can open one, and on
//! loopback addresses tell nobody apart. So there is always room for one more: when all places are taken, the oldest
//! connection is closed. A client that has a URL sends its request at once, and is out of this before
//! that happens. Sessions are bounded by themselves, in all and for each container or pod.

use crate::limits;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// Connections at a time that have not shown a token.
pub(super) const WAITING_MAX: usize = limits::WAITING.count();
/// Sessions at a time.
const SESSIONS_MAX: usize = limits::SESSIONS.count();
/// Sessions at a time with one container or pod.
const SESSIONS_EACH_MAX: usize = limits::SESSIONS_EACH.count();

/// Connections that have not shown a token, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting {
    entered: Arc<Mutex<Entered>>,
}

#[derive(Debug, Default)]
struct Entered {
    next: u64,
    all: VecDeque<(u64, AbortHandle)>,
}

/// The place of one connection, until it is left or dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Waiting,
    number: u64,
}

impl Waiting {
    /// Enters a connection, which `serve` begins to serve. If need be the oldest one is closed.
    pub(super) fn enter(&self, serve: impl FnOnce(Place) -> AbortHandle) {
        let mut entered = lock(&self.entered);
        if entered.all.len() >= WAITING_MAX
            && let Some((_, oldest)) = entered.all.pop_front()
        {
            oldest.abort();
        }
        let number = entered.next;
        entered.next += 1;
        // It cannot leave before it is entered: that takes the lock.
        let handle = serve(Place { of: self.clone(), number });
        entered.all.push_back((number, handle));
    }
}

impl Place {
    /// From now on the connection is not closed for the sake of others.
    pub(super) fn leave(&self) {
        let mut entered = lock(&self.of.entered);
        if let Ok(at) = entered.all.binary_search_by_key(&self.number, |(number, _)| *number) {
            drop(entered.all.remove(at));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Sessions by what they are with: a container's or a pod's id.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions {
    with: Arc<Mutex<HashMap<String, usize>>>,
}

/// The place of one session, until it is dropped.
#[derive(Debug)]
pub(super) struct SessionPlace {
    of: Sessions,
    with: String,
}

impl Sessions {
    /// A place for a session with `with`; `None` when there are too many.
    pub(super) fn enter(&self, with: &str) -> Option<SessionPlace> {
        let mut all = lock(&self.with);
        let each = all.get(with).copied().unwrap_or(0);
        if each >= SESSIONS_EACH_MAX || all.values().sum::<usize>() >= SESSIONS_MAX {
            return None;
        }
        all.insert(with.to_owned(), each + 1);
        Some(SessionPlace { of: self.clone(), with: with.to_owned() })
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        let mut all = lock(&self.of.with);
        match all.get_mut(&self.with) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(all.remove(&self.with)),
        }
    }
}

/// Nothing in these is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_goes_for_a_new_one_and_who_has_left_stays() {
        let waiting = Waiting::default();
        let mut tasks = Vec::new();
        let mut enter = |leaves: bool| {
            let mut task = None;
            waiting.enter(|place| {
                let spawned = tokio::spawn(async move {
                    if leaves {
                        place.leave();
                    }
                    std::future::pending::<()>().await;
                    drop(place);
                });
                let handle = spawned.abort_handle();
                task = Some(spawned);
                handle
            });
            tasks.extend(task);
        };
        enter(true);
        tokio::task::yield_now().await;
        for _ in 0..=WAITING_MAX {
            enter(false);
        }
        let ended = tasks.remove(1).await.unwrap_err();
        assert!(ended.is_cancelled());
        tokio::task::yield_now().await;
        assert!(tasks.iter().all(|task| !task.is_finished()));
        assert_eq!(lock(&waiting.entered).all.len(), WAITING_MAX);
    }

    #[test]
    fn sessions_are_bounded_in_all_and_each_and_places_come_back() {
        let sessions = Sessions::default();
        let mut places: Vec<_> = (0..SESSIONS_EACH_MAX).map(|_| sessions.enter("a")).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(sessions.enter("a").is_none());
        for number in SESSIONS_EACH_MAX..SESSIONS_MAX {
            places.push(sessions.enter(&format!("b{number}")));
        }
        assert!(places.iter().all(Option::is_some));
        assert!(sessions.enter("c").is_none());
        places.clear();
        assert!(lock(&sessions.with).is_empty());
        assert!(sessions.enter("c").is_some());
    }
}
