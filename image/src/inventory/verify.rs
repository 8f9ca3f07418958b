// SPDX-License-Identifier: Apache-2.0
//! Reads everything that an inventory names and compares it, and looks for what it does not name.
//!
//! Found is what is missing, cut, altered, or of another type, what has another mode or owner, and what
//! somebody has added. Not compared are extended attributes and times.

use super::item::{Dress, Item, What};
use super::look::Places;
use super::read::Reader;
use crate::digest::Hasher;
use crate::limits::Work;
use crate::tree::{Seen, Tree, each};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};
use std::collections::{HashMap, HashSet};
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
pub(crate) fn verify(
    root: BorrowedFd<'_>,
    mut items: Reader,
    work: &Work,
) -> io::Result<Vec<Finding>> {
    let names_all = items.names_all();
    let mut places = Places::new(root);
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut findings, mut known) = (Vec::new(), Known::default());
    let mut directories: HashMap<u64, Dress> = HashMap::new();
    for item in &mut items {
        work.check()?;
        let Item::Entry { path, what, dress } = item? else { continue };
        let place = places.really(&path).ok().map(|(inode, name)| known.add(inode, &name));
        let checked = places.shape(&path, &what).and_then(|stat| {
            content(&mut places, &path, &what, &mut buffer, work)?;
            Ok(dress.filter(|dress| *dress != Dress::of(&stat)).map(|dress| (dress, stat)))
        });
        match (checked, place) {
            // An archive may name a directory several times: it wears what the last one says.
            (Ok(None), Some(place)) if what == What::Directory => drop(directories.remove(&place)),
            (Ok(None), _) => {}
            (Ok(Some((want, _))), Some(place)) if what == What::Directory => {
                directories.insert(place, want);
            }
            (Ok(Some((want, stat))), _) => {
                findings.push(Finding { path, why: worn(want, &stat), flaw: Flaw::Content });
            }
            (Err(why), _) => findings.push(Finding { path, why, flaw: Flaw::Content }),
        }
        if findings.len() >= FINDINGS_MAX {
            break;
        }
    }
    // What was not read to its end looks as if it were wrong.
    work.check()?;
    if findings.len() >= FINDINGS_MAX {
        return Ok(findings);
    }
    if !directories.is_empty() {
        badly_dressed(&mut places, items.again()?, &known, directories, &mut findings)?;
    }
    if names_all {
        each(root, Tree::Still, work, |seen| {
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

/// Tells of the directories that wear what they should not. Their paths are read once more: nearly always
/// there are none, and an inventory may be made so that all seem to until its end.
fn badly_dressed(
    places: &mut Places<'_>,
    items: Reader,
    known: &Known,
    mut directories: HashMap<u64, Dress>,
    findings: &mut Vec<Finding>,
) -> io::Result<()> {
    for item in items {
        let Item::Entry { path, what: What::Directory, .. } = item? else { continue };
        let Ok((inode, name)) = places.really(&path) else { continue };
        let Some(want) = directories.remove(&known.hash(inode, &name)) else { continue };
        let Ok(stat) = places.stat(&path) else { continue };
        findings.push(Finding { path, why: worn(want, &stat), flaw: Flaw::Dress(want) });
        if findings.len() >= FINDINGS_MAX || directories.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Places that an inventory names. Kept as hashes under a key of this process, for a layer may have millions.
#[derive(Default)]
struct Known {
    keys: RandomState,
    places: HashSet<u64>,
}

impl Known {
    fn add(&mut self, inode_of_parent: u64, name: &CStr) -> u64 {
        let place = self.hash(inode_of_parent, name);
        self.places.insert(place);
        place
    }

    fn hash(&self, inode_of_parent: u64, name: &CStr) -> u64 {
        self.keys.hash_one((inode_of_parent, name))
    }

    fn has(&self, seen: &Seen<'_>) -> bool {
        self.places.contains(&self.hash(seen.inode_of_parent, seen.name))
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
    work: &Work,
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
    let check = || work.check();
    let got = digest(&File::from(file), &pieces, buffer, &check).map_err(|err| failed(&err))?;
    if got == *want { Ok(()) } else { Err("its content was altered".into()) }
}

/// The digest of parts of a file, one after the other, as long as `check` lets it go on.
pub(super) fn digest(
    mut file: &File,
    pieces: &[(u64, u64)],
    buffer: &mut [u8],
    check: &dyn Fn() -> io::Result<()>,
) -> io::Result<[u8; 32]> {
    let mut hasher = Hasher::sha256();
    for (offset, bytes) in pieces {
        file.seek(SeekFrom::Start(*offset))?;
        let mut part = file.take(*bytes);
        loop {
            check()?;
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
