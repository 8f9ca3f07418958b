// SPDX-License-Identifier: Apache-2.0
//! A terminal of the daemon's own, whose other side a process gets: bytes both ways, and its size.

use crate::channel::Inbound;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::Winsize;
use serde::Deserialize;
use std::io;
use std::os::fd::OwnedFd;
use tokio::net::unix::pipe::{Receiver, Sender};

/// Our side. Its bytes go through tokio's pipes, which want no more of a descriptor than that it can
/// be waited for.
#[derive(Debug)]
pub struct Terminal {
    pub output: Receiver,
    pub input: Sender,
    pub sizes: Sizes,
}

/// Where a terminal is told its size.
#[derive(Debug)]
pub struct Sizes {
    master: OwnedFd,
}

/// As the client sends it, one JSON document after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

/// Longest document, in bytes.
pub const SIZE_BYTES_MAX: usize = 256;

/// What came is no size, and too long to become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bad;

/// Puts sizes together, however they were cut on their way.
#[derive(Debug, Default)]
pub struct Sizing {
    text: Vec<u8>,
}

impl Sizing {
    /// Takes what came; gives the last size that is whole by now.
    pub fn take(&mut self, chunk: &[u8]) -> Result<Option<Size>, Bad> {
        self.text.extend_from_slice(chunk);
        let (found, used) = last_size(&self.text);
        self.text.drain(..used);
        if self.text.len() > SIZE_BYTES_MAX { Err(Bad) } else { Ok(found) }
    }
}

impl Terminal {
    /// Makes one; the second is the process's side.
    pub fn open() -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let output = Receiver::from_owned_fd_unchecked(master.try_clone()?)?;
        let input = Sender::from_owned_fd_unchecked(master.try_clone()?)?;
        Ok((Self { output, input, sizes: Sizes { master } }, slave))
    }
}

impl Sizes {
    /// Of the terminal that `master` belongs to.
    pub fn of(master: OwnedFd) -> Self {
        Self { master }
    }

    /// Takes every size that the client sends.
    pub async fn follow(&self, mut sizes: Inbound) {
        let mut sizing = Sizing::default();
        while let Some(chunk) = sizes.next().await {
            let Ok(found) = sizing.take(&chunk) else { return };
            if let Some(Size { width, height }) = found {
                let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
                // A terminal whose process is gone has no size.
                let _gone = rustix::termios::tcsetwinsize(&self.master, size);
            }
        }
    }
}

/// The last whole size in `text`, and how many bytes are done with.
fn last_size(text: &[u8]) -> (Option<Size>, usize) {
    let mut documents = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let (mut last, mut used) = (None, 0);
    while let Some(Ok(size)) = documents.next() {
        last = Some(size);
        used = documents.byte_offset();
    }
    (last, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_however_they_were_cut() {
        let (size, used) =
            last_size(b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":30}\n{\"Wid");
        assert_eq!(size.map(|size| (size.width, size.height)), Some((100, 30)));
        assert_eq!(used, 50);
        assert!(last_size(b"{\"Width\":8").0.is_none());
    }
}
