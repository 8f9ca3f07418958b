// SPDX-License-Identifier: Apache-2.0
//! Header blocks as clients make them, through the filter, and what a decoder makes of the result.

use super::huffman;
use super::*;
use proptest::prelude::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

fn plain(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text].concat()
}

fn coded(text: &[u8]) -> Vec<u8> {
    let bytes = huffman::encode(text);
    [&[0x80 | u8::try_from(bytes.len()).unwrap()][..], bytes.as_slice()].concat()
}

/// The output for these bytes, which arrive in pieces of this length.
fn filtered(bytes: &[u8], piece: usize) -> Vec<u8> {
    let (mut filter, mut out) = (AuthorityFilter::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        filter.push(piece, &mut out);
    }
    out
}

/// A connection with these header blocks, each in one frame, before and after the filter.
fn blocks(blocks: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut sent = PREFACE.to_vec();
    for block in blocks {
        sent.extend(frame(4, 0, &[0; 6]));
        sent.extend(frame(HEADERS, END_HEADERS, block));
    }
    let out = filtered(&sent, usize::MAX);
    assert_eq!(out.len(), sent.len());
    let mut rest = &out[PREFACE.len()..];
    let mut found = Vec::new();
    for block in blocks {
        rest = &rest[HEAD_BYTES + 6 + HEAD_BYTES..];
        let (now, later) = rest.split_at(block.len());
        found.push(now.to_vec());
        rest = later;
    }
    found
}

const RAW: &[u8] = b"/run/hull/hull.sock";
const ESCAPED: &[u8] = b"%2Frun%2Fhull%2Fhull.sock";
const RAW_CLEAN: &[u8] = b"-run-hull-hull.sock";
const ESCAPED_CLEAN: &[u8] = b"-2Frun-2Fhull-2Fhull.sock";

#[test]
fn a_path_as_authority_becomes_a_name_of_the_same_length_in_every_form() {
    for (value, clean) in [(RAW, RAW_CLEAN), (ESCAPED, ESCAPED_CLEAN), (b"a:b:c d", b"axbxc-d")] {
        let raw_clean: &[u8] = if value == b"a:b:c d" { b"a-b-c-d" } else { clean };
        for begin in [
            vec![0x41],
            vec![0x01],
            vec![0x11],
            [&[0x40][..], plain(b":authority").as_slice()].concat(),
            [&[0x00][..], coded(b":authority").as_slice()].concat(),
        ] {
            let of = |text: Vec<u8>| [&[0x83, 0x86][..], begin.as_slice(), &text].concat();
            assert_eq!(blocks(&[&of(plain(value))]), [of(plain(raw_clean))], "{begin:x?}");
            assert_eq!(blocks(&[&of(coded(value))]), [of(coded(clean))], "{begin:x?}");
        }
    }
}

#[test]
fn an_empty_authority_becomes_another_empty_field() {
    // As Go sends it, and with its name from the table: then it is an entry of the same size.
    assert_eq!(blocks(&[&[0x83, 0x86, 0x81]]), [[0x83, 0x86, 0xb7]]);
    assert_eq!(blocks(&[&[0x83, 0x86, 0x41, 0x00]]), [[0x83, 0x86, 0x77, 0x00]]);
}

#[test]
fn what_the_server_takes_and_other_fields_stay_as_they_are() {
    for value in [&b"localhost"[..], b"[::1]:50051", b"hull.example:80", b"user@host"] {
        let block = [&[0x41][..], coded(value).as_slice()].concat();
        assert_eq!(blocks(&[&block]), [block]);
    }
    // :path, and a field that is named like the authority but for its colon.
    let path = [&[0x44][..], coded(b"/runtime.v1.RuntimeService/Version").as_slice()].concat();
    let other = [&[0x40][..], plain(b"authority").as_slice(), &plain(RAW)].concat();
    assert_eq!(blocks(&[&path, &other]), [path, other]);
    // Nothing as short as this has a character that a host may have.
    let block = [&[0x41][..], coded(b"#").as_slice()].concat();
    assert_eq!(blocks(&[&block]), [block]);
}

