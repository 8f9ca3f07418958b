// SPDX-License-Identifier: Apache-2.0
//! Rebuilds the archive of a layer, byte for byte, from its file list and its files.
//!
//! The rule: the result is not trusted. The caller computes its digest; if it is not the layer's, a file
//! was altered.

use super::item::{Item, NodeKind};
use super::lookup::Lookup;
use super::read::Reader;
use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io::{self, Cursor, Read, Seek as _, SeekFrom, Take};
use std::os::fd::{AsFd as _, OwnedFd};

/// The length of the archive; none if it cannot be rebuilt.
pub(crate) fn length(items: Reader) -> io::Result<Option<u64>> {
    let mut bytes = 0;
    for item in items {
        match item? {
            Item::Raw(raw) => bytes += raw.len() as u64,
            Item::Entry { kind, .. } => bytes += kind.content(),
            Item::Implied(_) => {}
            Item::End { exact, .. } => return Ok(exact.then_some(bytes)),
        }
    }
    Ok(None)
}

/// Reads the rebuilt archive.
pub(crate) struct RebuiltArchive {
    root: OwnedFd,
    items: Reader,
    now: Part,
}

enum Part {
    None,
    Raw(Cursor<Vec<u8>>),
    /// A data segment of a file, and the remaining ones, last first.
    File(Take<File>, Vec<(u64, u64)>),
}

impl RebuiltArchive {
    pub(crate) fn new(root: OwnedFd, items: Reader) -> Self {
        Self { root, items, now: Part::None }
    }

    /// Continues with the next part; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        self.now = match (std::mem::replace(&mut self.now, Part::None), self.items.next()) {
            (_, None) => return Ok(false),
            (_, Some(item)) => match item? {
                Item::Raw(raw) => Part::Raw(Cursor::new(raw)),
                Item::End { .. } => return Ok(false),
                Item::Entry { path, kind, .. } if kind.content() > 0 => {
                    let bytes = kind.content();
                    let mut pieces = if let NodeKind::Sparse { map, .. } = kind {
                        map
                    } else {
                        vec![(0, bytes)]
                    };
                    pieces.reverse();
                    part(self.open(&path)?, pieces)?
                }
                Item::Entry { .. } | Item::Implied(_) => Part::None,
            },
        };
        Ok(true)
    }

    fn open(&self, path: &[u8]) -> io::Result<File> {
        let mut lookup = Lookup::new(self.root.as_fd());
        let (parent, last) = lookup.parent_of(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(openat(parent, &last, flags, Mode::empty())?))
    }
}

fn part(mut file: File, mut pieces: Vec<(u64, u64)>) -> io::Result<Part> {
    let Some((offset, bytes)) = pieces.pop() else { return Ok(Part::None) };
    file.seek(SeekFrom::Start(offset))?;
    Ok(Part::File(file.take(bytes), pieces))
}

impl Read for RebuiltArchive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let got = match &mut self.now {
                Part::None => 0,
                Part::Raw(raw) => raw.read(buffer)?,
                Part::File(file, _) => file.read(buffer)?,
            };
            if got > 0 || buffer.is_empty() {
                return Ok(got);
            }
            match std::mem::replace(&mut self.now, Part::None) {
                Part::File(file, _) if file.limit() > 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Part::File(file, pieces) if !pieces.is_empty() => {
                    self.now = part(file.into_inner(), pieces)?;
                }
                Part::File(..) | Part::Raw(_) | Part::None => {
                    if !self.advance()? {
                        return Ok(0);
                    }
                }
            }
        }
    }
}
