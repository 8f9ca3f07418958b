// SPDX-License-Identifier: Apache-2.0
//! Where everything lies in an archive of images.
//!
//! The rule: what is kept of the entries, and what is read of the documents, is limited.

use crate::digest::Digest;
use crate::error::{ArchiveFault, Cause, NAME_MAX, shown};
use crate::limits::{LAYER_ENTRIES, Limits, Work};
use crate::manifest::Descriptor;
use crate::unpack::{self, Archive, Kind, clean, split, target};
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

const BUFFER_BYTES: usize = 128 << 10;
const LINKS_MAX: usize = 8;
/// Most entries of an archive of images. One with a thousand images of a dozen layers has fewer.
const ARCHIVE_ENTRIES_MAX: u64 = 100_000;
/// Most bytes of the names of all its entries, and of all its documents: both are in memory at once.
const ARCHIVE_NAME_BYTES_MAX: u64 = 16 << 20;
const ARCHIVE_DOCUMENT_BYTES_MAX: u64 = 128 << 20;

/// The entries of an archive, by cleaned name.
pub(super) struct ArchiveIndex {
    file: Arc<File>,
    places: HashMap<Vec<u8>, Place>,
    /// The number of bytes of documents that were read.
    read: Cell<u64>,
}

enum Place {
    Bytes { offset: u64, size: u64 },
    Link(Vec<u8>),
}

/// A part of the archive. Several can be read at the same time.
pub(super) struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

pub(super) fn bad_archive(fault: ArchiveFault, why: impl Into<String>) -> Cause {
    Cause::Archive { fault, why: why.into() }
}

/// The path of a blob in an OCI layout.
pub(super) fn blob_path(digest: &Digest) -> Vec<u8> {
    format!("blobs/{}", digest.as_str().replacen(':', "/", 1)).into_bytes()
}

impl ArchiveIndex {
    /// Reads the archive once, from its start.
    pub(super) fn read(file: File, work: &Work) -> Result<Self, Cause> {
        let failed = |err: io::Error| bad_archive(ArchiveFault::Damaged, err.to_string());
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let (mut places, mut name_bytes) = (HashMap::new(), 0);
        let limits = Limits { entries: ARCHIVE_ENTRIES_MAX, ..Limits::NONE };
        let mut archive = Archive::within(reader, limits);
        let mut fault = ArchiveFault::NoTar;
        while let Some(entry) = archive.next().map_err(|error| no_more(&error, fault))? {
            fault = ArchiveFault::Damaged;
            work.check().map_err(failed)?;
            let malformed = |why: &str| bad_archive(ArchiveFault::Malformed, why);
            let path = clean(&entry.path);
            let path = path.map_err(|_| malformed("a path in it climbs out of it"))?;
            let link = |beside: &[u8], to: &[u8]| {
                target(beside, to).map_err(|_| malformed("a link in it leads to no path"))
            };
            let place = match entry.kind {
                Kind::File => Place::Bytes { offset: entry.offset, size: entry.size },
                Kind::Link(to) => Place::Link(link(b"", &to)?),
                Kind::Symlink(to) => Place::Link(link(split(&path).0, &to)?),
                Kind::Sparse { .. }
                | Kind::Directory
                | Kind::Char(..)
                | Kind::Block(..)
                | Kind::Fifo => continue,
            };
            let of_link = if let Place::Link(to) = &place { to.len() } else { 0 };
            name_bytes += (path.len() + of_link) as u64;
            if name_bytes > ARCHIVE_NAME_BYTES_MAX {
                let what = "bytes of names";
                return Err(Cause::ArchiveTooLarge { what, max: ARCHIVE_NAME_BYTES_MAX });
            }
            places.insert(path, place);
        }
        let file = Arc::new(archive.into_inner().into_inner());
        Ok(Self { file, places, read: Cell::new(0) })
    }

    /// The fault of an archive that has no images: an empty file is not an archive at all.
    pub(super) fn without_images(&self) -> ArchiveFault {
        let is_empty = self.file.metadata().is_ok_and(|of| of.len() == 0);
        if is_empty { ArchiveFault::NoTar } else { ArchiveFault::NoImages }
    }

    /// Whether there is an entry of this name.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.places.contains_key(path)
    }

    /// The content of a file, links followed.
    pub(super) fn part(&self, path: &[u8]) -> Result<Part, Cause> {
        let mut at = path.to_vec();
        for _ in 0..LINKS_MAX {
            match self.places.get(&at) {
                Some(Place::Bytes { offset, size }) => {
                    return Ok(Part {
                        file: Arc::clone(&self.file),
                        at: *offset,
                        end: offset + size,
                    });
                }
                Some(Place::Link(target)) => at.clone_from(target),
                None => break,
            }
        }
        Err(bad_archive(
            ArchiveFault::Incomplete,
            format!("{} is not in it", shown(path, NAME_MAX)),
        ))
    }

    /// A document of at most `max` bytes.
    pub(super) fn whole(&self, path: &[u8], max: u64) -> Result<Vec<u8>, Cause> {
        let mut part = self.part(path)?;
        let start = part.at;
        if part.end - part.at > max {
            return Err(Cause::TooLarge { what: shown(path, NAME_MAX), max });
        }
        // The same document may be named again and again.
        self.read.set(self.read.get() + (part.end - part.at));
        if self.read.get() > ARCHIVE_DOCUMENT_BYTES_MAX {
            let what = "bytes of documents";
            return Err(Cause::ArchiveTooLarge { what, max: ARCHIVE_DOCUMENT_BYTES_MAX });
        }
        let mut bytes = Vec::new();
        let read = part.read_to_end(&mut bytes);
        read.map_err(|err| bad_archive(ArchiveFault::Damaged, err.to_string()))?;
        if bytes.len() as u64 != part.end - start {
            let why = format!("it ends within {}", shown(path, NAME_MAX));
            return Err(bad_archive(ArchiveFault::Damaged, why));
        }
        Ok(bytes)
    }

    /// A document whose digest is checked.
    pub(super) fn blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>, Cause> {
        let bytes = self.whole(&blob_path(&descriptor.digest), max)?;
        let got = descriptor.digest.same_kind_of(&bytes);
        if got != descriptor.digest {
            return Err(Cause::WrongDigest {
                what: format!("blob {}", descriptor.digest),
                want: descriptor.digest.to_string(),
                got: got.to_string(),
            });
        }
        Ok(bytes)
    }
}

/// The error for an archive whose entries cannot be read.
fn no_more(error: &unpack::Error, fault: ArchiveFault) -> Cause {
    if let unpack::Error::Limit { budget, max } = error
        && **budget == LAYER_ENTRIES
    {
        return Cause::ArchiveTooLarge { what: "entries", max: *max };
    }
    if let unpack::Error::Read { source } = error {
        return bad_archive(fault, source.to_string());
    }
    bad_archive(fault, error.to_string())
}
