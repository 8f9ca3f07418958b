// SPDX-License-Identifier: Apache-2.0
//! Reads everything that an inventory names and compares it.
//!
//! Found is what is missing, cut, altered, or of another type. Not found are files that somebody has
//! added, and modes and owners that somebody has changed.

use super::item::{Item, What};
use super::look::Places;
use super::read::Reader;
use crate::digest::Hasher;
use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::BorrowedFd;

const BUFFER_BYTES: usize = 256 << 10;
/// Findings that are told of one layer. More do not help anybody.
const FINDINGS_MAX: usize = 1000;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: Vec<u8>,
    /// In words, with `it` for the path.
    pub(crate) why: String,
}

/// Finds everything that is not as it should be, up to a thousand things.
pub(crate) fn verify(root: BorrowedFd<'_>, items: Reader) -> io::Result<Vec<Finding>> {
    let mut places = Places::new(root);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut findings = Vec::new();
    for item in items {
        let Item::Entry { path, what } = item? else { continue };
        let checked = places
            .shape(&path, &what)
            .and_then(|()| content(&mut places, &path, &what, &mut buffer));
        if let Err(why) = checked {
            findings.push(Finding { path, why });
            if findings.len() >= FINDINGS_MAX {
                break;
            }
        }
    }
    Ok(findings)
}

fn content(
    places: &mut Places<'_>,
    path: &[u8],
    what: &What,
    buffer: &mut [u8],
) -> Result<(), String> {
    let (pieces, want) = match what {
        What::File { size, digest } => (vec![(0, *size)], digest),
        What::Sparse { map, digest, .. } => (map.clone(), digest),
        What::Link(target) => return same(places, path, target),
        What::Directory
        | What::Symlink(_)
        | What::Char(..)
        | What::Block(..)
        | What::Fifo
        | What::Whiteout => return Ok(()),
    };
    let failed = |err: &dyn std::fmt::Display| format!("it cannot be read: {err}");
    let (parent, last) = places.place(path).map_err(|err| failed(&err))?;
    // Its type was looked at: nothing that has effects when it is opened.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat(parent, &last, flags, Mode::empty()).map_err(|err| failed(&err))?;
    let got = digest(&File::from(file), &pieces, buffer).map_err(|err| failed(&err))?;
    if got == *want { Ok(()) } else { Err("its content was altered".into()) }
}

/// The digest of parts of a file, one after the other.
pub(super) fn digest(
    mut file: &File,
    pieces: &[(u64, u64)],
    buffer: &mut [u8],
) -> io::Result<[u8; 32]> {
    let mut hasher = Hasher::sha256();
    for (offset, bytes) in pieces {
        file.seek(SeekFrom::Start(*offset))?;
        let mut part = file.take(*bytes);
        loop {
            let got = part.read(buffer)?;
            if got == 0 {
                break;
            }
            hasher.update(&buffer[..got]);
        }
        if part.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(hasher.bytes())
}

fn same(places: &mut Places<'_>, path: &[u8], target: &[u8]) -> Result<(), String> {
    let own = places.stat(path).map_err(|errno| errno.to_string())?;
    match places.stat(target) {
        Ok(of) if (of.st_dev, of.st_ino) == (own.st_dev, own.st_ino) => Ok(()),
        _ => Err("it should be the same file as another one and is not".into()),
    }
}
