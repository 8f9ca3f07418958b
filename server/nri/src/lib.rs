// SPDX-License-Identifier: Apache-2.0
//! The node resource interface (NRI): plugins that hear of pods and containers and have a say in them.
//!
//! ```text
//! plugin ──socket──▶ wire (frames, ttrpc) ─▶ connection ─▶ session (joins, is synchronised)
//!                                                             │
//! verb ─▶ Plugins::roster ─▶ hooks (each plugin, in order) ─▶ merge (who asked for what)
//! ```
//!
//! Knows no pods of ours: the daemon hands in the interface's own messages and applies what comes out. What
//! plugins want of the daemon comes as an [`Ask`].

mod connection;
mod error;
mod hooks;
mod launch;
pub mod limits;
mod merge;
mod plugin;
mod roster;
mod session;
mod wire;

pub use error::Error;
pub use hooks::{Created, Updated};
pub use launch::{GUARD, guard};
pub use merge::{overlay, owner, owners_of};
pub use roster::{Plugins, Roster};

use hull_proto::nri::{Container, ContainerEviction, ContainerUpdate, PodSandbox};
use session::Shared;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{error, info, warn};

/// Plugins that may be connected at a time.
const PLUGINS_MAX: usize = limits::PLUGINS.count();
/// What plugins ask for that may wait for the daemon.
const ASKS: usize = 16;

/// Deadlines of plugins.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// To register; and to take in what there is.
    pub registration: Duration,
    /// To answer a call.
    pub request: Duration,
}

/// What the operator sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where plugins connect; `None` when they may not.
    pub socket: Option<PathBuf>,
    /// Where pre-installed plugins are.
    pub plugin_path: PathBuf,
    /// Where their configuration is.
    pub config_path: PathBuf,
    /// Deadlines.
    pub times: Times,
    /// Of the daemon, told to plugins.
    pub version: String,
}

/// What there is on the node.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// All pods.
    pub pods: Vec<PodSandbox>,
    /// Containers that are made.
    pub containers: Vec<Container>,
}

/// What a plugin wants of the daemon.
#[derive(Debug)]
pub enum Ask {
    /// To know what there is.
    State {
        /// Where it goes.
        reply: oneshot::Sender<State>,
    },
    /// Other limits for containers.
    Update {
        /// Who asks.
        plugin: String,
        /// For which, and what.
        updates: Vec<ContainerUpdate>,
        /// Those that could not be had.
        reply: oneshot::Sender<Vec<ContainerUpdate>>,
    },
    /// The end of containers.
    Evict {
        /// Who asks.
        plugin: String,
        /// Which, and why.
        evictions: Vec<ContainerEviction>,
    },
}

fn is_index(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(good)
}

/// Starts plugins and lets them connect.
#[derive(Debug)]
pub struct Host {
    registrar: roster::Registrar,
}

/// Makes ready: no plugin is there until [`Host::start`].
#[must_use]
pub fn prepare() -> (Plugins, Host) {
    let (plugins, registrar) = roster::start();
    (plugins, Host { registrar })
}

impl Host {
    /// Starts it: pre-installed plugins now, others as they connect. Must be called on the daemon's main
    /// thread. That the socket cannot be had is no reason not to serve, so it is told and gone past.
    #[must_use]
    pub fn start(self, settings: Settings) -> mpsc::Receiver<Ask> {
        let (asks, inbox) = mpsc::channel(ASKS);
        let numbers = AtomicU64::new(0);
        let shared = Arc::new(Shared { settings, registrar: self.registrar, asks, numbers });
        start_installed(&shared);
        let Some(socket) = &shared.settings.socket else { return inbox };
        match listen(socket) {
            Ok((listener, name)) => {
                info!(socket = %socket.display(), "plugins can connect");
                let accepting = accept(Arc::clone(&shared), listener);
                tokio::spawn(async move {
                    accepting.await;
                    drop(name);
                });
            }
            Err(err) => {
                error!(error = %err, hint = err.hint(), "plugins cannot connect; pods are served without them");
            }
        }
        inbox
    }
}

fn start_installed(shared: &Arc<Shared>) {
    let settings = &shared.settings;
    let (found, wrong) = launch::find(&settings.plugin_path, &settings.config_path);
    for wrong in wrong {
        warn!(%wrong, hint = "name it like 10-example, or take it out of `nri.plugin_path`", "pre-installed plugin passed over");
    }
    for plugin in found {
        let path = plugin.path.display().to_string();
        let started = launch::start(&plugin).and_then(|(stream, process)| {
            let stream = UnixStream::from_std(stream).map_err(|err| err.to_string())?;
            Ok((stream, process))
        });
        match started {
            Ok((stream, process)) => {
                info!(path, "pre-installed plugin started");
                let session = session::run(Arc::clone(shared), stream, Some(plugin.given));
                tokio::spawn(async move {
                    session.await;
                    drop(process);
                });
            }
            Err(why) => error!(path, why, "pre-installed plugin not started"),
        }
    }
}

/// The socket's name in its directory. It is taken away when this goes, which is with the tasks of a daemon
/// that ends, unless another program has put its own socket there.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    /// Device and inode.
    is: (u64, u64),
}

impl Name {
    fn of(path: &std::path::Path) -> std::io::Result<Self> {
        let is = identity(path)?;
        Ok(Self { path: path.to_owned(), is })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.is)
            && let Err(err) = std::fs::remove_file(&self.path)
        {
            warn!(socket = %self.path.display(), error = %err, "plugins' socket not removed");
        }
    }
}

fn identity(path: &std::path::Path) -> std::io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Listens at `path`. What an earlier daemon left there is replaced; what answers there is not.
fn listen(path: &std::path::Path) -> Result<(UnixListener, Name), Error> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let failed = |why: String| Error::Listen { path: path.to_owned(), why };
    if let Some(parent) = path.parent() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|err| failed(err.to_string()))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(failed("another program serves there".into()));
    }
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(err.to_string()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|err| failed(err.to_string()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|err| failed(err.to_string()))?;
    let name = Name::of(path).map_err(|err| failed(err.to_string()))?;
    Ok((listener, name))
}

async fn accept(shared: Arc<Shared>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(PLUGINS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let session = session::run(Arc::clone(&shared), stream, None);
                tokio::spawn(async move {
                    session.await;
                    drop(place);
                });
            }
            Err(err) => {
                warn!(error = %err, "plugin's connection not accepted");
                // Out of descriptors, most likely: some must be closed first.
                tokio::time::sleep(shared.settings.times.request).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
