// SPDX-License-Identifier: Apache-2.0
//! Reads everything that an inventory names and compares it, and looks for what it does not name.
//!
//! Found is what is missing, cut, altered, or of another type, what has another mode or owner, and what
//! somebody has added. Not compared are extended attributes and times.

use super::item::{Dress, Item, What};
use super::look::Places;
use super::read::Reader;
use super::walk::{Seen, each};
use crate::digest::Hasher;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};
use std::collections::{BTreeMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
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
    pub(super) flaw: Flaw,
}

/// What must be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A good one must take its place.
    Content,
    /// It is a directory, and must wear this.
    Dress(Dress),
    /// It must go.
    Added,
}

/// Finds everything that is not as it should be, up to a thousand things.
pub(crate) fn verify(root: BorrowedFd<'_>, items: Reader) -> io::Result<Vec<Finding>> {
    let names_all = items.names_all();
    let mut places = Places::new(root);
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut findings, mut known) = (Vec::new(), Known::default());
    let mut directories: BTreeMap<u64, Finding> = BTreeMap::new();
    for item in items {
        let Item::Entry { path, what, dress } = item? else { continue };
        let place = places.really(&path).ok().map(|(inode, name)| known.add(inode, &name));
        let checked = places.shape(&path, &what).and_then(|stat| {
            content(&mut places, &path, &what, &mut buffer)?;
            Ok(dress.filter(|dress| *dress != Dress::of(&stat)).map(|dress| (dress, stat)))
        });
        match (checked, place) {
            // An archive may name a directory several times: it wears what the last one says.
            (Ok(None), Some(place)) if what == What::Directory => drop(directories.remove(&place)),
            (Ok(None), _) => {}
            (Ok(Some((want, stat))), Some(place)) if what == What::Directory => {
                let finding = Finding { path, why: worn(want, &stat), flaw: Flaw::Dress(want) };
                directories.insert(place, finding);
            }
            (Ok(Some((want, stat))), _) => {
                findings.push(Finding { path, why: worn(want, &stat), flaw: Flaw::Content });
            }
            (Err(why), _) => findings.push(Finding { path, why, flaw: Flaw::Content }),
        }
        if findings.len() >= FINDINGS_MAX {
            return Ok(findings);
        }
    }
    findings.extend(directories.into_values());
    if names_all {
        each(root, |seen| {
            let is_known = known.has(seen);
            if !is_known && findings.len() < FINDINGS_MAX {
                let (path, why) = (seen.path.to_vec(), "it was added".to_owned());
                findings.push(Finding { path, why, flaw: Flaw::Added });
            }
            Ok(is_known && is_directory(seen))
        })?;
    }
    Ok(findings)
}

/// Places that an inventory names. Kept as hashes under a key of this process, for a layer may have millions.
#[derive(Default)]
struct Known {
    keys: RandomState,
    places: HashSet<u64>,
}

impl Known {
    fn add(&mut self, inode_of_parent: u64, name: &CStr) -> u64 {
        let place = self.keys.hash_one((inode_of_parent, name));
        self.places.insert(place);
        place
    }

    fn has(&self, seen: &Seen<'_>) -> bool {
        self.places.contains(&self.keys.hash_one((seen.inode_of_parent, seen.name)))
    }
}

fn is_directory(seen: &Seen<'_>) -> bool {
    statat(seen.parent, seen.name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn worn(want: Dress, stat: &Stat) -> String {
    let got = Dress::of(stat);
    let shown = |of: Dress| format!("mode {:o} and owner {}:{}", of.mode, of.uid, of.gid);
    format!("it should have {} and has {}", shown(want), shown(got))
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
