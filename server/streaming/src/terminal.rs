// SPDX-License-Identifier: Apache-2.0
//! The size of a terminal, as clients send it.

use crate::channel::Inbound;
use rustix::termios::Winsize;
use serde::Deserialize;
use std::os::fd::OwnedFd;

/// Sets the size of a terminal.
#[derive(Debug)]
pub struct TerminalResizer {
    master: OwnedFd,
}

/// The size in characters. Clients send one JSON document after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

impl Size {
    /// The document that a client sends.
    #[must_use]
    pub fn to_json(self) -> String {
        format!("{{\"Width\":{},\"Height\":{}}}", self.width, self.height)
    }
}

/// Longest JSON document of a size, in bytes.
pub const SIZE_BYTES_MAX: usize = 256;

/// An error: the input is not a size, and too long to become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidSize;

/// Decodes sizes from chunks of any length.
#[derive(Debug, Default)]
pub struct SizeDecoder {
    text: Vec<u8>,
}

impl SizeDecoder {
    /// Adds a chunk. Returns the last size that is complete.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Option<Size>, InvalidSize> {
        self.text.extend_from_slice(chunk);
        let (found, used) = last_size(&self.text);
        self.text.drain(..used);
        if self.text.len() > SIZE_BYTES_MAX { Err(InvalidSize) } else { Ok(found) }
    }
}

impl TerminalResizer {
    /// For the terminal that `master` belongs to.
    pub fn new(master: OwnedFd) -> Self {
        Self { master }
    }

    /// Sets every size that the client sends, until it ends or sends invalid input.
    pub async fn apply_all(&self, mut sizes: Sizes) {
        while let Some(size) = sizes.next().await {
            self.apply(size);
        }
    }

    /// Sets a size.
    pub fn apply(&self, Size { width, height }: Size) {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        // Fails if the process has closed the terminal.
        let _closed = rustix::termios::tcsetwinsize(&self.master, size);
    }
}

/// The sizes that a client sends.
#[derive(Debug)]
pub struct Sizes {
    from: Inbound,
    decoder: SizeDecoder,
}

impl Sizes {
    /// The sizes on this stream.
    pub fn new(from: Inbound) -> Self {
        Self { from, decoder: SizeDecoder::default() }
    }

    /// The next size, the last of those that came together; `None` when the stream ends, or has no size. Dropped
    /// before it is ready, it has lost nothing.
    pub async fn next(&mut self) -> Option<Size> {
        loop {
            let chunk = self.from.next().await?;
            if let Some(size) = self.decoder.feed(&chunk).ok()? {
                return Some(size);
            }
        }
    }
}

/// The last complete size in `text`, and the number of bytes up to its end.
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
    fn the_last_complete_size_counts() {
        let (size, used) =
            last_size(b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":30}\n{\"Wid");
        assert_eq!(size.map(|size| (size.width, size.height)), Some((100, 30)));
        assert_eq!(used, 50);
        assert!(last_size(b"{\"Width\":8").0.is_none());
    }
}