#[test]
fn a_name_in_the_clients_table_is_known_while_it_is_there() {
    // Into the table: `:authority` by its literal name; then by its index there, and by that after two more entries.
    let first = [&[0x40][..], plain(b":authority").as_slice(), &plain(b"a")].concat();
    let by_table =
        |index: u8, value: &[u8]| [&[0x40 | index][..], plain(value).as_slice()].concat();
    let other = [&[0x40][..], plain(b"x-trace").as_slice(), &plain(b"1")].concat();
    let found = blocks(&[
        &first,
        &by_table(62, RAW),
        &[other.clone(), other.clone()].concat(),
        &by_table(62, RAW),
    ]);
    assert_eq!(found[1], by_table(62, RAW_CLEAN));
    assert_eq!(found[3], by_table(62, RAW), "62 is another field by now");
    // An entry as large as the table pushes all others out: what 62 named is an error then, and all passes.
    let large =
        [&[0x40][..], plain(b"x").as_slice(), &[0x7f, 0xe0, 0x1e][..], &[b'y'; 4063]].concat();
    let after = [by_table(62, b"z"), [&[0x41][..], plain(RAW).as_slice()].concat()].concat();
    let too_old = by_table(63, RAW);
    assert_eq!(
        blocks(&[&first, &large, &after])[2][3..],
        [&[0x41][..], plain(RAW_CLEAN).as_slice()].concat()
    );
    assert_eq!(blocks(&[&first, &large, &too_old])[2], too_old);
    // The table made empty, and larger than it may be.
    assert_eq!(blocks(&[&first, &[0x20], &by_table(62, RAW)])[2], by_table(62, RAW));
    let update = [0x3f, 0xe2, 0x1f];
    let authority = [&[0x41][..], plain(RAW).as_slice()].concat();
    assert_eq!(blocks(&[&update, &authority])[1], authority, "4097 bytes are an error");
}

#[test]
fn a_header_over_several_frames_with_padding_is_one() {
    let block = [&[0x83, 0x41][..], coded(ESCAPED).as_slice(), &[0x86][..]].concat();
    let clean = [&[0x83, 0x41][..], coded(ESCAPED_CLEAN).as_slice(), &[0x86][..]].concat();
    let of = |block: &[u8]| {
        let (first, second, third) = (&block[..5], &block[5..6], &block[6..]);
        let payload = [&[3, 0, 0, 0, 0, 9][..], first, &[0; 3]].concat();
        [
            PREFACE,
            &frame(HEADERS, PADDED | PRIORITY, &payload),
            &frame(CONTINUATION, 0, second),
            &frame(CONTINUATION, 0, b""),
            &frame(CONTINUATION, END_HEADERS, third),
            &frame(0, 1, b"/not/a/header"),
            &frame(HEADERS, END_HEADERS, b""),
            &frame(HEADERS, END_HEADERS, block),
        ]
        .concat()
    };
    for piece in [1, 2, 3, 7, 1000] {
        assert_eq!(filtered(&of(&block), piece), of(&clean), "in pieces of {piece}");
    }
}

#[test]
fn after_what_the_server_refuses_everything_passes() {
    let authority = [&[0x41][..], plain(RAW).as_slice()].concat();
    let good = frame(HEADERS, END_HEADERS, &authority);
    let too_long = [&[0, 0x40, 1, 0, 0, 0, 0, 0, 1][..], &[0; 16_385]].concat();
    for bad in [
        frame(HEADERS, END_HEADERS, &[0x80]),
        frame(HEADERS, END_HEADERS, &[0x41, 0x05, b'a']),
        frame(HEADERS, END_HEADERS, &[0x41, 0x82, 0, 0]),
        frame(HEADERS, END_HEADERS, &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        frame(HEADERS, END_HEADERS | PADDED, &[9, 0]),
        frame(HEADERS, END_HEADERS | PRIORITY, &[0]),
        frame(CONTINUATION, END_HEADERS, &authority),
        [frame(HEADERS, 0, b""), frame(0, 0, b"")].concat(),
        too_long,
    ] {
        let sent = [PREFACE, &bad, &good].concat();
        assert_eq!(filtered(&sent, 5), sent, "{bad:x?}");
    }
}

#[test]
fn every_byte_has_a_code_of_its_own() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(huffman::decode(&huffman::encode(&all)), Some(all));
    // RFC 7541, C.4.1.
    let example = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    assert_eq!(huffman::decode(&example).unwrap(), b"www.example.com");
    // The end of a string inside of it; and padding of a byte, and of zeros.
    for bad in [&[0xff, 0xff, 0xff, 0xff][..], &[0x1f, 0xff], &[0x18]] {
        assert_eq!(huffman::decode(bad), None, "{bad:x?}");
    }
}

proptest! {
    #[test]
    fn pieces_make_no_difference(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1..20usize) {
        let sent = [PREFACE, &frame(HEADERS, END_HEADERS, &bytes), &bytes].concat();
        let whole = filtered(&sent, usize::MAX);
        prop_assert!(whole.len() <= sent.len());
        prop_assert_eq!(filtered(&sent, piece), whole);
    }

    #[test]
    fn any_path_becomes_a_host(path in "(/[a-zA-Z0-9._ =%-]{1,20}){1,5}", code in any::<bool>()) {
        let value = if code { coded(path.as_bytes()) } else { plain(path.as_bytes()) };
        let block = [&[0x41][..], value.as_slice()].concat();
        let out = blocks(&[&block]).remove(0);
        prop_assert_eq!(out.len(), block.len());
        let value = if code { huffman::decode(&out[2..]).unwrap() } else { out[2..].to_vec() };
        prop_assert_eq!(value.len(), path.len());
        let text = String::from_utf8(value).unwrap();
        prop_assert!(text.parse::<hyper::http::uri::Authority>().is_ok(), "{}", text);
    }
}
