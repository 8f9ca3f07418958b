// SPDX-License-Identifier: Apache-2.0
//! The 512-byte blocks of a tar archive: headers, extension blocks, data and padding, each counted
//! against its limit.
//!
//! When recording, it collects every byte that is not a file's content: headers, padding, the end.

use super::compression::format_of;
use super::error::{Error, charge};
use super::fields::{Fields, text};
use crate::limits::{HEADER_BYTES, LAYER_BYTES, LAYER_ENTRIES, Limits};
use std::io::{self, Read};
use tar::Header;

/// The size of a header, and the unit of padding.
pub(super) const BLOCK: u64 = 512;
/// The largest extended header or long name.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// The largest unread content that is still recorded.
const SKIPPED_BYTES_MAX: u64 = 64 << 10;
/// How much of a trailer after the end of the archive is read at a time.
const TRAILER_PART_BYTES: u64 = 1 << 20;
/// The largest trailer that is recorded as a whole. The table of an eStargz layer can be there, with some 500 bytes
/// for each file.
const TRAILER_RECORDED_MAX: u64 = 256 << 20;

/// Reads the blocks of an archive in order.
pub(super) struct Blocks<R> {
    reader: R,
    position: u64,
    /// Where the bytes of the current entry end.
    data_end: u64,
    /// Where the next header is.
    next: u64,
    entries: u64,
    /// Bytes of long names and extended headers before the current entry.
    header_bytes: u64,
    /// Bytes of the trailer so far.
    trailer: u64,
    /// The most of it that is recorded, in bytes.
    trailer_recorded_max: u64,
    limits: Limits,
    /// The bytes that are not content, when recording.
    raw: Option<Vec<u8>>,
    is_lossy: bool,
}

impl<R: Read> Blocks<R> {
    pub(super) fn new(reader: R, limits: Limits, is_recording: bool) -> Self {
        Self {
            reader,
            position: 0,
            data_end: 0,
            next: 0,
            entries: 0,
            header_bytes: 0,
            trailer: 0,
            trailer_recorded_max: TRAILER_RECORDED_MAX,
            limits,
            raw: is_recording.then(Vec::new),
            is_lossy: false,
        }
    }

    /// The bytes recorded since the last call.
    pub(super) fn take_raw(&mut self) -> Vec<u8> {
        self.raw.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether bytes were dropped that writing the same archive would need.
    pub(super) fn is_lossy(&self) -> bool {
        self.is_lossy
    }

    fn record(&mut self, bytes: &[u8]) {
        if let Some(raw) = &mut self.raw {
            raw.extend_from_slice(bytes);
        }
    }

    /// Reads the next part of the trailer after the end of the archive; false once there is no more of it.
    pub(super) fn trailer(&mut self) -> Result<bool, Error> {
        let mut sink = Vec::new();
        let (raw, is_dropped) = match &mut self.raw {
            Some(raw) if self.trailer < self.trailer_recorded_max => (raw, false),
            raw => (&mut sink, raw.is_some()),
        };
        let part = (&mut self.reader).take(TRAILER_PART_BYTES).read_to_end(raw);
        let part = part.map_err(Error::of_read)? as u64;
        self.is_lossy |= is_dropped && part > 0;
        charge(&LAYER_BYTES, &mut self.trailer, part, self.limits.bytes)?;
        Ok(part == TRAILER_PART_BYTES)
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Starts counting the header bytes of the next entry.
    pub(super) fn start_headers(&mut self) {
        self.header_bytes = 0;
    }

    /// The bytes of the current entry.
    pub(super) fn data(&mut self) -> Data<'_, R> {
        Data { blocks: self, is_content: true }
    }

    /// The bytes of an entry that belong to its header.
    pub(super) fn header_data(&mut self) -> Data<'_, R> {
        Data { blocks: self, is_content: false }
    }

    /// The reader, wherever it stands.
    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// An error at this place.
    pub(super) fn malformed(&self, why: &'static str) -> Error {
        Error::Malformed { at: self.position, why: why.into() }
    }

    /// The next header; none at the end.
    pub(super) fn header(&mut self) -> Result<Option<Header>, Error> {
        self.skip_to(self.next)?;
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < bytes.len() {
            match self.reader.read(&mut bytes[filled..]).map_err(Error::of_read)? {
                0 => break,
                got => filled += got,
            }
        }
        self.position += filled as u64;
        if let Some(raw) = &mut self.raw {
            raw.extend_from_slice(&bytes[..filled]);
        }
        // The end is a block of zeros. Some writers leave it out.
        if filled == 0 || (filled == bytes.len() && bytes.iter().all(|b| *b == 0)) {
            return Ok(None);
        }
        let is_whole = filled == bytes.len() && Fields::of(&header).is_whole();
        let is_first = self.position == filled as u64;
        let format = format_of(header.as_bytes()).filter(|_| is_first && !is_whole);
        if let Some(format) = format {
            return Err(Error::Compression { format });
        }
        if filled < header.as_bytes().len() {
            return Err(self.malformed("it ends within a header"));
        }
        if !is_whole {
            return Err(self.malformed("the checksum of a header is wrong"));
        }
        self.next = self.position;
        self.data_end = self.position;
        Ok(Some(header))
    }

