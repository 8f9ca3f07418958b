// SPDX-License-Identifier: Apache-2.0
//! The byte format of a plugin's socket: frames that carry two channels, and in each channel messages of
//! ttrpc. Pure.
//!
//! ```text
//! frame    channel:u32 length:u32 bytes…              channel 1: calls to the plugin, 2: to the daemon
//! message  length:u32 stream:u32 type:u8 flags:u8 bytes…   may span frames; next_number are big-endian
//! ```
//!
//! The rule: no input makes the decoder keep more than one message of the maximum length per channel.

use bytes::{Buf as _, Bytes, BytesMut};

/// Longest message, in bytes: ttrpc's limit.
pub(crate) const MESSAGE_BYTES_MAX: usize = crate::limits::MESSAGE_BYTES.count();

const FRAME_HEADER: usize = 8;
const MESSAGE_HEADER: usize = 10;
/// A frame carries at most one message.
const FRAME_BYTES_MAX: usize = MESSAGE_HEADER + MESSAGE_BYTES_MAX;
/// Longest frame in which a message may begin, in bytes. Plugins built with the Go library read into a buffer of
/// this size, and lose the connection if the frame is longer; they read the rest of a message at once.
const FIRST_FRAME_BYTES_MAX: usize = 4096;

/// The direction of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Calls by the daemon.
    Plugin = 1,
    /// Calls by the plugin.
    Runtime = 2,
}

/// The type of a ttrpc message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request = 1,
    Response = 2,
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) channel: Channel,
    pub(crate) stream: u32,
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

/// Invalid bytes. The connection cannot continue after them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("a frame of {bytes} bytes, at most {FRAME_BYTES_MAX} are allowed")]
    Frame { bytes: u32 },
    #[error("a message of {bytes} bytes, at most {MESSAGE_BYTES_MAX} are allowed")]
    Message { bytes: u32 },
    #[error("a message of type {kind}")]
    Kind { kind: u8 },
}

/// Assembles messages from pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The incomplete header of the next frame.
    header: BytesMut,
    /// Channel of the current frame, and its missing bytes.
    frame: Option<(u32, usize)>,
    plugin: BytesMut,
    runtime: BytesMut,
}

impl Decoder {
    /// Adds `bytes` and returns the messages that are complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<Message>, Error> {
        let mut whole = Vec::new();
        while !bytes.is_empty() {
            let Some((number, left)) = self.frame else {
                self.begin_frame(&mut bytes)?;
                continue;
            };
            let (now, rest) = bytes.split_at(left.min(bytes.len()));
            bytes = rest;
            self.frame = (left > now.len()).then_some((number, left - now.len()));
            let (channel, buffer) = match number {
                1 => (Channel::Plugin, &mut self.plugin),
                2 => (Channel::Runtime, &mut self.runtime),
                // Reserved for later versions of the interface.
                _ => continue,
            };
            buffer.extend_from_slice(now);
            while let Some(message) = message(channel, buffer)? {
                whole.push(message);
            }
        }
        Ok(whole)
    }

    fn begin_frame(&mut self, bytes: &mut &[u8]) -> Result<(), Error> {
        let (now, rest) = bytes.split_at((FRAME_HEADER - self.header.len()).min(bytes.len()));
        self.header.extend_from_slice(now);
        *bytes = rest;
        if self.header.len() < FRAME_HEADER {
            return Ok(());
        }
        let (channel, length) = (self.header.get_u32(), self.header.get_u32());
        match usize::try_from(length) {
            Ok(0) => {}
            Ok(left) if left <= FRAME_BYTES_MAX => self.frame = Some((channel, left)),
            Ok(_) | Err(_) => return Err(Error::Frame { bytes: length }),
        }
        Ok(())
    }
}

/// The next message of a channel, if it is complete.
fn message(channel: Channel, buffer: &mut BytesMut) -> Result<Option<Message>, Error> {
    let Some(mut header) = buffer.get(..MESSAGE_HEADER) else { return Ok(None) };
    let (bytes, stream, kind) = (header.get_u32(), header.get_u32(), header.get_u8());
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES_MAX {
        return Err(Error::Message { bytes });
    }
    let kind = match kind {
        1 => Kind::Request,
        2 => Kind::Response,
        kind => return Err(Error::Kind { kind }),
    };
    if buffer.len() < MESSAGE_HEADER + length {
        return Ok(None);
    }
    buffer.advance(MESSAGE_HEADER);
    let payload = buffer.split_to(length).freeze();
    Ok(Some(Message { channel, stream, kind, payload }))
}

