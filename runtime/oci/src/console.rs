// SPDX-License-Identifier: Apache-2.0
//! Terminals: opened in the container, and their masters sent to the console socket.

use crate::error::{Error, Result};
use hull_init::{Io, NewTerminal};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::termios::tcgetwinsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// A terminal that a process opens in its container, and the socket over which its master comes. One without a
/// `receiver` is copied to our own by this program; as runc in the foreground, it adds no carriage returns.
pub(crate) fn terminal(has_receiver: bool) -> Result<(Io, OwnedFd)> {
    let (new, socket) = NewTerminal::pair().map_err(Error::call)?;
    let new = if has_receiver { new } else { new.without_carriage_returns() };
    Ok((Io::NewTerminal(new), socket))
}

/// The master of the terminal that a started process has opened; `None` if it went to the receiver, or there is no
/// terminal.
pub(crate) fn receive(
    socket: Option<&OwnedFd>,
    receiver: Option<&Receiver>,
) -> Result<Option<OwnedFd>> {
    let Some(socket) = socket else { return Ok(None) };
    let master = hull_sys::receive_master(socket.as_fd()).map_err(Error::call)?;
    match receiver {
        Some(receiver) => receiver.give(&master).map(|()| None),
        None => Ok(Some(master)),
    }
}

/// The size of our own terminal, rows and columns, for a process that is copied to it.
pub(crate) fn own_size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(rustix::stdio::stdin()).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// The receiver of the master. It is connected before anything is created, so that a wrong path fails early.
#[derive(Debug)]
pub(crate) struct Receiver(OwnedFd);

impl Receiver {
    /// Connects to the socket that `option` of the command line names, if it has a value.
    pub(crate) fn connect(option: &'static str, path: Option<&Path>) -> Result<Option<Self>> {
        let Some(path) = path else { return Ok(None) };
        let failed = |errno| {
            let source = hull_sys::Error::new(errno, "connect(UNIX)");
            Error::OptionPath { option, path: path.to_owned(), source }
        };
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(Error::of(|| "socket(UNIX)"))?;
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        connect(&socket, &address).map_err(failed)?;
        Ok(Some(Self(socket)))
    }

    /// Hands over the pidfd of a process.
    pub(crate) fn give_pidfd(&self, pidfd: &OwnedFd) -> Result<()> {
        hull_sys::send_fd(self.0.as_fd(), b"pidfd", pidfd.as_fd()).map_err(Error::call)
    }

    /// Hands over a master.
    pub(crate) fn give(&self, master: &OwnedFd) -> Result<()> {
        // Receivers want a name along with it.
        hull_sys::send_fd(self.0.as_fd(), b"/dev/ptmx", master.as_fd()).map_err(Error::call)
    }
}
