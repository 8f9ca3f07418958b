// SPDX-License-Identifier: Apache-2.0
//! Bytes of a gRPC client, through the filter of authorities.

use crate::input::Input;
use hull_streaming::http2::AuthorityFilter;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Runs one case: the first byte says whether the rest is what a client sends, or a script of mostly well-formed
/// frames and fields; the second, in pieces of which length it arrives.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let is_script = input.byte() % 2 == 1;
    let piece = usize::from(input.byte()).max(1);
    let sent = if is_script { script(&mut input) } else { [PREFACE, input.0].concat() };
    let whole = filtered(&sent, sent.len().max(1));
    assert!(whole.len() <= sent.len(), "{} bytes were made of {}", whole.len(), sent.len());
    assert_eq!(filtered(&sent, piece), whole, "in pieces of {piece} it is the same");
    assert_eq!(filtered(&whole, piece), whole, "what came out is not changed again");
}

fn filtered(bytes: &[u8], piece: usize) -> Vec<u8> {
    let (mut filter, mut out) = (AuthorityFilter::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        // As the server does it: what passes anyway is not given to the filter.
        if filter.passes() >= piece.len() {
            out.extend_from_slice(piece);
            filter.passed(piece.len());
        } else {
            filter.push(piece, &mut out);
        }
    }
    out
}

fn script(input: &mut Input<'_>) -> Vec<u8> {
    let mut sent = PREFACE.to_vec();
    while !input.is_empty() {
        let choice = input.byte();
        let payload = match choice % 4 {
            0 => input.run().to_vec(),
            _ => block(input),
        };
        // Headers, rest of them, data; with any flags.
        let kind = [1, 1, 1, 9, 0][usize::from(choice >> 2) % 5];
        let flags = if choice & 0x80 == 0 { 4 } else { input.byte() };
        let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
        sent.extend(&length[1..]);
        sent.extend([kind, flags, 0, 0, 0, 1]);
        sent.extend(payload);
    }
    sent
}

/// Fields by index, with names by index or as text, and changes of the table's size.
fn block(input: &mut Input<'_>) -> Vec<u8> {
    let mut block = Vec::new();
    for _ in 0..input.byte() % 8 {
        let choice = input.byte();
        match choice % 6 {
            0 => block.push(0x80 | input.byte()),
            1 => block.push(0x20 | input.byte()),
            2 => block.push(0x40 | (input.byte() % 64)),
            3 => block.push(0x41),
            4 => block.extend(b"\x40\x0a:authority"),
            _ => block.extend([0x40, 1, b'x']),
        }
        if choice % 6 > 1 {
            let value = input.run();
            let value = &value[..value.len().min(126)];
            block.push(choice & 0x80 | u8::try_from(value.len()).unwrap_or(0));
            block.extend(value);
        }
    }
    block
}
