// SPDX-License-Identifier: Apache-2.0
//! The interface between this crate and the daemon: settings in, requests of plugins out.

use hull_proto::nri::{Container, ContainerEviction, ContainerUpdate, PodSandbox};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::oneshot;

/// Time limits of plugins.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To register, and again to be synchronized.
    pub registration: Duration,
    /// To answer one call.
    pub request: Duration,
}

/// Time limits that may change while plugins are connected: each call takes them when it begins.
#[derive(Debug, Clone)]
pub struct LiveTimeouts(Arc<RwLock<Timeouts>>);

impl LiveTimeouts {
    /// Time limits that begin as these.
    #[must_use]
    pub fn new(timeouts: Timeouts) -> Self {
        Self(Arc::new(RwLock::new(timeouts)))
    }

    /// The time limits for what begins now.
    #[must_use]
    pub fn get(&self) -> Timeouts {
        // Plain numbers, which a panic leaves whole.
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the time limits of the calls that begin from now on.
    pub fn set(&self, timeouts: Timeouts) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = timeouts;
    }
}

/// The operator's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Path of the socket for plugins; `None` if no plugin may connect.
    pub socket: Option<PathBuf>,
    /// Directory of pre-installed plugins.
    pub plugin_path: PathBuf,
    /// Directory of the configurations of pre-installed plugins.
    pub config_path: PathBuf,
    /// Time limits of every plugin.
    pub timeouts: LiveTimeouts,
    /// The daemon's version, sent to plugins.
    pub version: String,
}

/// The pods and containers of the node.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Every pod that has been created.
    pub pods: Vec<PodSandbox>,
    /// Every container that has been created.
    pub containers: Vec<Container>,
}

/// A request of a plugin, or of its session, to the daemon.
#[derive(Debug)]
pub enum PluginRequest {
    /// A snapshot of the node, with which a plugin is synchronized.
    State {
        /// Receives the snapshot.
        reply: oneshot::Sender<State>,
    },
    /// Changes the limits of running containers.
    Update {
        /// The plugin, as `<index>-<name>`.
        plugin: String,
        /// The containers and their new limits.
        updates: Vec<ContainerUpdate>,
        /// Receives the updates that failed.
        reply: oneshot::Sender<Vec<ContainerUpdate>>,
    },
    /// Stops containers that a plugin evicts.
    Evict {
        /// The plugin, as `<index>-<name>`.
        plugin: String,
        /// The containers and the reason for each.
        evictions: Vec<ContainerEviction>,
    },
}

/// Whether `text` is a plugin's index: two digits.
pub(crate) fn is_index(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether `text` is a plugin's name: 1 to 253 letters, digits and `-_.+`.
pub(crate) fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(good)
}
