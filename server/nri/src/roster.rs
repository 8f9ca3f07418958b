// SPDX-License-Identifier: Apache-2.0
//! Which plugins there are. One task writes the list; who uses it holds a [`Roster`], which does not
//! change any more.
//!
//! A verb takes the roster when it begins and holds it until what it did can be seen. So when a plugin
//! joins, the verbs that do not know it are those that hold an older roster, and once the last of them
//! is dropped the plugin's view of the node misses nothing: what they made can be seen, and what later
//! verbs make they must ask it for. See [`session`](crate::session).
//!
//! Taking a roster costs two counters and nothing more when there is no plugin.

use crate::plugin::Plugin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

/// Changes that may wait for the task.
const QUEUE: usize = 16;

/// The plugins, in the order in which they are called.
#[derive(Debug)]
pub struct Roster {
    pub(crate) plugins: Vec<Arc<Plugin>>,
    /// Closed when the last holder drops it.
    _held: watch::Sender<()>,
}

/// Ends when its roster is held by nobody any more.
pub(crate) type Held = watch::Receiver<()>;

enum Change {
    Join { plugin: Arc<Plugin>, older: oneshot::Sender<Vec<Held>> },
    Leave { number: u64 },
}

/// Changes the list.
#[derive(Debug, Clone)]
pub(crate) struct Registrar {
    changes: mpsc::Sender<Change>,
}

/// Hands out the list as it is now.
#[derive(Debug, Clone)]
pub struct Plugins {
    now: watch::Receiver<Arc<Roster>>,
}

impl Plugins {
    /// The plugins that a verb that begins now has to do with.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.now.borrow())
    }
}

impl Registrar {
    /// Enters a plugin. Verbs that begin from now on call it; those that began before hold one of the
    /// rosters that are given back.
    pub(crate) async fn join(&self, plugin: Arc<Plugin>) -> Vec<Held> {
        let (older, rosters) = oneshot::channel();
        // Nobody to enter it: the daemon is ending.
        let _ending = self.changes.send(Change::Join { plugin, older }).await;
        rosters.await.unwrap_or_default()
    }

    /// Takes a plugin out, if it is there.
    pub(crate) async fn leave(&self, number: u64) {
        let _ending = self.changes.send(Change::Leave { number }).await;
    }
}

/// Waits until none of `rosters` is held any more, for at most `limit`.
pub(crate) async fn dropped(rosters: Vec<Held>, limit: Duration) -> bool {
    let all = async {
        for mut roster in rosters {
            // Nothing is ever sent: this is only about the end.
            while roster.changed().await.is_ok() {}
        }
    };
    tokio::time::timeout(limit, all).await.is_ok()
}

impl Roster {
    fn of(plugins: Vec<Arc<Plugin>>) -> (Arc<Self>, Held) {
        let (held, ends) = watch::channel(());
        (Arc::new(Self { plugins, _held: held }), ends)
    }
}

/// Starts the task that owns the list.
pub(crate) fn start() -> (Plugins, Registrar) {
    let (changes, mut inbox) = mpsc::channel(QUEUE);
    let (roster, mut newest) = Roster::of(Vec::new());
    let (show, now) = watch::channel(roster);
    tokio::spawn(async move {
        let mut plugins: Vec<Arc<Plugin>> = Vec::new();
        let mut older: Vec<Held> = Vec::new();
        while let Some(change) = inbox.recv().await {
            let joined = match change {
                Change::Join { plugin, older } => {
                    plugins.push(plugin);
                    // Stable: of two with one index, who came first is called first.
                    plugins.sort_by(|a, b| a.index.cmp(&b.index));
                    Some(older)
                }
                Change::Leave { number } => {
                    let before = plugins.len();
                    plugins.retain(|plugin| plugin.number != number);
                    if plugins.len() == before {
                        continue;
                    }
                    None
                }
            };
            let (roster, ends) = Roster::of(plugins.clone());
            show.send_replace(roster);
            older.push(std::mem::replace(&mut newest, ends));
            older.retain(|roster| roster.has_changed().is_ok());
            let names: Vec<_> = plugins.iter().map(|plugin| plugin.title()).collect();
            info!(plugins = ?names, "plugins are called in this order");
            if let Some(joined) = joined {
                // A plugin that ended meanwhile does not wait any more.
                let _ended = joined.send(older.clone());
            }
        }
    });
    (Plugins { now }, Registrar { changes })
}
