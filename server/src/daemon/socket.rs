// SPDX-License-Identifier: Apache-2.0
//! The socket that CRI is served on: bound by the daemon at the path of `socket`, or handed over by systemd.

use crate::records;
use hull_sys::{SocketFile, SocketPathError, listen_at};
use rustix::io::Errno;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;
use tracing::warn;

/// Why the socket cannot be served. Each text reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("make the directory of the socket")]
    Directory { source: records::Error },
    #[error("listen on `{}`: it is {what}, not a socket", path.display())]
    NotASocket { path: PathBuf, what: &'static str },
    #[error("listen on {}: another program serves there", path.display())]
    Taken { path: PathBuf },
    #[error("listen on {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
}

impl Error {
    /// The change by which an operator fixes this.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Directory { source } => source.hint(),
            Self::NotASocket { path, .. } => Some(format!(
                "set `socket` (`--socket`) to another path; or, if nothing needs `{}`, move it away: hull removes only sockets",
                path.display()
            )),
            Self::Taken { .. } => {
                Some("stop the other daemon, or give this one its own `socket`".into())
            }
            Self::Listen { path, source }
                if Errno::from_io_error(source) == Some(Errno::NOTDIR) =>
            {
                Some(format!(
                    "set `socket` (`--socket`) to a path in a directory: a part of {} is not one",
                    path.display()
                ))
            }
            Self::Listen { .. } => {
                Some("check that its directory is writable, and on no read-only file system".into())
            }
        }
    }
}

/// Listens at `path`. Replaces the socket of an earlier daemon, and nothing else.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, SocketFile), Error> {
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        records::create_dir(parent).map_err(|source| Error::Directory { source })?;
    }
    let (listener, file) = listen_at(path).map_err(|err| match err {
        SocketPathError::NotASocket { what } => Error::NotASocket { path: path.to_owned(), what },
        SocketPathError::InUse => Error::Taken { path: path.to_owned() },
        SocketPathError::Io(source) => failed(source),
    })?;
    Ok((serving(listener).map_err(failed)?, file))
}

/// Takes over the socket that systemd listened on.
pub(super) fn adopt(handed: StdListener, path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    let at = handed.local_addr().map_err(failed)?;
    if at.as_pathname() != Some(path) {
        warn!(handed = ?at, socket = %path.display(), "systemd listens elsewhere than `socket` says");
    }
    serving(handed).map_err(failed)
}

fn serving(listener: StdListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Removes the socket of a daemon that ends.
pub(super) fn remove(file: &SocketFile) {
    if let Err(err) = file.remove() {
        warn!(error = %err, "socket not removed");
    }
}