    /// Starts the data of an entry: `size` bytes from here, then padding.
    pub(super) fn begin_data(&mut self, size: u64) -> Result<(), Error> {
        let end = self.position.checked_add(size).filter(|end| end.checked_add(BLOCK).is_some());
        let end = end.ok_or_else(|| self.malformed("the size of an entry is too large"))?;
        if end > self.limits.bytes {
            return Err(Error::Limit { budget: &LAYER_BYTES, max: self.limits.bytes });
        }
        self.data_end = end;
        self.next = end.next_multiple_of(BLOCK);
        Ok(())
    }

    /// The bytes of a header's extension, whole.
    pub(super) fn extension(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > EXTENSION_BYTES_MAX {
            return Err(self.malformed("a name or an extended header is too long"));
        }
        charge(&HEADER_BYTES, &mut self.header_bytes, BLOCK + size, HEADER_BYTES.default)?;
        self.begin_data(size)?;
        let mut bytes = Vec::new();
        self.header_data().read_to_end(&mut bytes).map_err(Error::of_read)?;
        if bytes.len() as u64 != size {
            return Err(self.malformed("it ends within an extended header"));
        }
        Ok(bytes)
    }

    /// A long name, up to its NUL.
    pub(super) fn name(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let name = self.extension(size)?;
        Ok(text(&name).to_vec())
    }

    /// An extension block of the header, before the data.
    pub(super) fn header_block(&mut self) -> Result<[u8; 512], Error> {
        let mut block = [0; 512];
        self.reader.read_exact(&mut block).map_err(Error::of_read)?;
        self.record(&block);
        self.position += BLOCK;
        self.data_end += BLOCK;
        self.next += BLOCK;
        self.count()?;
        Ok(block)
    }

    /// Counts one more entry or header block.
    pub(super) fn count(&mut self) -> Result<(), Error> {
        charge(&LAYER_ENTRIES, &mut self.entries, 1, self.limits.entries)
    }

    fn skip_to(&mut self, to: u64) -> Result<(), Error> {
        let left = to - self.position;
        let mut part = (&mut self.reader).take(left);
        let skipped = match &mut self.raw {
            Some(raw) if left <= SKIPPED_BYTES_MAX => {
                part.read_to_end(raw).map(|bytes| bytes as u64)
            }
            raw => {
                self.is_lossy |= raw.is_some();
                io::copy(&mut part, &mut io::sink())
            }
        };
        self.position += skipped.map_err(Error::of_read)?;
        // The padding of the last entry may be missing, its bytes not.
        if self.position < self.data_end {
            return Err(self.malformed("it ends within an entry"));
        }
        self.position = to;
        Ok(())
    }
}

/// Reads the current entry's bytes and no others.
pub(crate) struct Data<'a, R> {
    blocks: &'a mut Blocks<R>,
    is_content: bool,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blocks.data_end - self.blocks.position;
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = self.blocks.reader.read(&mut buffer[..want])?;
        self.blocks.position += got as u64;
        if !self.is_content {
            self.blocks.record(&buffer[..got]);
        }
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive of its end alone, with a trailer of that many bytes.
    fn read(trailer: usize, limits: Limits) -> Result<(Vec<u8>, Vec<u8>, bool), Error> {
        let bytes: Vec<u8> = (0..=250_u8).cycle().take(trailer).collect();
        let archive = [vec![0; 512], bytes].concat();
        let mut blocks = Blocks::new(&archive[..], limits, true);
        assert!(blocks.header()?.is_none());
        let mut recorded = blocks.take_raw();
        while blocks.trailer()? {
            recorded.extend(blocks.take_raw());
        }
        recorded.extend(blocks.take_raw());
        let is_lossy = blocks.is_lossy();
        Ok((archive, recorded, is_lossy))
    }

    #[test]
    fn a_trailer_is_recorded_to_its_last_byte() {
        for bytes in [0, 1, 512, 1 << 20, (3 << 20) + 5] {
            let (archive, recorded, is_lossy) = read(bytes, Limits::NONE).unwrap();
            assert!(recorded == archive && !is_lossy, "{bytes}");
        }
    }

    #[test]
    fn a_trailer_beyond_its_bound_is_known_to_be_dropped() {
        for (bytes, is_lossy) in [(2 << 20, false), ((2 << 20) + 1, true)] {
            let archive = vec![0; 512 + bytes];
            let mut blocks = Blocks::new(&archive[..], Limits::NONE, true);
            blocks.trailer_recorded_max = 2 << 20;
            assert!(blocks.header().unwrap().is_none());
            while blocks.trailer().unwrap() {}
            assert_eq!(blocks.is_lossy(), is_lossy, "{bytes}");
        }
    }

    #[test]
    fn a_trailer_has_the_limit_of_a_layer() {
        let limits = Limits { bytes: 2 << 20, ..Limits::NONE };
        assert!(read(2 << 20, limits).is_ok());
        let err = read((2 << 20) + 1, limits).unwrap_err();
        assert!(matches!(err, Error::Limit { budget, .. } if *budget == LAYER_BYTES), "{err}");
    }
}
