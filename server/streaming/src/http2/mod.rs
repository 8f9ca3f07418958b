// SPDX-License-Identifier: Apache-2.0
//! Authorities of gRPC clients that are not the name of a host, before the server's HTTP/2 refuses them.
//!
//! A client of a unix socket has no host to name. Some send the path as `:authority`, raw (`/run/hull/hull.sock`, older
//! gRPC for Go) or escaped (`%2Frun%2Fhull%2Fhull.sock`, gRPC for C, C++, Python, Ruby, and for Go with a dialer of the
//! client's own). gRPC allows any authority, but the HTTP library here takes it for a part of a URI, and resets the
//! stream; also for an empty one (Go without a target). So [`AuthorityFilter`] replaces the characters of such a value
//! that no host has, in the bytes that the client sends. Nothing of the server looks at the value.
//!
//! The rule: a replacement never changes a length, neither of the bytes nor of the value that they stand for. All frames
//! stay as they are, and the header tables of both sides (RFC 7541), which count lengths, stay in step. Where that
//! is impossible, and in everything that is not well-formed, nothing is changed: the server refuses it as before.

mod hpack;
mod huffman;

use hpack::Decoder;
use std::ops::Range;

/// Bytes that a client's connection begins with. RFC 9113, 3.4.
const PREFACE_BYTES: usize = 24;
/// Bytes of a frame's head.
const HEAD_BYTES: usize = 9;
/// Longest payload of a frame that the server accepts, in bytes: `SETTINGS_MAX_FRAME_SIZE`.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Most that is held of one request's header, in bytes: more than the server accepts.
const HELD_BYTES_MAX: usize = 64 << 10;

// Kinds and flags of frames. RFC 9113, 6.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// Where in the client's bytes the filter is.
#[derive(Debug, Clone, Copy)]
enum State {
    /// In bytes of no interest, of which so many follow.
    Passing(usize),
    /// In a frame's head.
    Head,
    /// In the payload of a frame of a header, which begins at this place of what is held.
    Header { payload: usize, length: usize },
    /// The client has sent what the server will refuse: everything passes.
    Off,
}

/// The filter of one connection's bytes from the client.
#[derive(Debug)]
pub struct AuthorityFilter {
    state: State,
    /// The head of the current frame, or all frames of the current header so far.
    held: Vec<u8>,
    /// The parts of the header in what is held.
    fragments: Vec<Range<usize>>,
    decoder: Decoder,
}

impl Default for AuthorityFilter {
    fn default() -> Self {
        Self {
            state: State::Passing(PREFACE_BYTES),
            held: Vec::new(),
            fragments: Vec::new(),
            decoder: Decoder::default(),
        }
    }
}

impl AuthorityFilter {
    /// How many of the next bytes may go to the server without [`AuthorityFilter::push`], if they are counted by
    /// [`AuthorityFilter::passed`]; 0 if the filter must see them.
    #[must_use]
    pub fn passes(&self) -> usize {
        match self.state {
            State::Passing(bytes) => bytes,
            State::Off => usize::MAX,
            State::Head | State::Header { .. } => 0,
        }
    }

    /// So many bytes, at most [`AuthorityFilter::passes`], went to the server.
    pub fn passed(&mut self, bytes: usize) {
        if let State::Passing(left) = &mut self.state {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.state = State::Head;
            }
        }
    }

    /// Takes the next bytes of the client, and appends what the server is to read now to `out`: the rest of a
    /// request's header is held until all of it is here.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let wanted = match self.state {
                State::Off => bytes.len(),
                State::Passing(left) => left,
                State::Head => {
                    let before = self.frame_start();
                    (before + HEAD_BYTES).saturating_sub(self.held.len())
                }
                State::Header { payload, length } => {
                    (payload + length).saturating_sub(self.held.len())
                }
            };
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            match self.state {
                State::Off => out.extend_from_slice(now),
                State::Passing(_) => {
                    out.extend_from_slice(now);
                    self.passed(now.len());
                }
                State::Head | State::Header { .. } => {
                    self.held.extend_from_slice(now);
                    if now.len() == wanted {
                        self.complete(out);
                    }
                }
            }
        }
    }

    /// Where the current frame begins in what is held.
    fn frame_start(&self) -> usize {
        self.fragments.last().map_or(0, |last| last.end)
    }

    /// A head, or a payload, is held as a whole.
    fn complete(&mut self, out: &mut Vec<u8>) {
        if matches!(self.state, State::Head) {
            self.state = self.after_head();
            match self.state {
                State::Header { length: 1.., .. } | State::Head => return,
                State::Header { .. } => {}
                State::Passing(_) | State::Off => return self.release(out),
            }
        }
        if let Some(is_last) = self.take_fragment() {
            if !is_last {
                self.state = State::Head;
                return;
            }
            self.state = if self.rewrite() { State::Head } else { State::Off };
        } else {
            self.state = State::Off;
        }
        self.release(out);
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.fragments.clear();
        if matches!(self.state, State::Passing(0)) {
            self.state = State::Head;
        }
    }

    fn after_head(&self) -> State {
        let start = self.frame_start();
        let [l0, l1, l2, kind, _, ..] = self.held[start..] else { return State::Off };
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let is_inside = !self.fragments.is_empty();
        match (kind, is_inside) {
            _ if length > FRAME_BYTES_MAX => State::Off,
            (HEADERS, false) | (CONTINUATION, true)
                if self.held.len().saturating_add(length) <= HELD_BYTES_MAX =>
            {
                State::Header { payload: self.held.len(), length }
            }
            // Too long, or another frame inside of a header.
            (HEADERS | CONTINUATION, _) | (_, true) => State::Off,
            (_, false) => State::Passing(length),
        }
    }

    /// Notes the part of the header that the current frame has; whether it is the last. `None` if it is malformed.
    fn take_fragment(&mut self) -> Option<bool> {
        let start = self.frame_start();
        let (kind, flags) = (*self.held.get(start + 3)?, *self.held.get(start + 4)?);
        let (mut from, mut to) = (start + HEAD_BYTES, self.held.len());
        if kind == HEADERS {
            if flags & PADDED != 0 {
                to = to.checked_sub(usize::from(*self.held.get(from)?))?;
                from += 1;
            }
            if flags & PRIORITY != 0 {
                from += 5;
            }
        }
        if from > to {
            return None;
        }
        self.fragments.push(from..to);
        // A frame begins where the one before ends, with its padding.
        let is_last = flags & END_HEADERS != 0;
        if !is_last {
            let end = self.held.len();
            self.fragments.push(end..end);
        }
        Some(is_last)
    }

    /// Replaces what has to be replaced in the header that is held; false if it is malformed.
    fn rewrite(&mut self) -> bool {
        let mut block: Vec<u8> = Vec::new();
        for part in &self.fragments {
            block.extend_from_slice(&self.held[part.clone()]);
        }
        let is_good = self.decoder.rewrite(&mut block).is_some();
        let mut rest = block.as_slice();
        for part in &self.fragments {
            let (now, later) = rest.split_at(part.len());
            self.held[part.clone()].copy_from_slice(now);
            rest = later;
        }
        is_good
    }
}

#[cfg(test)]
mod tests;