/// Encodes a message; `None` if it is too long.
pub(crate) fn encode(channel: Channel, stream: u32, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok()?;
    if payload.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    let (first, rest) = payload.split_at(payload.len().min(FIRST_FRAME_BYTES_MAX - MESSAGE_HEADER));
    let mut out = Vec::with_capacity(2 * FRAME_HEADER + MESSAGE_HEADER + payload.len());
    let mut frame = |parts: &[&[u8]]| {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        out.extend_from_slice(&(channel as u32).to_be_bytes());
        // Checked above: a message fits.
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        parts.iter().for_each(|part| out.extend_from_slice(part));
    };
    let flags = 0;
    frame(&[&length.to_be_bytes(), &stream.to_be_bytes(), &[kind as u8, flags], first]);
    if !rest.is_empty() {
        frame(&[rest]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(stream: u32, payload: &[u8]) -> Vec<u8> {
        encode(Channel::Plugin, stream, Kind::Request, payload).unwrap()
    }

    #[test]
    fn a_short_message_is_one_frame_and_a_long_one_two() {
        let short = request(1, b"abc");
        assert_eq!(
            short,
            [&[0, 0, 0, 1, 0, 0, 0, 13, 0, 0, 0, 3, 0, 0, 0, 1, 1, 0][..], b"abc"].concat()
        );
        let long = request(3, &[7; 10_000]);
        assert_eq!(long.len(), 2 * FRAME_HEADER + MESSAGE_HEADER + 10_000);
        assert_eq!(long[4..8], 4096_u32.to_be_bytes());
        assert_eq!(long[FRAME_HEADER + 4096 + 4..][..4], (10_000_u32 - 4086).to_be_bytes());
        assert!(
            encode(Channel::Plugin, 1, Kind::Request, &vec![0; MESSAGE_BYTES_MAX + 1]).is_none()
        );
        assert!(encode(Channel::Plugin, 1, Kind::Request, &vec![0; MESSAGE_BYTES_MAX]).is_some());
    }

    #[test]
    fn invalid_lengths_and_types_are_errors() {
        let feed = |bytes: &[u8]| Decoder::default().feed(bytes).unwrap_err();
        assert_eq!(feed(&[0, 0, 0, 1, 255, 255, 255, 255]), Error::Frame { bytes: u32::MAX });
        let long = [0, 0, 0, 1, 0, 0, 0, 10, 0, 64, 0, 1, 0, 0, 0, 1, 1, 0];
        assert_eq!(feed(&long), Error::Message { bytes: (4 << 20) + 1 });
        let data = [0, 0, 0, 2, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0];
        assert_eq!(feed(&data), Error::Kind { kind: 3 });
    }

    #[test]
    fn frames_of_other_channels_and_empty_ones_are_ignored() {
        let mut bytes = vec![0, 0, 0, 9, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 1, 0, 0, 0, 0];
        bytes.extend(request(5, b"x"));
        let got = Decoder::default().feed(&bytes).unwrap();
        assert_eq!((got.len(), got[0].stream), (1, 5));
    }

    proptest! {
        /// Messages of both channels come out complete and in order, for any size of pieces.
        #[test]
        fn messages_survive_any_cutting(
            messages in proptest::collection::vec(
                (any::<bool>(), any::<u32>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..9000)), 0..6),
            piece in 1..5000usize,
        ) {
            let sent: Vec<_> = messages.into_iter().map(|(plugin, stream, request, payload)| Message {
                channel: if plugin { Channel::Plugin } else { Channel::Runtime },
                stream,
                kind: if request { Kind::Request } else { Kind::Response },
                payload: payload.into(),
            }).collect();
            let bytes: Vec<u8> = sent.iter()
                .flat_map(|of| encode(of.channel, of.stream, of.kind, &of.payload).unwrap()).collect();
            let mut decoder = Decoder::default();
            let got: Vec<_> = bytes.chunks(piece).flat_map(|part| decoder.feed(part).unwrap()).collect();
            prop_assert_eq!(got, sent);
        }

        /// Random bytes give messages or an error, never a panic, and never more buffered than allowed.
        #[test]
        fn garbage_is_bounded(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            valid_frames in any::<bool>(),
        ) {
            let mut decoder = Decoder::default();
            for part in parts {
                let head = [[0, 0, 0, 1], u32::try_from(part.len()).unwrap().to_be_bytes()].concat();
                let bytes = if valid_frames { [head, part].concat() } else { part };
                if decoder.feed(&bytes).is_err() {
                    return Ok(());
                }
                prop_assert!(decoder.plugin.len() <= FRAME_BYTES_MAX);
            }
        }
    }
}
