// SPDX-License-Identifier: Apache-2.0
//! Pods that have left: their processes are gone, and the kernel is about to take their links away.
//!
//! ```text
//! release ─▶ waiting ─ link gone ─────────────────────▶ lease on disk ─▶ in memory
//!               └──── not after a second: removed ──┘
//! ```
//!
//! The rule: addresses stay taken until the link is gone, on disk as well, so that a killed daemon
//! leaves nothing that the next one does not know of.
//!
//! The links go with their network namespace, those of many pods at once. To ask for it besides
//! (RTM_DELLINK) costs the same again, and the answer comes after two grace periods of RCU: 10 to 20
//! ms in which nothing happens. So a thread listens for the kernel's word; it is there only while
//! somebody is waited for.

use super::links::route_socket;
use super::{shaping, veth};
use crate::error::Error;
use crate::ipam::{Ipam, Leases};
use crate::netlink::link::Heard;
use crate::netlink::{Socket, link};
use crate::sync::alone;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tracing::warn;

/// How long a link may outlive the pod's processes: a connection that is being closed holds the
/// namespace, and gets so much time for its goodbye.
const GONE_MAX: Duration = Duration::from_secs(1);
/// When that which would not go is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long a pod that finds no free address waits for one that is about to be given back.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Pods that are waited for.
#[derive(Debug)]
pub(crate) struct Leaving {
    leases: Arc<Leases>,
    ipam: Arc<Mutex<Ipam>>,
    waiting: Mutex<Waiting>,
    one_less: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By the names of their links.
    pods: BTreeMap<String, Left>,
    /// The same links by when they are looked after.
    due: BTreeSet<(Instant, String)>,
    /// The thread is there.
    watched: bool,
    /// How many have gone, ever.
    gone: u64,
}

#[derive(Debug)]
struct Left {
    id: String,
    /// When its link is removed by us.
    until: Instant,
}

impl Waiting {
    fn insert(&mut self, link: String, left: Left) {
        self.remove(&link);
        self.due.insert((left.until, link.clone()));
        self.pods.insert(link, left);
    }

    fn remove(&mut self, link: &str) -> Option<Left> {
        let left = self.pods.remove(link)?;
        self.due.remove(&(left.until, link.to_owned()));
        Some(left)
    }
}

impl Leaving {
    pub(crate) fn new(leases: Arc<Leases>, ipam: Arc<Mutex<Ipam>>) -> Self {
        Self { leases, ipam, waiting: Mutex::default(), one_less: Condvar::new() }
    }

    /// Gives back what the pod has, once its link is gone.
    pub(crate) fn add(self: &Arc<Self>, id: &str, link: String) -> Result<(), Error> {
        let mut waiting = alone(&self.waiting);
        if !waiting.watched {
            let events = link::events().map_err(|source| Error::Socket { source })?;
            let this = Arc::clone(self);
            let thread = thread::Builder::new().name("links-gone".into());
            thread
                .spawn(move || this.watch(&events))
                .map_err(|source| Error::WatchLinks { source })?;
            waiting.watched = true;
        }
        let left = Left { id: id.to_owned(), until: Instant::now() + GONE_MAX };
        waiting.insert(link.clone(), left);
        drop(waiting);
        // From here on the thread hears of it; what was gone before it does not.
        if veth::find(&route_socket()?, id, &link)?.is_none() {
            self.finish(&link);
        }
        Ok(())
    }

    /// Keeps what the pod has: when this returns it has all of it, or nothing any more.
    pub(crate) fn recall(&self, link: &str) {
        alone(&self.waiting).remove(link);
    }

    /// How many have given back what they had: for [`Self::wait_for_more_than`].
    pub(crate) fn gone_so_far(&self) -> u64 {
        alone(&self.waiting).gone
    }

    /// Waits until more have gone than `before`; `false` when nobody is about to, or it takes too long.
    pub(crate) fn wait_for_more_than(&self, before: u64) -> bool {
        let waiting = alone(&self.waiting);
        let none_yet = |waiting: &mut Waiting| waiting.gone == before && !waiting.pods.is_empty();
        let waited = self.one_less.wait_timeout_while(waiting, WAIT_MAX, none_yet);
        waited.unwrap_or_else(PoisonError::into_inner).0.gone != before
    }

    fn watch(&self, events: &Socket) {
        while let Some(until) = self.until() {
            match link::hear(events, until) {
                Ok(Heard::Gone(links)) => links.iter().for_each(|link| self.finish(link)),
                Ok(Heard::Missed) => self.look(None),
                Ok(Heard::Nothing) => {}
                Err(err) => {
                    // Without ears it still can look, when the time of each is up.
                    warn!(error = %err, "links that go are not heard of");
                    thread::sleep(until.saturating_duration_since(Instant::now()));
                }
            }
            self.look(Some(Instant::now()));
        }
    }

    /// When the first is to be looked after; `None` when all have gone, and with them the thread.
    fn until(&self) -> Option<Instant> {
        let mut waiting = alone(&self.waiting);
        let first = waiting.due.first().map(|(until, _)| *until);
        waiting.watched = first.is_some();
        first
    }

    /// Looks whether the links that are due then are gone, or all; removes the ones that are late.
    fn look(&self, due: Option<Instant>) {
        let waiting = alone(&self.waiting);
        let some = waiting.due.iter().take_while(|(until, _)| due.is_none_or(|due| *until <= due));
        let of = |(until, link): &(Instant, String)| {
            let id = waiting.pods.get(link)?.id.clone();
            Some((link.clone(), id, *until))
        };
        let some: Vec<_> = some.filter_map(of).collect();
        drop(waiting);
        for (link, id, until) in some {
            match self.is_gone(&id, &link, until <= Instant::now()) {
                Ok(true) => self.finish(&link),
                Ok(false) => {}
                Err(err) => self.postpone(&link, &err),
            }
        }
    }

    fn is_gone(&self, id: &str, link: &str, late: bool) -> Result<bool, Error> {
        let socket = route_socket()?;
        if late {
            return veth::remove(&socket, id, link).map(|()| true);
        }
        Ok(veth::find(&socket, id, link)?.is_none())
    }

    /// The link is gone: the rest is given back.
    fn finish(&self, link: &str) {
        // Held until it is done, so that nobody takes it back half way.
        let mut waiting = alone(&self.waiting);
        let Some(left) = waiting.pods.get(link) else { return };
        let unlimited = route_socket().and_then(|socket| shaping::remove(&socket, &left.id, link));
        if let Err(err) = unlimited.and_then(|()| self.leases.remove(&left.id)) {
            drop(waiting);
            return self.postpone(link, &err);
        }
        alone(&self.ipam).free(&left.id);
        waiting.remove(link);
        waiting.gone += 1;
        drop(waiting);
        self.one_less.notify_all();
    }

    fn postpone(&self, link: &str, err: &Error) {
        let mut waiting = alone(&self.waiting);
        if let Some(mut left) = waiting.remove(link) {
            left.until = Instant::now() + RETRY;
            warn!(pod = left.id, error = %err, source = ?std::error::Error::source(err), hint = err.hint(),
                "addresses of a pod that has gone are not given back; tried again in {RETRY:?}");
            waiting.insert(link.to_owned(), left);
        }
    }
}
