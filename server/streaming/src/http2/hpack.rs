// SPDX-License-Identifier: Apache-2.0
//! Header blocks (HPACK, RFC 7541), as far as one must read them to find the authority: the dynamic table has the
//! lengths of its entries, and which of them are named `:authority`.

use super::huffman;
use bytes::Bytes;
use hyper::http::uri::Authority;
use std::collections::VecDeque;

/// Size of the dynamic table that the server allows, `SETTINGS_HEADER_TABLE_SIZE`: as without that setting.
const TABLE_BYTES_MAX: usize = 4096;
/// Bytes that each entry counts besides its name and value. RFC 7541, 4.1.
const ENTRY_BYTES: usize = 32;
/// The name looked for, and its index in the static table.
const AUTHORITY: &[u8] = b":authority";
const AUTHORITY_INDEX: usize = 1;
/// A whole field of the static table: `:authority` without a value. RFC 7541, 6.1.
const EMPTY_AUTHORITY: u8 = 0x80 | 1;
/// The index of `set-cookie`, which requests do not have, and whose name is as long: what an empty authority becomes.
const INSTEAD: u8 = 55;
/// Lengths of the names of the static table, from index 1. RFC 7541, Appendix A.
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];

/// A name, as far as it matters.
#[derive(Debug, Clone, Copy)]
struct Name {
    length: usize,
    is_authority: bool,
}

/// The client's dynamic table, and the way through its blocks.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The newest first: each with the size that it counts for.
    entries: VecDeque<(Name, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES_MAX }
    }
}

/// A string of a block: where its bytes are, and whether they are in Huffman's code.
struct Text {
    from: usize,
    to: usize,
    coded: bool,
}

impl Decoder {
    /// Reads a whole block, and replaces the characters of an authority in it that the server would refuse. `None`
    /// for a malformed one; the table is out of step then.
    pub(super) fn rewrite(&mut self, block: &mut [u8]) -> Option<()> {
        let mut at = 0;
        while let Some(first) = block.get(at).copied() {
            match first {
                0x80.. => {
                    if first == EMPTY_AUTHORITY {
                        *block.get_mut(at)? = 0x80 | INSTEAD;
                    }
                    let index = integer(block, &mut at, 7)?;
                    self.name(index)?;
                }
                0x40.. => {
                    let from = at;
                    let (name, value) = self.literal(block, &mut at, 6)?;
                    if usize::from(first & 0x3f) == AUTHORITY_INDEX && value == 0 {
                        *block.get_mut(from)? = 0x40 | INSTEAD;
                    }
                    self.insert(name, value);
                }
                0x20.. => {
                    let size = integer(block, &mut at, 5)?;
                    if size > TABLE_BYTES_MAX {
                        return None;
                    }
                    self.bytes_max = size;
                    self.evict(size);
                }
                // Without indexing, or never with: the same to the table.
                _ => drop(self.literal(block, &mut at, 4)?),
            }
        }
        Some(())
    }

    /// A name and a value; gives the name, and the length of the value.
    fn literal(&self, block: &mut [u8], at: &mut usize, prefix: u8) -> Option<(Name, usize)> {
        let index = integer(block, at, prefix)?;
        let name = if index == 0 {
            let text = string(block, at)?;
            let name = decoded(block, &text)?;
            Name { length: name.len(), is_authority: name == AUTHORITY }
        } else {
            self.name(index)?
        };
        let text = string(block, at)?;
        let value = decoded(block, &text)?;
        if name.is_authority && !is_taken(&value) {
            replace(block, &text);
        }
        Some((name, value.len()))
    }

    fn name(&self, index: usize) -> Option<Name> {
        let at = index.checked_sub(1)?;
        match STATIC_NAMES.get(at) {
            Some(length) => {
                Some(Name { length: usize::from(*length), is_authority: index == AUTHORITY_INDEX })
            }
            None => self.entries.get(at - STATIC_NAMES.len()).map(|(name, _)| *name),
        }
    }

    fn insert(&mut self, name: Name, value_bytes: usize) {
        let size = name.length.saturating_add(value_bytes).saturating_add(ENTRY_BYTES);
        self.evict(self.bytes_max.saturating_sub(size));
        if size <= self.bytes_max {
            self.entries.push_front((name, size));
            self.bytes += size;
        }
    }

    /// Drops the oldest entries until at most so many bytes are left.
    fn evict(&mut self, most: usize) {
        while self.bytes > most {
            let Some((_, size)) = self.entries.pop_back() else { return };
            self.bytes = self.bytes.saturating_sub(size);
        }
    }
}

/// Whether the server accepts the value.
fn is_taken(value: &[u8]) -> bool {
    Authority::from_maybe_shared(Bytes::copy_from_slice(value)).is_ok()
}

/// Replaces every character that a name of a host cannot have, if that makes it one.
fn replace(block: &mut [u8], text: &Text) {
    let Some(bytes) = block.get_mut(text.from..text.to) else { return };
    let mut new = bytes.to_vec();
    if text.coded {
        huffman::replace(&mut new, |byte| !is_plain(byte));
    } else {
        new.iter_mut().filter(|byte| !is_plain(**byte)).for_each(|byte| *byte = b'-');
    }
    let value = if text.coded { huffman::decode(&new) } else { Some(new.clone()) };
    if value.is_some_and(|value| is_taken(&value)) {
        bytes.copy_from_slice(&new);
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// An integer whose first byte has so many bits for it. RFC 7541, 5.1.
fn integer(block: &[u8], at: &mut usize, prefix: u8) -> Option<usize> {
    let mask = 0xff >> (8 - prefix);
    let mut value = usize::from(block.get(*at)? & mask);
    *at += 1;
    if value < usize::from(mask) {
        return Some(value);
    }
    // Longer than any table or block, without an overflow.
    for shift in [0, 7, 14, 21] {
        let next = *block.get(*at)?;
        *at += 1;
        value = value.checked_add(usize::from(next & 0x7f) << shift)?;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Where a string is; `at` is behind it. RFC 7541, 5.2.
fn string(block: &[u8], at: &mut usize) -> Option<Text> {
    let coded = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let (from, to) = (*at, at.checked_add(length)?);
    *at = to;
    (to <= block.len()).then_some(Text { from, to, coded })
}

fn decoded(block: &[u8], text: &Text) -> Option<Vec<u8>> {
    let bytes = block.get(text.from..text.to)?;
    if text.coded { huffman::decode(bytes) } else { Some(bytes.to_vec()) }
}
