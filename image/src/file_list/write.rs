// SPDX-License-Identifier: Apache-2.0
//! Writes an inventory: compressed, and its digest computed on the way.

use super::item::{Item, MAGIC, Metadata, NodeKind};
use crate::digest::{Digest, Hashed, Hasher};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};

/// Fast, and headers are mostly zeros.
const LEVEL: i32 = 1;
const BUFFER_BYTES: usize = 32 << 10;
/// More are written as several items: a reader takes none that is longer than a field may be.
const RAW_BYTES_MAX: usize = 1 << 20;

/// An inventory being written.
pub(crate) struct Writer {
    out: zstd::Encoder<'static, Hashed<BufWriter<File>>>,
    entries: u64,
    is_exact: bool,
}

impl Writer {
    /// Begins in an empty file.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let hashed = Hashed::new(file, Hasher::sha256());
        let mut out = zstd::Encoder::new(hashed, LEVEL)?;
        out.write_all(MAGIC)?;
        Ok(Self { out, entries: 0, is_exact: true })
    }

    /// Adds bytes that are no content.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(RAW_BYTES_MAX) {
            Item::Raw(part.to_vec()).write(&mut self.out)?;
        }
        Ok(())
    }

    /// Adds something that is there.
    pub(crate) fn entry(
        &mut self,
        path: Vec<u8>,
        kind: NodeKind,
        metadata: Option<Metadata>,
    ) -> io::Result<()> {
        self.entries += 1;
        Item::Entry { path, kind, metadata }.write(&mut self.out)
    }

    /// Says that the archive cannot be rebuilt from this.
    pub(crate) fn not_exact(&mut self) {
        self.is_exact = false;
    }

    /// Ends it, and gives the digest of the file.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        Item::End { entries: self.entries, exact: self.is_exact }.write(&mut self.out)?;
        let (mut file, digest) = self.out.finish()?.finish();
        file.flush()?;
        Ok(digest)
    }
}
