// SPDX-License-Identifier: Apache-2.0
//! Starts pre-installed plugins, and accepts others on the socket. Each runs as a session of its own.

use crate::plugin_set::{self, Plugins, Registry};
use crate::session::{self, Shared};
use crate::{Error, PluginRequest, Settings, launch, limits};
use hull_sys::{SocketFile, SocketPathError, listen_at};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tracing::{error, info, warn};

/// Plugins that may be connected at a time.
const PLUGINS_MAX: usize = limits::PLUGINS.count();
/// Requests of plugins that may wait for the daemon.
const REQUESTS: usize = 16;

/// Starts plugins and accepts their connections.
#[derive(Debug)]
pub struct Host {
    registry: Registry,
}

/// An empty plugin set, and the host that fills it: no plugin runs before [`Host::start`].
#[must_use]
pub fn prepare() -> (Plugins, Host) {
    let (plugins, registry) = plugin_set::start();
    (plugins, Host { registry })
}

impl Host {
    /// Starts pre-installed plugins now, and serves others as they connect. Must be called on the daemon's
    /// main thread. Returns the requests of plugins. If the socket cannot be opened, the error is logged and
    /// the daemon serves without it.
    #[must_use]
    pub fn start(self, settings: Settings) -> mpsc::Receiver<PluginRequest> {
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let next_number = AtomicU64::new(0);
        let shared = Arc::new(Shared { settings, registry: self.registry, requests, next_number });
        start_installed(&shared);
        let Some(socket) = &shared.settings.socket else { return inbox };
        match listen(socket) {
            Ok((listener, file)) => {
                info!(socket = %socket.display(), "plugins can connect");
                let accepting = accept(Arc::clone(&shared), listener);
                tokio::spawn(async move {
                    accepting.await;
                    drop(file);
                });
            }
            Err(err) => {
                error!(error = %err, hint = err.hint(), "plugins cannot connect; pods run without them");
            }
        }
        inbox
    }
}

fn start_installed(shared: &Arc<Shared>) {
    let settings = &shared.settings;
    let (found, wrong) = launch::find(&settings.plugin_path, &settings.config_path);
    for wrong in wrong {
        warn!(%wrong, hint = "rename it to NN-name, such as 10-example, or remove it from `nri.plugin_path`", "pre-installed plugin skipped");
    }
    for program in found {
        let path = program.path.display().to_string();
        let started = launch::start(&program).and_then(|(stream, process)| {
            let stream = UnixStream::from_std(stream).map_err(|err| err.to_string())?;
            Ok((stream, process))
        });
        match started {
            Ok((stream, process)) => {
                info!(path, "pre-installed plugin started");
                let session = session::run(Arc::clone(shared), stream, Some(program.plugin));
                tokio::spawn(async move {
                    session.await;
                    drop(process);
                });
            }
            Err(why) => error!(path, why, "pre-installed plugin not started"),
        }
    }
}

/// The socket's file. It is removed on drop, which is when the tasks of a daemon end, unless another program
/// has put its own socket there.
#[derive(Debug)]
struct RemovedOnDrop(SocketFile);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        if let Err(err) = self.0.remove() {
            warn!(error = %err, "socket for plugins not removed");
        }
    }
}

/// Listens at `path`. Replaces the socket of an earlier daemon, but nothing else, and never one that a program
/// listens on.
fn listen(path: &Path) -> Result<(UnixListener, RemovedOnDrop), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed =
        |err: std::io::Error| Error::Listen { path: path.to_owned(), why: err.to_string() };
    if let Some(parent) = path.parent() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(failed)?;
    }
    let (listener, file) = listen_at(path).map_err(|err| match err {
        SocketPathError::NotASocket { what } => Error::NotASocket { path: path.to_owned(), what },
        SocketPathError::InUse => Error::Listen { path: path.to_owned(), why: err.to_string() },
        SocketPathError::Io(err) => failed(err),
    })?;
    let file = RemovedOnDrop(file);
    listener.set_nonblocking(true).map_err(failed)?;
    Ok((UnixListener::from_std(listener).map_err(failed)?, file))
}

async fn accept(shared: Arc<Shared>, listener: UnixListener) {
    let slots = Arc::new(Semaphore::new(PLUGINS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let session = session::run(Arc::clone(&shared), stream, None);
                tokio::spawn(async move {
                    session.await;
                    drop(slot);
                });
            }
            Err(err) => {
                warn!(error = %err, "connection of a plugin not accepted");
                // Most likely the daemon is out of descriptors; wait until some are closed.
                tokio::time::sleep(shared.settings.timeouts.get().request).await;
            }
        }
    }
}
