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

/// The document by which a client asks to leave the process running at its terminal. Only Hull's own command line sends
/// it, on the stream of sizes, which no other client has a use for.
pub const DETACH: &str = "{\"Detach\":true}";

/// A document on the stream of sizes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Document {
    Size(Size),
    Detach(Detach),
}

/// The form of [`DETACH`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Detach {
    detach: bool,
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
    /// Whether the client has asked to leave the process running.
    is_detached: bool,
}

impl SizeDecoder {
    /// Adds a chunk. Returns the last size that is complete.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Option<Size>, InvalidSize> {
        self.text.extend_from_slice(chunk);
        let (found, detach, used) = last_size(&self.text);
        self.is_detached |= detach;
        self.text.drain(..used);
        if self.text.len() > SIZE_BYTES_MAX { Err(InvalidSize) } else { Ok(found) }
    }
}

impl TerminalResizer {
    /// For the terminal that `master` belongs to.
    pub fn new(master: OwnedFd) -> Self {
        Self { master }
    }

    /// Sets every size that the client sends, until it ends or sends invalid input. Returns whether the client has asked
    /// to leave the process running.
    pub async fn apply_all(&self, mut sizes: Sizes) -> bool {
        while let Some(size) = sizes.next().await {
            self.apply(size);
        }
        sizes.decoder.is_detached
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

    /// The next size, the last of those that came together; `None` when the stream ends, has something else, or after
    /// [`DETACH`]. Dropped before it is ready, it has lost nothing.
    pub async fn next(&mut self) -> Option<Size> {
        while !self.decoder.is_detached {
            let chunk = self.from.next().await?;
            if let Some(size) = self.decoder.feed(&chunk).ok()? {
                return Some(size);
            }
        }
        None
    }
}

/// The last complete size in `text`, whether the client asks to detach, and the number of bytes up to their end.
fn last_size(text: &[u8]) -> (Option<Size>, bool, usize) {
    let mut documents = serde_json::Deserializer::from_slice(text).into_iter::<Document>();
    let (mut last, mut detach, mut used) = (None, false, 0);
    while let Some(Ok(document)) = documents.next() {
        match document {
            Document::Size(size) => last = Some(size),
            Document::Detach(of) => detach |= of.detach,
        }
        used = documents.byte_offset();
    }
    (last, detach, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_size_counts() {
        let (size, detach, used) =
            last_size(b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":30}\n{\"Wid");
        assert_eq!(size.map(|size| (size.width, size.height)), Some((100, 30)));
        assert!(used == 50 && !detach);
        assert!(last_size(b"{\"Width\":8").0.is_none());
    }

    #[test]
    fn a_client_may_ask_to_leave_the_process_running() {
        let mut decoder = SizeDecoder::default();
        let (first, rest) = DETACH.as_bytes().split_at(5);
        decoder.feed(b"{\"Width\":80,\"Height\":24}").unwrap();
        decoder.feed(first).unwrap();
        assert!(!decoder.is_detached);
        decoder.feed(rest).unwrap();
        assert!(decoder.is_detached);
        assert!(!last_size(b"{\"Detach\":false}").1);
    }
}
