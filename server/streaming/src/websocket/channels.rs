// SPDX-License-Identifier: Apache-2.0
//! How a message says which channel it belongs to. Pure.
//!
//! The base64 form is for clients that can only send text: the channel is a digit, the rest is encoded.

use bytes::Bytes;
use data_encoding::BASE64;
use tokio_tungstenite::tungstenite::protocol::Message;

/// Ends a channel, where the client may say so.
const END: u8 = 255;

/// The form of a subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    pub base64: bool,
    pub half_close: bool,
}

/// What a client said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Bytes { channel: u8, bytes: Bytes },
    End { channel: u8 },
}

/// It cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bad;

impl Channels {
    /// The newest first; the last is for clients that name none. The number is remotecommand's.
    pub const NAMES: [(&str, u8); 5] = [
        ("v5.channel.k8s.io", 5),
        ("v4.channel.k8s.io", 4),
        ("v4.base64.channel.k8s.io", 4),
        ("base64.channel.k8s.io", 1),
        ("channel.k8s.io", 1),
    ];

    pub fn of(name: &str) -> Self {
        Self { base64: name.contains("base64"), half_close: name.starts_with("v5.") }
    }

    /// Takes a message apart; an empty one says nothing.
    pub fn said(self, mut message: Bytes) -> Result<Option<Said>, Bad> {
        let Some(&first) = message.first() else { return Ok(None) };
        let bytes = message.split_off(1);
        if self.half_close && first == END {
            let [channel] = *bytes else { return Err(Bad) };
            return Ok(Some(Said::End { channel }));
        }
        if !self.base64 {
            return Ok(Some(Said::Bytes { channel: first, bytes }));
        }
        let channel = first.checked_sub(b'0').ok_or(Bad)?;
        let bytes = BASE64.decode(&bytes).map_err(|_| Bad)?.into();
        Ok(Some(Said::Bytes { channel, bytes }))
    }

    /// The message that says `bytes`.
    pub fn message(self, channel: u8, bytes: &[u8]) -> Message {
        if self.base64 {
            let mut text = String::with_capacity(1 + BASE64.encode_len(bytes.len()));
            text.push(char::from(b'0'.saturating_add(channel)));
            BASE64.encode_append(bytes, &mut text);
            return Message::text(text);
        }
        let mut message = Vec::with_capacity(1 + bytes.len());
        message.push(channel);
        message.extend_from_slice(bytes);
        Message::binary(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form() -> impl Strategy<Value = Channels> {
        proptest::sample::select(Channels::NAMES.to_vec()).prop_map(|(name, _)| Channels::of(name))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(form in form(), channel in 0..5_u8, bytes: Vec<u8>) {
            let message = form.message(channel, &bytes).into_data();
            let said = Said::Bytes { channel, bytes: bytes.into() };
            prop_assert_eq!(form.said(message), Ok(Some(said)));
        }

        #[test]
        fn noise_is_refused_or_read_but_never_a_panic(form in form(), noise: Vec<u8>) {
            let _either = form.said(noise.into());
        }
    }

    #[test]
    fn only_version_5_closes_half() {
        let end = || Bytes::from_static(&[255, 0]);
        let said = |name| Channels::of(name).said(end());
        assert_eq!(said("v5.channel.k8s.io"), Ok(Some(Said::End { channel: 0 })));
        let bytes = Bytes::from_static(&[0]);
        assert_eq!(said("v4.channel.k8s.io"), Ok(Some(Said::Bytes { channel: 255, bytes })));
        assert_eq!(Channels::of("v5.channel.k8s.io").said(Bytes::from_static(&[255])), Err(Bad));
    }
}
