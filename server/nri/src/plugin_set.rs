// SPDX-License-Identifier: Apache-2.0
//! The set of connected plugins. One task writes it; a verb holds a [`PluginSet`], which is immutable.
//!
//! A verb takes the current set when it begins, and holds it until its result is visible. So when a plugin
//! joins, only verbs that hold an older set do not call it. Once the last older set is dropped, a snapshot of
//! the node is complete for the plugin: it shows everything that those verbs created, and later verbs call
//! the plugin themselves. See [`session`](crate::session).
//!
//! Taking a set costs two reference counts, and nothing else if there is no plugin.

use crate::counters::{CallFigures, Counters};
use crate::plugin::Plugin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

/// Changes that may wait for the task.
const QUEUE: usize = 16;

/// The plugins, in the order in which they are called.
#[derive(Debug)]
pub struct PluginSet {
    pub(crate) plugins: Vec<Arc<Plugin>>,
    /// Closed when the last holder drops the set.
    _in_use: watch::Sender<()>,
}

/// Closed when the last holder of its set has dropped it.
pub(crate) type InUse = watch::Receiver<()>;

enum Change {
    Join { plugin: Arc<Plugin>, older: oneshot::Sender<Vec<InUse>> },
    Leave { number: u64 },
}

/// Adds plugins to the set and removes them.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    changes: mpsc::Sender<Change>,
    /// Shared by all plugins, and by [`Plugins`].
    pub(crate) counters: Arc<Counters>,
}

/// Gives verbs the current set.
#[derive(Debug, Clone)]
pub struct Plugins {
    current: watch::Receiver<Arc<PluginSet>>,
    counters: Arc<Counters>,
}

impl Plugins {
    /// The plugins that a verb which begins now must call.
    #[must_use]
    pub fn current(&self) -> Arc<PluginSet> {
        Arc::clone(&self.current.borrow())
    }

    /// The number of connected plugins.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.current.borrow().plugins.len()
    }

    /// The calls of plugins so far, by method.
    #[must_use]
    pub fn calls(&self) -> Vec<CallFigures> {
        self.counters.figures()
    }
}

impl Registry {
    /// Adds a plugin. Verbs that begin after this call it; those that began earlier hold one of the returned
    /// sets.
    pub(crate) async fn join(&self, plugin: Arc<Plugin>) -> Vec<InUse> {
        let (older, sets) = oneshot::channel();
        // Fails only while the daemon shuts down.
        let _ending = self.changes.send(Change::Join { plugin, older }).await;
        sets.await.unwrap_or_default()
    }

    /// Removes a plugin, if it is in the set.
    pub(crate) async fn leave(&self, number: u64) {
        let _ending = self.changes.send(Change::Leave { number }).await;
    }
}

/// Waits at most `limit` until no verb holds any of `sets`. Returns whether that is so.
pub(crate) async fn wait_until_unused(sets: Vec<InUse>, limit: Duration) -> bool {
    let all = async {
        for mut set in sets {
            // No value is ever sent; the channel only closes.
            while set.changed().await.is_ok() {}
        }
    };
    tokio::time::timeout(limit, all).await.is_ok()
}

impl PluginSet {
    fn of(plugins: Vec<Arc<Plugin>>) -> (Arc<Self>, InUse) {
        let (in_use, closed) = watch::channel(());
        (Arc::new(Self { plugins, _in_use: in_use }), closed)
    }
}

/// Starts the task that owns the set.
pub(crate) fn start() -> (Plugins, Registry) {
    let (changes, mut inbox) = mpsc::channel(QUEUE);
    let (set, mut newest) = PluginSet::of(Vec::new());
    let (publish, current) = watch::channel(set);
    tokio::spawn(async move {
        let mut plugins: Vec<Arc<Plugin>> = Vec::new();
        let mut older: Vec<InUse> = Vec::new();
        while let Some(change) = inbox.recv().await {
            let joined = match change {
                Change::Join { plugin, older } => {
                    plugins.push(plugin);
                    // A stable sort: of two plugins with the same index, the earlier one is called first.
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
            let (set, in_use) = PluginSet::of(plugins.clone());
            publish.send_replace(set);
            older.push(std::mem::replace(&mut newest, in_use));
            older.retain(|set| set.has_changed().is_ok());
            let names: Vec<_> = plugins.iter().map(|plugin| plugin.full_name()).collect();
            info!(plugins = ?names, "plugins are called in this order");
            if let Some(joined) = joined {
                // The session may have ended meanwhile.
                let _ended = joined.send(older.clone());
            }
        }
    });
    let counters = Arc::new(Counters::default());
    (Plugins { current, counters: Arc::clone(&counters) }, Registry { changes, counters })
}
