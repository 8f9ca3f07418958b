// SPDX-License-Identifier: Apache-2.0
//! Reads a file list.
//!
//! The rule: the digest of the whole file is checked before the first entry is returned.

use super::item::{Item, MAGIC, MAGIC_FIRST, MAGIC_SECOND, Version};
use crate::digest::{Digest, Hashing};
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};

/// Iterates over the entries of a list. The end is the last one.
pub(crate) struct Reader {
    file: File,
    from: Option<zstd::Decoder<'static, BufReader<File>>>,
    entries: u64,
    version: Version,
}

impl Reader {
    /// Opens a list, which must have this digest.
    pub(crate) fn open(file: File, digest: &Digest) -> io::Result<Self> {
        let (_, got) = Hashing::new(&file, digest.hasher()).finish()?;
        if got != *digest {
            return Err(wrong("the file list does not match its digest"));
        }
        Self::begin(file)
    }

    /// Starts again at the first entry.
    pub(super) fn rewind(self) -> io::Result<Self> {
        Self::begin(self.file)
    }

    fn begin(mut file: File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let mut from = zstd::Decoder::new(file.try_clone()?)?;
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic)?;
        let version = match &magic[..] {
            MAGIC | MAGIC_SECOND => Version::V2,
            MAGIC_FIRST => Version::V1,
            _ => return Err(wrong("the file list has a version that this hull does not read")),
        };
        Ok(Self { file, from: Some(from), entries: 0, version })
    }

    /// Whether every file is listed, so that any other file was added.
    pub(super) fn lists_everything(&self) -> bool {
        self.version == Version::V2
    }

    fn read(&mut self) -> io::Result<Option<Item>> {
        let Some(from) = &mut self.from else { return Ok(None) };
        let item = Item::read(from, self.version)?;
        match &item {
            Item::Entry { .. } => self.entries += 1,
            Item::End { entries, .. } => {
                self.from = None;
                if *entries != self.entries {
                    return Err(wrong("the file list has lost entries"));
                }
            }
            Item::Raw(_) | Item::Implied(_) => {}
        }
        Ok(Some(item))
    }
}

impl Iterator for Reader {
    type Item = io::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read().transpose();
        if matches!(read, Some(Err(_))) {
            self.from = None;
        }
        read
    }
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
