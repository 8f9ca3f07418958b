// SPDX-License-Identifier: Apache-2.0
//! Takes over changed settings from the configuration's files, without a restart.
//!
//! ```text
//! files ──read, checked──▶ differences ─┬─ at once ──▶ image store, limits, log level, then LiveConfig
//!                                       └─ others ──▶ named; in force after a restart
//! ```
//!
//! The rule: all or nothing. A file that cannot be read, a value that cannot be used, an image policy that cannot be
//! read: each is an error, and the daemon goes on with what it had. Who begins something takes the configuration once,
//! so nothing that is under way sees two of them.
//!
//! A file on a filesystem that does not answer holds one thread, and the turn, until it answers. Who waits for the turn
//! or the files longer than [`READ_MAX`] gets an error.

use super::Node;
use super::reloads::Reloads;
use crate::config::log_filter::Filter;
use crate::config::{self, Change, Config, Takes};
use crate::storage::blocking;
use hull_image::NewSettings;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::{info, warn};

/// Longest time for the turn, and for reading some small files.
const READ_MAX: Duration = Duration::from_secs(20);

/// Why the files' settings are not taken over. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config { source: config::Error },
    #[error("merge the settings of the files with those that need a restart")]
    Merge,
    #[error("take over the settings of images")]
    Images { source: hull_image::Error },
    #[error(
        "read the files of the configuration: they, or an earlier reading of them, took longer than {} s",
        READ_MAX.as_secs()
    )]
    Hangs,
}

impl Error {
    /// Advice for the operator.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Config { source } => source.hint(),
            Self::Merge => Some("restart the daemon; pods run on meanwhile".into()),
            Self::Images { source } => source.hint(),
            Self::Hangs => Some(
                "the filesystem of one of them does not answer; check /etc/hull and what its settings name"
                    .into(),
            ),
        }
    }
}

/// The result of a reload.
#[derive(Debug)]
pub(crate) struct Reloaded {
    /// All differences that there were.
    pub(crate) changes: Vec<Change>,
    /// Whether the image policy has other rules, though the setting names the same file.
    pub(crate) is_policy_edited: bool,
}

/// The differences between the daemon's settings and those of its files. Changes nothing.
pub(crate) async fn differences(node: &Node) -> Result<Vec<Change>, Error> {
    let source = node.config_source.clone();
    let (_turn, loaded) = in_turn(&node.reloads, READ_MAX, move || source.load()).await?;
    let loaded = loaded.map_err(|source| Error::Config { source })?;
    Ok(config::changes(&node.config.current(), &loaded))
}

/// Reads the files and takes over what can be.
pub(crate) async fn reload(node: &Arc<Node>) -> Result<Reloaded, Error> {
    let of = Arc::clone(node);
    let (_turn, read) = in_turn(&node.reloads, READ_MAX, move || read(&of)).await?;
    let Read { changes, next, images } = read?;
    let is_policy_edited = images.is_policy_edited();
    take_over(node, next, images);
    if is_policy_edited {
        info!("the image policy has other rules");
    }
    let (at_once, waiting): (Vec<Change>, Vec<Change>) =
        changes.iter().cloned().partition(|change| change.takes == Takes::AtOnce);
    for change in &at_once {
        let Change { key, running, file, origin, takes: _ } = change;
        info!(setting = key, before = running.as_deref(), now = file.as_deref(), %origin, "setting taken over");
    }
    if node.reloads.is_news(&waiting) {
        for change in &waiting {
            let Change { key, running, file, origin, takes: _ } = change;
            warn!(
                setting = key, running = running.as_deref(), file = file.as_deref(), %origin,
                hint = "restart the daemon; pods run on meanwhile", "setting needs a restart"
            );
        }
    }
    Ok(Reloaded { changes, is_policy_edited })
}

/// The settings that have been read, and are not in force yet.
struct Read {
    changes: Vec<Change>,
    next: Config,
    images: NewSettings,
}

/// Reads all that may fail. The policy file of images is read again even if its name is the same. Blocks.
fn read(node: &Node) -> Result<Read, Error> {
    let loaded = node.config_source.load().map_err(|source| Error::Config { source })?;
    let running = node.config.current();
    let changes = config::changes(&running, &loaded);
    let next = config::taken_over(&running, &loaded).ok_or(Error::Merge)?;
    let images = node.images.read_settings(&next.images());
    Ok(Read { changes, next, images: images.map_err(|source| Error::Images { source })? })
}

/// Waits for the turn and does blocking work in it. The turn is returned too: it lasts until it is dropped. Work that
/// hangs keeps it, so that at most one thread hangs.
async fn in_turn<T: Send + 'static>(
    reloads: &Reloads,
    longest: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(OwnedSemaphorePermit, T), Error> {
    let turn = timeout(longest, reloads.turn()).await;
    let Ok(Some(turn)) = turn else { return Err(Error::Hangs) };
    let done = blocking(move || {
        let done = work();
        (turn, done)
    });
    timeout(longest, done).await.map_err(|_| Error::Hangs)
}

/// Hands the settings to the parts that keep a copy, and puts them into force. Nothing of it fails.
fn take_over(node: &Node, next: Config, images: NewSettings) {
    node.images.configure(images);
    node.exec_slots.set_most(next.runtime.exec_syncs_max);
    node.call_memory.set_most(next.runtime.call_memory_bytes_max);
    node.network.configure(&next.cni());
    node.plugin_timeouts.set(next.plugin_timeouts());
    // It was checked with the others.
    if let Ok(filter) = Filter::parse(&next.log.level) {
        node.log_level.configure(filter);
    }
    node.config.replace(next);
    node.reconfigured.notify_one();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn what_hangs_gives_up_its_callers_and_the_turn_is_free_when_it_ends() {
        let reloads = Reloads::default();
        let (end, ended) = mpsc::channel::<()>();
        let longest = Duration::from_millis(50);
        let hanging = in_turn(&reloads, longest, move || ended.recv()).await;
        assert!(matches!(hanging, Err(Error::Hangs)));
        let waiting = in_turn(&reloads, longest, || ()).await;
        assert!(matches!(waiting, Err(Error::Hangs)));
        drop(end);
        // The turn comes back with the thread's end.
        let turn = reloads.turn().await.unwrap();
        drop(turn);
        let (_turn, done) = in_turn(&reloads, READ_MAX, || 7).await.unwrap();
        assert_eq!(done, 7);
    }
}
