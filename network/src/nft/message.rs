// SPDX-License-Identifier: Apache-2.0
//! How nftables' messages are put together: attributes, objects, batches.
//!
//! Numbers are those of include/uapi/linux/netfilter/nf_tables.h; all are big-endian on the wire.

use crate::netlink::Socket;
use hull_sys::Result;
use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// The family of rules for IPv4 and IPv6 alike.
const INET: u8 = 1;
const UNSPEC: u8 = 0;

pub(super) const NEW_TABLE: u16 = 0;
pub(super) const GET_TABLE: u16 = 1;
pub(super) const DELETE_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const NEW_SET: u16 = 9;
pub(super) const NEW_ELEMENT: u16 = 12;
pub(super) const DELETE_ELEMENT: u16 = 14;

/// Writes netlink attributes.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // One that is too long is refused by the kernel as malformed; callers keep below.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn nested(self, kind: u16, inner: Self) -> Self {
        const NESTED: u16 = 0x8000;
        self.bytes(kind | NESTED, &inner.0)
    }

    /// Attributes of the same kind, one behind the other.
    pub(super) fn list(items: impl IntoIterator<Item = Self>) -> Self {
        const ELEMENT: u16 = 1;
        items.into_iter().fold(Self::default(), |list, item| list.nested(ELEMENT, item))
    }

    #[cfg(test)]
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl AsRef<[u8]> for Attributes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What `nft` shows behind `comment`. `kind` is its number among the object's user data.
pub(super) fn comment(kind: u8, text: &str) -> Vec<u8> {
    let text: Vec<u8> = text.bytes().take(127).chain([0]).collect();
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [vec![kind, length], text].concat()
}

/// Changes that are made together or not at all.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    changes: Vec<(u16, u16, String, Vec<u8>)>,
}

impl Transaction {
    /// Adds a change. `call` is how it reads in an error.
    pub(super) fn change(&mut self, kind: u16, call: String, attributes: &Attributes) {
        let flags = match kind {
            DELETE_TABLE | DELETE_ELEMENT => 0,
            // Behind the chain's other rules; it would come before them otherwise.
            NEW_RULE => NLM_F_CREATE | NLM_F_APPEND,
            _ => NLM_F_CREATE,
        };
        self.changes.push((SUBSYSTEM << 8 | kind, flags, call, body(INET, 0, attributes)));
    }

    /// Has the kernel make the changes.
    pub(super) fn commit(self, socket: &Socket) -> Result<()> {
        let mark = || body(UNSPEC, SUBSYSTEM, &Attributes::default());
        let last = self.changes.len();
        let mut batch = socket.batch();
        batch.push_raw(BATCH_BEGIN, 0, "nftables batch", &mark());
        for (number, (kind, flags, call, body)) in self.changes.into_iter().enumerate() {
            // Refusals come in any case, so one acknowledgement, the last, tells of all.
            let flags = if number + 1 == last { flags | NLM_F_ACK } else { flags };
            batch.push_raw(kind, flags, call, &body);
        }
        batch.push_raw(BATCH_END, 0, "nftables batch end", &mark());
        batch.run_until(last)
    }
}

/// Whether the table is there.
pub(super) fn has_table(socket: &Socket, table: &str) -> Result<bool> {
    let attributes = Attributes::default().text(1, table);
    let mut batch = socket.batch();
    let call = format!("NFT_MSG_GETTABLE(inet {table})");
    batch.push_raw(SUBSYSTEM << 8 | GET_TABLE, NLM_F_ACK, call, &body(INET, 0, &attributes));
    match batch.run() {
        Ok(()) => Ok(true),
        Err(err) if err.is_not_found() => Ok(false),
        Err(err) => Err(err),
    }
}

fn body(family: u8, resource: u16, attributes: &Attributes) -> Vec<u8> {
    let mut bytes = vec![family, 0];
    bytes.extend(resource.to_be_bytes());
    bytes.extend(&attributes.0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_nested_and_big_endian() {
        let inner = Attributes::default().number(2, 0x0102_0304).text(1, "hull");
        let bytes = Attributes::default().nested(3, inner).into_bytes();
        let mut expected = Vec::new();
        expected.extend(24_u16.to_ne_bytes());
        expected.extend(0x8003_u16.to_ne_bytes());
        expected.extend(8_u16.to_ne_bytes());
        expected.extend(2_u16.to_ne_bytes());
        expected.extend([1, 2, 3, 4]);
        expected.extend(9_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend(*b"hull\0\0\0\0");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_comment_is_bounded_and_closed() {
        assert_eq!(comment(0, "pod"), *b"\0\x04pod\0");
        assert_eq!(comment(0, &"x".repeat(500)).len(), 130);
    }
}
