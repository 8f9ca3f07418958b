// SPDX-License-Identifier: Apache-2.0
//! A pseudoterminal whose other end a process gets: bytes in both directions, and its size.

use hull_streaming::terminal::{Size, Sizes, TerminalResizer};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::net::unix::pipe::{Receiver, Sender};

/// Time that the start of an exec waits for the size of its terminal.
const FIRST_SIZE_MAX: Duration = crate::limits::FIRST_SIZE_MS.time();

/// The daemon's end. Read and written through tokio's pipe types, which accept any descriptor that epoll does.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) output: Receiver,
    pub(super) input: Sender,
    pub(super) resizer: TerminalResizer,
}

impl Terminal {
    /// The daemon's end of the terminal with this master.
    pub(super) fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let output = Receiver::from_owned_fd_unchecked(master.try_clone()?)?;
        let input = Sender::from_owned_fd_unchecked(master.try_clone()?)?;
        Ok(Self { output, input, resizer: TerminalResizer::new(master) })
    }
}

/// The size that a client has sent by now, or sends within [`FIRST_SIZE_MAX`]: a process that starts with it has no
/// need to redraw. Clients without a terminal of their own send none.
pub(super) async fn first_size(sizes: Option<&mut Sizes>) -> Option<Size> {
    let sizes = sizes?;
    tokio::time::timeout(FIRST_SIZE_MAX, sizes.next()).await.ok().flatten()
}
