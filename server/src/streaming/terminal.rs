// SPDX-License-Identifier: Apache-2.0
//! A pseudoterminal whose other end a process gets: bytes in both directions, and its size.

use hull_streaming::terminal::TerminalResizer;
use hull_sys::Pty;
use std::io;
use std::os::fd::OwnedFd;
use tokio::net::unix::pipe::{Receiver, Sender};

/// The daemon's end. Read and written through tokio's pipe types, which accept any descriptor that epoll does.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) output: Receiver,
    pub(super) input: Sender,
    pub(super) resizer: TerminalResizer,
}

impl Terminal {
    /// Opens a pseudoterminal. The second value is the end for the process.
    pub(super) fn open() -> io::Result<(Self, OwnedFd)> {
        let Pty { master, slave, .. } = hull_sys::open_pty().map_err(io::Error::other)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let output = Receiver::from_owned_fd_unchecked(master.try_clone()?)?;
        let input = Sender::from_owned_fd_unchecked(master.try_clone()?)?;
        Ok((Self { output, input, resizer: TerminalResizer::new(master) }, slave))
    }
}
