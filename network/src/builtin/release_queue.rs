// SPDX-License-Identifier: Apache-2.0
//! Released pods: their processes have ended, and the kernel is about to remove their links.
//!
//! ```text
//! release ─▶ queue ─ link removed by the kernel ────────▶ lease on disk ─▶ in memory
//!               └──── removed here after a second ─────┘
//! ```
//!
//! The rule: an address stays allocated, on disk too, until its link is gone. So after a crash the next
//! daemon knows about every remaining link.
//!
//! Links disappear with their network namespace, those of many pods at once. An explicit RTM_DELLINK
//! would cost the same again, and its response takes two RCU grace periods, 10 to 20 ms. So a thread waits
//! for the kernel's notifications; it runs only while the queue is not empty.
//!
//! Here and not in `ipam`, which touches no links.

use super::host_network::{self, HostNetwork};
use super::links::route_socket;
use super::{shaping, veth};
use crate::error::Error;
use crate::ipam::Leases;
use crate::sync::lock_unpoisoned;
use hull_netlink::link::LinkEvents;
use hull_netlink::{Socket, link};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tracing::warn;

/// How long a link may outlive the pod's processes. A connection that is still closing holds the network
/// namespace, and gets this much time.
const LINK_LINGER_MAX: Duration = Duration::from_secs(1);
/// Interval between attempts to remove a link or a lease.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// How long an attach waits for an address to become free when the subnet is full.
const ADDRESS_WAIT_MAX: Duration = Duration::from_secs(5);

/// The pods whose links are not gone yet.
#[derive(Debug)]
pub(crate) struct ReleaseQueue {
    leases: Arc<Leases>,
    host: Arc<HostNetwork>,
    queue: Mutex<Queue>,
    completion: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Keyed by the name of the pod's link.
    pods: BTreeMap<String, Pending>,
    /// The same links, ordered by deadline.
    due: BTreeSet<(Instant, String)>,
    /// Whether the thread is running.
    watching: bool,
    /// How many releases have completed since the daemon started.
    completed: u64,
}

#[derive(Debug)]
struct Pending {
    id: String,
    /// When the link is removed if it still exists.
    deadline: Instant,
}

impl Queue {
    fn insert(&mut self, link: String, pending: Pending) {
        self.remove(&link);
        self.due.insert((pending.deadline, link.clone()));
        self.pods.insert(link, pending);
    }

    fn remove(&mut self, link: &str) -> Option<Pending> {
        let pending = self.pods.remove(link)?;
        self.due.remove(&(pending.deadline, link.to_owned()));
        Some(pending)
    }
}

impl ReleaseQueue {
    pub(crate) fn new(leases: Arc<Leases>, host: Arc<HostNetwork>) -> Self {
        Self { leases, host, queue: Mutex::default(), completion: Condvar::new() }
    }

    /// Frees the pod's addresses once its link is gone.
    pub(crate) fn add(self: &Arc<Self>, id: &str, link: String) -> Result<(), Error> {
        let mut queue = lock_unpoisoned(&self.queue);
        if !queue.watching {
            let events = link::subscribe().map_err(|source| Error::Socket { source })?;
            let this = Arc::clone(self);
            let thread = thread::Builder::new().name("links-gone".into());
            thread
                .spawn(move || this.watch(&events))
                .map_err(|source| Error::WatchLinks { source })?;
            queue.watching = true;
        }
        let pending = Pending { id: id.to_owned(), deadline: Instant::now() + LINK_LINGER_MAX };
        queue.insert(link.clone(), pending);
        drop(queue);
        // The thread is notified of links removed from here on, but not of links removed before.
        if veth::find(&route_socket()?, id, &link)?.is_none() {
            self.finish(&link);
        }
        Ok(())
    }

    /// Cancels a release. When this returns, the pod has either all of its addresses or none.
    pub(crate) fn cancel(&self, link: &str) {
        lock_unpoisoned(&self.queue).remove(link);
    }

    /// The number of completed releases, to pass to [`Self::wait_for_completion`].
    pub(crate) fn completed(&self) -> u64 {
        lock_unpoisoned(&self.queue).completed
    }

    /// Waits until more releases have completed than `before`. Returns `false` if the queue is empty or the
    /// wait times out.
    pub(crate) fn wait_for_completion(&self, before: u64) -> bool {
        let queue = lock_unpoisoned(&self.queue);
        let none_yet = |queue: &mut Queue| queue.completed == before && !queue.pods.is_empty();
        let waited = self.completion.wait_timeout_while(queue, ADDRESS_WAIT_MAX, none_yet);
        waited.unwrap_or_else(PoisonError::into_inner).0.completed != before
    }

    fn watch(&self, events: &Socket) {
        while let Some(deadline) = self.next_deadline() {
            match link::receive_events(events, deadline) {
                Ok(LinkEvents::Removed(links)) => links.iter().for_each(|link| self.finish(link)),
                Ok(LinkEvents::Overrun) => self.check_due(None),
                Ok(LinkEvents::Timeout) => {}
                Err(err) => {
                    // Without notifications it still checks each link at its deadline.
                    warn!(error = %err, "cannot receive link notifications; checking links at their deadlines");
                    thread::sleep(deadline.saturating_duration_since(Instant::now()));
                }
            }
            self.check_due(Some(Instant::now()));
        }
    }

    /// The next deadline; `None` when the queue is empty, and the thread ends.
    fn next_deadline(&self) -> Option<Instant> {
        let mut queue = lock_unpoisoned(&self.queue);
        let first = queue.due.first().map(|(deadline, _)| *deadline);
        queue.watching = first.is_some();
        first
    }

    /// Checks the links that are due by `due`, or all, and removes those past their deadline.
    fn check_due(&self, due: Option<Instant>) {
        let queue = lock_unpoisoned(&self.queue);
        let some =
            queue.due.iter().take_while(|(deadline, _)| due.is_none_or(|due| *deadline <= due));
        let of = |(deadline, link): &(Instant, String)| {
            let id = queue.pods.get(link)?.id.clone();
            Some((link.clone(), id, *deadline))
        };
        let some: Vec<_> = some.filter_map(of).collect();
        drop(queue);
        for (link, id, deadline) in some {
            match self.is_gone(&id, &link, deadline <= Instant::now()) {
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

    /// Frees the addresses of a pod whose link is gone.
    fn finish(&self, link: &str) {
        // Locked to the end, so that the release cannot be cancelled half way.
        let mut queue = lock_unpoisoned(&self.queue);
        let Some(pending) = queue.pods.get(link) else { return };
        let unlimited =
            route_socket().and_then(|socket| shaping::remove(&socket, &pending.id, link));
        if let Err(err) = unlimited.and_then(|()| self.leases.remove(&pending.id)) {
            drop(queue);
            return self.postpone(link, &err);
        }
        host_network::free(&self.host, &pending.id);
        queue.remove(link);
        queue.completed += 1;
        drop(queue);
        self.completion.notify_all();
    }

    fn postpone(&self, link: &str, err: &Error) {
        let mut queue = lock_unpoisoned(&self.queue);
        if let Some(mut pending) = queue.remove(link) {
            pending.deadline = Instant::now() + RETRY_INTERVAL;
            warn!(pod_id = pending.id, error = %err, source = ?std::error::Error::source(err), hint = err.hint(),
                "cannot free the addresses of a released pod; retrying in {RETRY_INTERVAL:?}");
            queue.insert(link.to_owned(), pending);
        }
    }
}
