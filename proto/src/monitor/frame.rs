// SPDX-License-Identifier: Apache-2.0
//! Frames in a stream of bytes: a little-endian length, then that many bytes of borsh. The daemon and the monitor
//! use the same code.

use super::FRAME_BYTES_MAX;
use borsh::{BorshDeserialize, BorshSerialize};

/// Bytes of a frame's length.
const LENGTH_PREFIX: usize = 4;

/// Collects bytes until a frame is complete. Holds no memory between frames.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    bytes: Vec<u8>,
}

/// The bytes are not a frame of the expected message, or the frame is too long. Nothing that follows on the stream
/// can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("decode frame: its length or content is invalid")]
pub struct InvalidFrame;

/// A message is longer than [`FRAME_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("encode frame: the message is longer than {FRAME_BYTES_MAX} bytes")]
pub struct FrameTooLong;

impl FrameDecoder {
    /// Appends bytes that were read from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// True if no part of a frame is buffered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The number of bytes that the current frame still lacks, as far as is known: those of its length, then
    /// the rest. Never 0.
    #[must_use]
    pub fn missing_bytes(&self) -> usize {
        let end = self.bytes.first_chunk::<LENGTH_PREFIX>().map_or(LENGTH_PREFIX, |prefix| {
            let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
            LENGTH_PREFIX.saturating_add(length)
        });
        end.saturating_sub(self.bytes.len()).max(1)
    }

    /// Removes and returns the next complete message.
    ///
    /// # Errors
    /// [`InvalidFrame`] when the bytes are not a frame of a `T`.
    pub fn take<T: BorshDeserialize>(&mut self) -> Result<Option<T>, InvalidFrame> {
        self.take_at_most(FRAME_BYTES_MAX)
    }

    /// Removes and returns the next complete message, of at most `most` bytes. The memory of its frame is freed,
    /// and not kept for the next frame.
    ///
    /// # Errors
    /// [`InvalidFrame`] when the bytes are not a frame of a `T`, or the frame is longer than `most`.
    pub fn take_at_most<T: BorshDeserialize>(
        &mut self,
        most: u32,
    ) -> Result<Option<T>, InvalidFrame> {
        let Some(prefix) = self.bytes.first_chunk::<LENGTH_PREFIX>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix);
        if length > most {
            return Err(InvalidFrame);
        }
        let end = LENGTH_PREFIX + usize::try_from(length).map_err(|_| InvalidFrame)?;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let message =
            borsh::from_slice(&self.bytes[LENGTH_PREFIX..end]).map_err(|_| InvalidFrame)?;
        self.bytes = self.bytes.split_off(end);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Ok(Some(message))
    }
}

/// Encodes a message as a frame.
///
/// # Errors
/// [`FrameTooLong`] when the message has more than [`FRAME_BYTES_MAX`] bytes.
pub fn encode<T: BorshSerialize>(message: &T) -> Result<Vec<u8>, FrameTooLong> {
    let mut bytes = vec![0; LENGTH_PREFIX];
    borsh::to_writer(&mut bytes, message).map_err(|_| FrameTooLong)?;
    let length = u32::try_from(bytes.len() - LENGTH_PREFIX).map_err(|_| FrameTooLong)?;
    if length > FRAME_BYTES_MAX {
        return Err(FrameTooLong);
    }
    bytes[..LENGTH_PREFIX].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Request};
    use super::*;

    #[test]
    fn frames_are_complete_however_the_stream_is_cut() {
        let sent: Vec<_> =
            (0..5).map(|id| Request { id, command: Command::Hello { version: 1 } }).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|request| encode(request).unwrap()).collect();
        for size in 1..bytes.len() {
            let (mut frames, mut got) = (FrameDecoder::default(), Vec::new());
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
    fn missing_bytes_never_reach_into_the_next_frame() {
        let request = Request { id: 1, command: Command::Hello { version: 1 } };
        let bytes = encode(&request).unwrap().repeat(3);
        let (mut frames, mut rest, mut got) = (FrameDecoder::default(), &bytes[..], 0);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(frames.missing_bytes());
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
    fn invalid_frames_are_refused() {
        let mut frames = FrameDecoder::default();
        frames.feed(&[0xff; 64]);
        assert_eq!(frames.take::<Request>(), Err(InvalidFrame));
        let mut frames = FrameDecoder::default();
        frames.feed(&[3, 0, 0, 0, 9, 9, 9]);
        assert_eq!(frames.take::<Request>(), Err(InvalidFrame));
    }
}
