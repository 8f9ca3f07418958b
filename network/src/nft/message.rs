// SPDX-License-Identifier: Apache-2.0
//! Encodes nftables messages and batches.
//!
//! Numbers are from include/uapi/linux/netfilter/nf_tables.h; all are big-endian on the wire.

use hull_netlink::{Attributes, Response, Socket};
use hull_sys::Result;
use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NlasIterator};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// The family of rules for both IPv4 and IPv6.
const INET: u8 = 1;
const UNSPEC: u8 = 0;

pub(super) const NEW_TABLE: u16 = 0;
pub(super) const DELETE_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const NEW_SET: u16 = 9;
pub(super) const NEW_ELEMENT: u16 = 12;
pub(super) const DELETE_ELEMENT: u16 = 14;

/// A comment, as `nft` shows it. `kind` is its type in the object's user data.
pub(super) fn comment(kind: u8, text: &str) -> Vec<u8> {
    let text: Vec<u8> = text.bytes().take(127).chain([0]).collect();
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [vec![kind, length], text].concat()
}

/// Changes that the kernel applies together or not at all.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    changes: Vec<(u16, u16, String, Vec<u8>)>,
}

impl Transaction {
    /// Adds a change. `call` names it in errors.
    pub(super) fn change(&mut self, kind: u16, call: String, attributes: &Attributes) {
        let flags = match kind {
            DELETE_TABLE | DELETE_ELEMENT => 0,
            // Append to the chain; the default is to prepend.
            NEW_RULE => NLM_F_CREATE | NLM_F_APPEND,
            _ => NLM_F_CREATE,
        };
        self.changes.push((SUBSYSTEM << 8 | kind, flags, call, body(INET, 0, attributes)));
    }

    /// Sends the changes to the kernel.
    pub(super) fn commit(self, socket: &Socket) -> Result<()> {
        let mark = || body(UNSPEC, SUBSYSTEM, &Attributes::default());
        let last = self.changes.len();
        let mut batch = socket.batch();
        batch.push_raw(BATCH_BEGIN, 0, "nftables batch", &mark());
        for (number, (kind, flags, call, body)) in self.changes.into_iter().enumerate() {
            // Errors are always reported, so one acknowledgement for the last change is enough.
            let flags = if number + 1 == last { flags | NLM_F_ACK } else { flags };
            batch.push_raw(kind, flags, call, &body);
        }
        batch.push_raw(BATCH_END, 0, "nftables batch end", &mark());
        batch.run_until(last)
    }
}

/// The number of rules in each chain; `None` when the table or a chain is missing.
pub(super) fn rule_counts(
    socket: &Socket,
    table: &str,
    chains: &[&str],
) -> Result<Option<Vec<u32>>> {
    const USE: u16 = 6;
    const HEADER: usize = 4;
    let mut batch = socket.batch();
    for chain in chains {
        let attributes = Attributes::default().text(1, table).text(3, chain);
        let call = format!("NFT_MSG_GETCHAIN(inet {table} {chain})");
        batch.push_raw(SUBSYSTEM << 8 | GET_CHAIN, NLM_F_ACK, call, &body(INET, 0, &attributes));
    }
    let responses = match batch.query() {
        Err(err) if err.is_not_found() => return Ok(None),
        other => other?,
    };
    let count = |response: &Response| {
        let mut attributes =
            NlasIterator::new(response.body.get(HEADER..)?).map_while(|one| one.ok());
        let found = attributes.find(|one| one.kind() == USE)?;
        found.value().first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    };
    Ok(Some(responses.iter().filter_map(count).collect()))
}

fn body(family: u8, resource: u16, attributes: &Attributes) -> Vec<u8> {
    let mut bytes = vec![family, 0];
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_bounded_and_closed() {
        assert_eq!(comment(0, "pod"), *b"\0\x04pod\0");
        assert_eq!(comment(0, &"x".repeat(500)).len(), 130);
    }
}
