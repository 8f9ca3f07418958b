// SPDX-License-Identifier: Apache-2.0
//! The terminal of an exec: opened in the container by the process itself, which sends its master. A monitor of an
//! earlier release gets one of the host.

use crate::error::Error;
use crate::monitors;
use hull_sys::Pty;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

/// A master that is there, or will come.
#[derive(Debug)]
pub(super) enum Master {
    /// The socket over which it comes, before the start is answered.
    Sent(OwnedFd),
    /// The master of a terminal of the host.
    OnHost(OwnedFd),
}

impl Master {
    /// Prepares a terminal. The second value is the descriptor for the monitor.
    ///
    /// # Errors
    /// No descriptors can be opened.
    pub(super) fn prepare(client: &monitors::Client) -> Result<(Self, OwnedFd), Error> {
        if client.opens_terminals() {
            let (ours, theirs) = UnixStream::pair().map_err(failed)?;
            return Ok((Self::Sent(ours.into()), theirs.into()));
        }
        let Pty { master, slave } = hull_sys::open_pty().map_err(|err| failed(other(err)))?;
        Ok((Self::OnHost(master), slave))
    }

    /// The master, once the process runs.
    ///
    /// # Errors
    /// It did not come, or is not the master of a terminal.
    pub(super) fn take(self) -> Result<OwnedFd, Error> {
        match self {
            Self::Sent(socket) => {
                hull_sys::receive_master(socket.as_fd()).map_err(|err| failed(other(err)))
            }
            Self::OnHost(master) => Ok(master),
        }
    }
}

fn failed(source: io::Error) -> Error {
    Error::ExecPipes { source }
}

fn other(err: hull_sys::Error) -> io::Error {
    io::Error::other(err)
}
