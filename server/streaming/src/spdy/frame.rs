// SPDX-License-Identifier: Apache-2.0
//! Frames of SPDY/3.1: a head of eight bytes, then the body. Pure.
//!
//! ```text
//! control  1 version:15 type:16 flags:8 length:24
//! data     0 stream:31          flags:8 length:24
//! ```
//!
//! A large control frame is refused. A data frame is never held completely, so its length is bounded only by
//! the field (16 MiB).

/// Length of a head, in bytes.
pub const HEAD: usize = 8;
/// Longest control frame, in bytes.
pub const CONTROL_BYTES_MAX: usize = 64 << 10;

const CONTROL: u32 = 1 << 31;
const VERSION: u32 = 3;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const WINDOW_UPDATE: u16 = 9;

const INITIAL_WINDOW_SIZE: u32 = 7;

/// The status of a reset for an unknown stream.
pub const INVALID_STREAM: u32 = 2;
/// The status of a reset for a stream that is not accepted now.
pub const REFUSED_STREAM: u32 = 3;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    Control { kind: u16, fin: bool, length: usize },
    Data { stream: u32, fin: bool, length: usize },
}

/// A control frame that is supported here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    Open {
        stream: u32,
        fin: bool,
        headers: Vec<u8>,
    },
    Reset {
        stream: u32,
    },
    InitialWindow {
        bytes: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Credit {
        stream: u32,
        bytes: u32,
    },
    /// A control frame that is ignored.
    Other,
}

/// An error: the frame is not SPDY/3.1, or is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidFrame;

/// Decodes the head of a frame.
pub fn head(bytes: [u8; HEAD]) -> Result<Head, InvalidFrame> {
    let [a, b, c, d, flags, e, f, g] = bytes;
    let first = u32::from_be_bytes([a, b, c, d]);
    let length = usize::try_from(u32::from_be_bytes([0, e, f, g])).map_err(|_| InvalidFrame)?;
    let fin = flags & FIN != 0;
    if first & CONTROL == 0 {
        return if first == 0 {
            Err(InvalidFrame)
        } else {
            Ok(Head::Data { stream: first, fin, length })
        };
    }
    if (first & !CONTROL) >> 16 != VERSION || length > CONTROL_BYTES_MAX {
        return Err(InvalidFrame);
    }
    Ok(Head::Control { kind: u16::from_be_bytes([c, d]), fin, length })
}

/// Decodes the body of a control frame.
pub fn control(kind: u16, fin: bool, body: &[u8]) -> Result<Control, InvalidFrame> {
    let word = |at: usize| -> Result<u32, InvalidFrame> {
        let word = body.get(at..).and_then(<[u8]>::first_chunk::<4>).ok_or(InvalidFrame)?;
        Ok(u32::from_be_bytes(*word))
    };
    let id = |at: usize| word(at).map(|word| word & !CONTROL);
    Ok(match kind {
        SYN_STREAM => {
            let headers = body.get(10..).ok_or(InvalidFrame)?.to_vec();
            let stream = id(0)?;
            // A client's streams have odd numbers.
            if stream % 2 == 0 {
                return Err(InvalidFrame);
            }
            Control::Open { stream, fin, headers }
        }
        RST_STREAM => Control::Reset { stream: id(0)? },
        SETTINGS => initial_window(body).ok_or(InvalidFrame)?,
        PING => Control::Ping { id: word(0)? },
        GOAWAY => Control::GoAway,
        WINDOW_UPDATE => Control::Credit { stream: id(0)?, bytes: id(4)? },
        _ => Control::Other,
    })
}

fn initial_window(body: &[u8]) -> Option<Control> {
    let (count, entries) = body.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if entries.len() != count || !rest.is_empty() {
        return None;
    }
    let found = entries.iter().rev().find_map(|[_, a, b, c, value @ ..]| {
        let is_it = u32::from_be_bytes([0, *a, *b, *c]) == INITIAL_WINDOW_SIZE;
        is_it.then(|| u32::from_be_bytes(*value))
    });
    Some(found.map_or(Control::Other, |bytes| Control::InitialWindow { bytes }))
}

fn control_frame(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + body.len());
    frame.extend((CONTROL | VERSION << 16 | u32::from(kind)).to_be_bytes());
    frame.extend(flags_and_length(false, body.len()));
    frame.extend(body);
    frame
}

fn flags_and_length(fin: bool, length: usize) -> [u8; 4] {
    // All frames sent here are chunks or a few words: far below the field's 24 bits.
    let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [if fin { FIN } else { 0 }, a, b, c]
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The head of a data frame.
pub fn data_head(stream: u32, fin: bool, length: usize) -> [u8; HEAD] {
    let [a, b, c, d] = stream.to_be_bytes();
    let [e, f, g, h] = flags_and_length(fin, length);
    [a, b, c, d, e, f, g, h]
}

/// The frame that accepts a stream.
pub fn reply(stream: u32, headers: &[u8]) -> Vec<u8> {
    control_frame(SYN_REPLY, &[&words(&[stream]), headers].concat())
}

/// The frame that aborts a stream.
pub fn reset(stream: u32, status: u32) -> Vec<u8> {
    control_frame(RST_STREAM, &words(&[stream, status]))
}

/// A ping, or the answer to one.
pub fn ping(id: u32) -> Vec<u8> {
    control_frame(PING, &words(&[id]))
}

/// The frame after which no more streams are accepted.
pub fn goaway() -> Vec<u8> {
    control_frame(GOAWAY, &words(&[0, 0]))
}

/// The frame that adds `bytes` to the peer's window.
pub fn credit(stream: u32, bytes: u32) -> Vec<u8> {
    control_frame(WINDOW_UPDATE, &words(&[stream, bytes]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(frame: &[u8]) -> Result<Control, InvalidFrame> {
        let (first, body) = frame.split_first_chunk::<HEAD>().unwrap();
        let Head::Control { kind, fin, length } = head(*first)? else { return Err(InvalidFrame) };
        assert_eq!(length, body.len());
        control(kind, fin, body)
    }

    proptest! {
        #[test]
        fn frames_are_decoded_as_they_were_encoded(stream in 1..1_u32 << 31, fin: bool, n in 0..1_u32 << 31, length in 0..1_usize << 24) {
            prop_assert_eq!(head(data_head(stream, fin, length)), Ok(Head::Data { stream, fin, length }));
            prop_assert_eq!(read(&reset(stream, n)), Ok(Control::Reset { stream }));
            prop_assert_eq!(read(&ping(n)), Ok(Control::Ping { id: n }));
            prop_assert_eq!(read(&credit(stream, n)), Ok(Control::Credit { stream, bytes: n }));
            prop_assert_eq!(read(&goaway()), Ok(Control::GoAway));
        }

        #[test]
        fn random_bytes_are_decoded_or_refused(first: [u8; 8], kind in 0..12_u16, fin: bool, body: Vec<u8>) {
            let _either = head(first);
            let _either = control(kind, fin, &body);
        }
    }

    #[test]
    fn a_long_control_frame_or_another_version_is_refused() {
        assert_eq!(head([0x80, 3, 0, 1, 0, 1, 0, 1]), Err(InvalidFrame));
        assert_eq!(head([0x80, 2, 0, 1, 0, 0, 0, 1]), Err(InvalidFrame));
        let settings = words(&[1, INITIAL_WINDOW_SIZE, 4096]);
        assert_eq!(control(SETTINGS, false, &settings), Ok(Control::InitialWindow { bytes: 4096 }));
        assert_eq!(control(SETTINGS, false, &settings[..8]), Err(InvalidFrame));
    }
}
