// SPDX-License-Identifier: Apache-2.0
//! Frames out of a stream of bytes: a little-endian length, then that many bytes of borsh.

use borsh::{BorshDeserialize, BorshSerialize};
use hull_proto::monitor::FRAME_BYTES_MAX;

/// Bytes of a frame's length.
const HEAD: usize = 4;

/// Collects bytes until a frame is whole. Holds no memory between frames.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

/// What came in cannot be a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbage;

impl Frames {
    /// Takes what was read.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Nothing is left of what was fed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes the frame still lacks, as far as is known: its length, then the rest. Never 0.
    #[must_use]
    pub fn missing(&self) -> usize {
        let end = self.bytes.first_chunk::<HEAD>().map_or(HEAD, |head| {
            let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
            HEAD.saturating_add(length)
        });
        end.saturating_sub(self.bytes.len()).max(1)
    }

    /// The next whole message.
    ///
    /// # Errors
    /// When the bytes are no frame: nothing that follows could be trusted.
    pub fn take<T: BorshDeserialize>(&mut self) -> Result<Option<T>, Garbage> {
        self.take_at_most(FRAME_BYTES_MAX)
    }

    /// The next whole message, if it is of no more than `most` bytes. What it was read from is given back,
    /// and not kept for the next.
    ///
    /// # Errors
    /// When the bytes are no such frame: nothing that follows could be trusted.
    pub fn take_at_most<T: BorshDeserialize>(&mut self, most: u32) -> Result<Option<T>, Garbage> {
        let Some(head) = self.bytes.first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head);
        if length > most {
            return Err(Garbage);
        }
        let end = HEAD + usize::try_from(length).map_err(|_| Garbage)?;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let message = borsh::from_slice(&self.bytes[HEAD..end]).map_err(|_| Garbage)?;
        self.bytes = self.bytes.split_off(end);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Ok(Some(message))
    }
}

/// A message as a frame; `None` when it would be too long.
pub(crate) fn encode<T: BorshSerialize>(message: &T) -> Option<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    borsh::to_writer(&mut bytes, message).ok()?;
    let length =
        u32::try_from(bytes.len() - HEAD).ok().filter(|length| *length <= FRAME_BYTES_MAX)?;
    bytes[..HEAD].copy_from_slice(&length.to_le_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_proto::monitor::{Request, Verb};

    #[test]
    fn frames_come_out_whole_however_they_came_in() {
        let sent: Vec<_> =
            (0..5).map(|id| Request { id, verb: Verb::Hello { version: 1 } }).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|request| encode(request).unwrap()).collect();
        for size in 1..bytes.len() {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.feed(piece);
                while let Some(request) = frames.take::<Request>().unwrap() {
                    got.push(request);
                }
            }
            assert_eq!(got, sent, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_missing_never_reaches_into_the_next_frame() {
        let request = Request { id: 1, verb: Verb::Hello { version: 1 } };
        let bytes = encode(&request).unwrap().repeat(3);
        let (mut frames, mut rest, mut got) = (Frames::default(), &bytes[..], 0);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(frames.missing());
            frames.feed(now);
            rest = later;
            if frames.take::<Request>().unwrap().is_some() {
                got += 1;
                assert!(frames.is_empty());
            }
        }
        assert_eq!(got, 3);
    }

    #[test]
    fn garbage_is_told_from_a_frame() {
        let mut frames = Frames::default();
        frames.feed(&[0xff; 64]);
        assert_eq!(frames.take::<Request>(), Err(Garbage));
        let mut frames = Frames::default();
        frames.feed(&[3, 0, 0, 0, 9, 9, 9]);
        assert_eq!(frames.take::<Request>(), Err(Garbage));
    }
}
