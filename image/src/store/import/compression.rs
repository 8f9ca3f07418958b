// SPDX-License-Identifier: Apache-2.0
//! Decompresses an archive of images: gzip, zstd, xz and bzip2, known by their first bytes.
//!
//! The rule: the memory of a decoder has a limit, whatever the archive says of its window.

use crate::layer::decoder;
use crate::limits::XZ_MEMORY_BYTES;
use std::io::{self, BufRead, Read};

/// The number of bytes that tell which compression an archive has.
pub(super) const START_BYTES: usize = 6;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const XZ: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
const BZIP2: [u8; 3] = *b"BZh";

/// Whether an archive that starts like this is compressed.
pub(super) fn is_compressed(start: &[u8]) -> bool {
    let is_known = |magic: &[u8]| start.starts_with(magic);
    is_known(&GZIP) || is_known(&ZSTD) || is_known(&XZ) || is_known(&BZIP2)
}

/// Reads a compressed archive, whose parts may follow each other as separate streams.
pub(super) fn inflate<'a>(archive: &'a mut impl BufRead) -> io::Result<Box<dyn Read + 'a>> {
    let start = archive.fill_buf()?;
    if start.starts_with(&XZ) {
        let kib = u32::try_from(XZ_MEMORY_BYTES.default >> 10).unwrap_or(u32::MAX);
        return Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(archive, true, kib)));
    }
    if start.starts_with(&BZIP2) {
        return Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(archive)));
    }
    decoder(archive)
}
