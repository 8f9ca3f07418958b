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

use super::Node;
use crate::config::log_filter::Filter;
use crate::config::{self, Change, Config, Loaded, Takes};
use crate::storage::blocking;
use std::sync::Arc;
use tracing::{info, warn};

/// Why the files' settings are not taken over. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config { source: config::Error },
    #[error("merge the settings of the files with those that need a restart")]
    Merge,
    #[error("take over the settings of images")]
    Images { source: hull_image::Error },
}

impl Error {
    /// Advice for the operator.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Config { source } => source.hint(),
            Self::Merge => Some("restart the daemon; pods run on meanwhile".into()),
            Self::Images { source } => source.hint(),
        }
    }
}

/// The differences between the daemon's settings and those of its files. Changes nothing.
pub(crate) async fn differences(node: &Node) -> Result<Vec<Change>, Error> {
    let loaded = read(node).await?;
    Ok(config::changes(&node.config.current(), &loaded))
}

/// Reads the files and takes over what can be. Returns all differences that there were.
pub(crate) async fn reload(node: &Arc<Node>) -> Result<Vec<Change>, Error> {
    let _turn = node.reloads.turn().await;
    let loaded = read(node).await?;
    let running = node.config.current();
    let changes = config::changes(&running, &loaded);
    let next = config::taken_over(&running, &loaded).ok_or(Error::Merge)?;
    take_over(node, next).await?;
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
    Ok(changes)
}

async fn read(node: &Node) -> Result<Loaded, Error> {
    let source = node.config_source.clone();
    blocking(move || source.load()).await.map_err(|source| Error::Config { source })
}

/// Hands the settings to the parts that keep a copy, and puts them into force. What may fail comes first. The policy
/// file of images is read again even if its name is the same.
async fn take_over(node: &Arc<Node>, next: Config) -> Result<(), Error> {
    let (images, settings) = (Arc::clone(&node.images), next.images());
    let configured = blocking(move || images.configure(&settings)).await;
    configured.map_err(|source| Error::Images { source })?;
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
    Ok(())
}
