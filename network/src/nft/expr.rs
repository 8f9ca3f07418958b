// SPDX-License-Identifier: Apache-2.0
//! nftables expressions: load a register, compare, look up, act.
//!
//! Registers are numbered in four-byte words from [`WORD`]; each value of a concatenation starts at a new
//! word. A rule ends at the first expression that does not match.

use hull_netlink::Attributes;

/// The first register word.
pub(super) const WORD: u32 = 8;
const VERDICT: u32 = 0;

/// A packet's metadata keys.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta {
    Mark = 3,
    InName = 6,
    OutName = 7,
    Family = 15,
    Protocol = 16,
}

/// A field of a packet: base header, offset, length.
pub(super) type Field = (u32, u32, u32);
/// The destination port of TCP, UDP and SCTP.
pub(super) const DESTINATION_PORT: Field = (2, 2, 2);

/// The operator of a comparison.
#[derive(Debug, Clone, Copy)]
pub(super) enum Comparison {
    Equal = 0,
    Not = 1,
}

fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::default().text(1, name).nested(2, data)
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(1, bytes)
}

pub(super) fn meta(key: Meta, to: u32) -> Attributes {
    expression("meta", Attributes::default().number(1, to).number(2, key as u32))
}

pub(super) fn payload((base, offset, length): Field, to: u32) -> Attributes {
    let data =
        Attributes::default().number(1, to).number(2, base).number(3, offset).number(4, length);
    expression("payload", data)
}

pub(super) fn compare(from: u32, is: Comparison, bytes: &[u8]) -> Attributes {
    let data = Attributes::default().number(1, from).number(2, is as u32).nested(3, value(bytes));
    expression("cmp", data)
}

/// Keeps only the bits in `mask`.
pub(super) fn mask(register: u32, mask: &[u8]) -> Attributes {
    bitwise(register, mask, &vec![0; mask.len()])
}

/// Keeps only the bits in `mask`, then inverts those in `xor`.
fn bitwise(register: u32, mask: &[u8], xor: &[u8]) -> Attributes {
    let length = u32::try_from(mask.len()).unwrap_or(0);
    let data = Attributes::default()
        .number(1, register)
        .number(2, register)
        .number(3, length)
        .nested(4, value(mask))
        .nested(5, value(xor));
    expression("bitwise", data)
}

/// Matches packets to an address of this node.
pub(super) fn is_local_destination() -> [Attributes; 2] {
    const RESULT_TYPE: u32 = 3;
    const OF_DESTINATION: u32 = 2;
    const LOCAL: u32 = 2;
    let data =
        Attributes::default().number(1, WORD).number(2, RESULT_TYPE).number(3, OF_DESTINATION);
    [expression("fib", data), compare(WORD, Comparison::Equal, &LOCAL.to_ne_bytes())]
}

/// Matches connections whose destination was translated.
pub(super) fn is_redirected() -> [Attributes; 3] {
    const STATUS: u32 = 2;
    const DESTINATION_CHANGED: u32 = 0x20;
    [
        expression("ct", Attributes::default().number(1, WORD).number(2, STATUS)),
        mask(WORD, &DESTINATION_CHANGED.to_ne_bytes()),
        compare(WORD, Comparison::Not, &[0; 4]),
    ]
}

/// Sets bits in the packet's mark.
pub(super) fn add_mark(bits: u32) -> [Attributes; 3] {
    let set = Attributes::default().number(2, Meta::Mark as u32).number(3, WORD);
    [
        meta(Meta::Mark, WORD),
        bitwise(WORD, &(!bits).to_ne_bytes(), &bits.to_ne_bytes()),
        expression("meta", set),
    ]
}

/// Matches packets whose mark has all these bits.
pub(super) fn has_mark(bits: u32) -> [Attributes; 3] {
    let bits = bits.to_ne_bytes();
    [meta(Meta::Mark, WORD), mask(WORD, &bits), compare(WORD, Comparison::Equal, &bits)]
}

/// Replaces the register words with the value that the map has for them.
pub(super) fn lookup(map: &str) -> Attributes {
    expression("lookup", Attributes::default().text(1, map).number(2, WORD).number(3, WORD))
}

/// Translates the destination to the address and port in the register words.
pub(super) fn dnat(family: u8, port: u32) -> Attributes {
    const DESTINATION: u32 = 1;
    let data = Attributes::default()
        .number(1, DESTINATION)
        .number(2, u32::from(family))
        .number(3, WORD)
        .number(5, port);
    expression("nat", data)
}

/// Translates the source to the address of the outgoing link.
pub(super) fn masquerade() -> Attributes {
    expression("masq", Attributes::default())
}

pub(super) fn drop_packet() -> Attributes {
    const DROP: u32 = 0;
    verdict(DROP)
}

/// Ends the chain for this packet; a base chain then applies its policy.
pub(super) fn return_verdict() -> Attributes {
    const RETURN: i32 = -5;
    verdict(RETURN.cast_unsigned())
}

fn verdict(code: u32) -> Attributes {
    let verdict = Attributes::default().nested(2, Attributes::default().number(1, code));
    expression("immediate", Attributes::default().number(1, VERDICT).nested(2, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_a_name_and_its_data() {
        let bytes = meta(Meta::Protocol, WORD).as_ref().to_vec();
        let mut expected = Vec::new();
        expected.extend(9_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend(*b"meta\0\0\0\0");
        expected.extend(20_u16.to_ne_bytes());
        expected.extend(0x8002_u16.to_ne_bytes());
        for (kind, value) in [(1_u16, 8_u8), (2, 16)] {
            expected.extend(8_u16.to_ne_bytes());
            expected.extend(kind.to_ne_bytes());
            expected.extend([0, 0, 0, value]);
        }
        assert_eq!(bytes, expected);
    }
}
