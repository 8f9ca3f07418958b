// SPDX-License-Identifier: Apache-2.0
//! Writes a file list: compressed, with its digest.

use super::item::{Item, MAGIC, Metadata, NodeKind};
use crate::digest::{Digest, Hashed, Hasher};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};

/// The fastest level suffices: headers are mostly zeros.
const LEVEL: i32 = 1;
const BUFFER_BYTES: usize = 32 << 10;
/// Longer runs are written as several entries, since a reader limits the length of a field.
const RAW_BYTES_MAX: usize = 1 << 20;

/// A file list that is being written.
pub(crate) struct Writer {
    out: zstd::Encoder<'static, Hashed<BufWriter<File>>>,
    entries: u64,
    is_exact: bool,
}

impl Writer {
    /// Starts a list in an empty file.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let hashed = Hashed::new(file, Hasher::sha256());
        let mut out = zstd::Encoder::new(hashed, LEVEL)?;
        out.write_all(MAGIC)?;
        Ok(Self { out, entries: 0, is_exact: true })
    }

    /// Adds bytes of the archive that are not content.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(RAW_BYTES_MAX) {
            Item::Raw(part.to_vec()).write(&mut self.out)?;
        }
        Ok(())
    }

    /// Adds a file.
    pub(crate) fn entry(
        &mut self,
        path: Vec<u8>,
        kind: NodeKind,
        metadata: Option<Metadata>,
    ) -> io::Result<()> {
        self.entries += 1;
        Item::Entry { path, kind, metadata }.write(&mut self.out)
    }

    /// Adds the directories that the archive implies but does not list, after all entries.
    pub(crate) fn implied(&mut self, paths: &[Vec<u8>]) -> io::Result<()> {
        paths.iter().try_for_each(|path| Item::Implied(path.clone()).write(&mut self.out))
    }

    /// Records that the archive cannot be rebuilt from this list.
    pub(crate) fn not_exact(&mut self) {
        self.is_exact = false;
    }

    /// Ends the list and returns the digest of its file.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        Item::End { entries: self.entries, exact: self.is_exact }.write(&mut self.out)?;
        let (mut file, digest) = self.out.finish()?.finish();
        file.flush()?;
        Ok(digest)
    }
}
