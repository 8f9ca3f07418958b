// SPDX-License-Identifier: Apache-2.0
//! The encoding of channels in messages. Pure.
//!
//! The base64 form is for clients that can only send text: the channel is a digit, the rest is base64.

use bytes::Bytes;
use data_encoding::BASE64;
use tokio_tungstenite::tungstenite::protocol::Message;

/// The message type that ends a channel, in subprotocols that have it.
const END: u8 = 255;

/// The message format of a subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    pub base64: bool,
    pub half_close: bool,
}

/// A decoded message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelMessage {
    Bytes { channel: u8, bytes: Bytes },
    End { channel: u8 },
}

/// An error: the message is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidMessage;

impl Channels {
    /// The subprotocols with their version of remotecommand, newest first. The last one is for clients that send no
    /// name.
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

    /// Decodes a message; `None` for an empty one.
    pub fn decode(self, mut message: Bytes) -> Result<Option<ChannelMessage>, InvalidMessage> {
        let Some(&first) = message.first() else { return Ok(None) };
        let bytes = message.split_off(1);
        if self.half_close && first == END {
            let [channel] = *bytes else { return Err(InvalidMessage) };
            return Ok(Some(ChannelMessage::End { channel }));
        }
        if !self.base64 {
            return Ok(Some(ChannelMessage::Bytes { channel: first, bytes }));
        }
        let channel = first.checked_sub(b'0').ok_or(InvalidMessage)?;
        let bytes = BASE64.decode(&bytes).map_err(|_| InvalidMessage)?.into();
        Ok(Some(ChannelMessage::Bytes { channel, bytes }))
    }

    /// Encodes `bytes` as a message of a channel.
    pub fn encode(self, channel: u8, bytes: &[u8]) -> Message {
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

    /// Encodes the end of a channel, for a subprotocol that has it.
    pub fn encode_end(self, channel: u8) -> Message {
        Message::binary(vec![END, channel])
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
        fn messages_are_decoded_as_they_were_encoded(form in form(), channel in 0..5_u8, bytes: Vec<u8>) {
            let message = form.encode(channel, &bytes).into_data();
            let said = ChannelMessage::Bytes { channel, bytes: bytes.into() };
            prop_assert_eq!(form.decode(message), Ok(Some(said)));
        }

        #[test]
        fn random_bytes_are_decoded_or_refused(form in form(), noise: Vec<u8>) {
            let _either = form.decode(noise.into());
        }
    }

    #[test]
    fn only_version_5_can_end_a_channel() {
        let end = || Bytes::from_static(&[255, 0]);
        let said = |name| Channels::of(name).decode(end());
        assert_eq!(said("v5.channel.k8s.io"), Ok(Some(ChannelMessage::End { channel: 0 })));
        let bytes = Bytes::from_static(&[0]);
        assert_eq!(
            said("v4.channel.k8s.io"),
            Ok(Some(ChannelMessage::Bytes { channel: 255, bytes }))
        );
        assert_eq!(
            Channels::of("v5.channel.k8s.io").decode(Bytes::from_static(&[255])),
            Err(InvalidMessage)
        );
    }
}
