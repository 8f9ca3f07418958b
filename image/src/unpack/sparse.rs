// SPDX-License-Identifier: Apache-2.0
//! The data segments of sparse files: the GNU format, and the PAX formats 0.0, 0.1 and 1.0.
//!
//! The rule: a map is ordered, stays within the file and uses exactly the bytes
//! that the archive has.

use super::blocks::{BLOCK, Blocks};
use super::entry::{Entry, Kind};
use super::error::{Error, charge};
use super::pax;
use crate::limits::SPARSE_PIECES;
use std::io::Read;
use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

type Map = Vec<(u64, u64)>;

/// The GNU format: segments in the header and in extension blocks.
pub(super) fn of_header<R: Read>(
    blocks: &mut Blocks<R>,
    header: &Header,
    size: u64,
) -> Result<Kind, Error> {
    let gnu =
        header.as_gnu().ok_or_else(|| blocks.malformed("a sparse file is not in GNU's form"))?;
    let length = gnu
        .real_size()
        .map_err(|_| blocks.malformed("the size of a sparse file is not a number"))?;
    let mut map = Map::new();
    pieces(blocks, &gnu.sparse, &mut map)?;
    let mut more = gnu.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        *block.as_mut_bytes() = blocks.header_block()?;
        pieces(blocks, block.sparse(), &mut map)?;
        more = block.is_extended();
    }
    checked(blocks, map, length, size)
}

fn pieces<R: Read>(
    blocks: &Blocks<R>,
    raw: &[GnuSparseHeader],
    map: &mut Map,
) -> Result<(), Error> {
    for piece in raw.iter().filter(|piece| !piece.is_empty()) {
        let (Ok(offset), Ok(length)) = (piece.offset(), piece.length()) else {
            return Err(blocks.malformed("a piece of a sparse file is not a number"));
        };
        add(map, offset, length)?;
    }
    Ok(())
}

fn add(map: &mut Map, offset: u64, length: u64) -> Result<(), Error> {
    charge(&SPARSE_PIECES, &mut (map.len() as u64), 1, SPARSE_PIECES.default)?;
    map.push((offset, length));
    Ok(())
}

/// The PAX formats. In 1.0 the map is at the start of the data, and the content follows it.
pub(super) fn of_pax<R: Read>(
    blocks: &mut Blocks<R>,
    entry: &mut Entry,
    keys: &[(Vec<u8>, Vec<u8>)],
) -> Result<Kind, Error> {
    let bad = |blocks: &Blocks<R>| blocks.malformed("the map of a sparse file is wrong");
    let find = |key: &[u8]| {
        keys.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    };
    if let Some(name) = find(b"name") {
        entry.path = name.to_vec();
    }
    let length =
        find(b"realsize").or(find(b"size")).and_then(pax::number).ok_or_else(|| bad(blocks))?;
    let mut map = Map::new();
    if find(b"major") == Some(b"1") {
        let read = in_data(blocks, &mut map)?;
        entry.size = entry.size.checked_sub(read).ok_or_else(|| bad(blocks))?;
    } else if let Some(text) = find(b"map") {
        let numbers: Option<Vec<u64>> = text.split(|byte| *byte == b',').map(pax::number).collect();
        for piece in numbers.ok_or_else(|| bad(blocks))?.chunks(2) {
            let [offset, length] = piece else { return Err(bad(blocks)) };
            add(&mut map, *offset, *length)?;
        }
    } else {
        let numbers = |key: &[u8]| -> Option<Vec<u64>> {
            let of = keys.iter().filter(|(name, _)| name == key);
            of.map(|(_, value)| pax::number(value)).collect()
        };
        let (Some(offsets), Some(lengths)) = (numbers(b"offset"), numbers(b"numbytes")) else {
            return Err(bad(blocks));
        };
        if offsets.len() != lengths.len() {
            return Err(bad(blocks));
        }
        for (offset, length) in offsets.into_iter().zip(lengths) {
            add(&mut map, offset, length)?;
        }
    }
    checked(blocks, map, length, entry.size)
}

/// Lines of decimal numbers before the data: the number of segments, then offset and length of each.
fn in_data<R: Read>(blocks: &mut Blocks<R>, map: &mut Map) -> Result<u64, Error> {
    let mut lines = Lines { block: [0; 512], at: 512, read: 0 };
    let count = lines.number(blocks)?;
    for _ in 0..count {
        let (offset, length) = (lines.number(blocks)?, lines.number(blocks)?);
        add(map, offset, length)?;
    }
    Ok(lines.read)
}

struct Lines {
    block: [u8; 512],
    at: usize,
    read: u64,
}

impl Lines {
    fn number<R: Read>(&mut self, blocks: &mut Blocks<R>) -> Result<u64, Error> {
        const DIGITS_MAX: usize = 20;
        let mut digits = Vec::new();
        loop {
            if self.at == self.block.len() {
                blocks.header_data().read_exact(&mut self.block).map_err(Error::of_read)?;
                self.at = 0;
                self.read = self.read.saturating_add(BLOCK);
            }
            let byte = self.block[self.at];
            self.at += 1;
            if byte == b'\n' {
                break;
            }
            digits.push(byte);
            if digits.len() > DIGITS_MAX {
                return Err(blocks.malformed("the map of a sparse file is wrong"));
            }
        }
        pax::number(&digits).ok_or_else(|| blocks.malformed("the map of a sparse file is wrong"))
    }
}

fn checked<R: Read>(blocks: &Blocks<R>, map: Map, length: u64, size: u64) -> Result<Kind, Error> {
    let (mut at, mut used) = (0_u64, 0_u64);
    for (offset, bytes) in &map {
        let end = offset.checked_add(*bytes);
        let is_good = *offset >= at && end.is_some_and(|end| end <= length);
        if !is_good {
            return Err(blocks.malformed("the pieces of a sparse file overlap or exceed it"));
        }
        at = end.unwrap_or(length);
        used = used.saturating_add(*bytes);
    }
    if used != size {
        return Err(blocks.malformed("the pieces of a sparse file are not what the archive has"));
    }
    Ok(Kind::Sparse { map, length })
}
