// SPDX-License-Identifier: Apache-2.0
//! Reads all listed files and compares them with the list, and finds files that the list does not have.
//!
//! Reported are missing, truncated, altered and added files, and wrong types, modes and owners.
//! Extended attributes and times are not compared.

use super::finding::{Finding, Mismatch};
use super::item::{Item, Metadata, NodeKind};
use super::lookup::Lookup;
use super::read::Reader;
use crate::digest::Hasher;
use crate::fs::walk::{self, TreeState, Visited};
use crate::limits::Work;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::BorrowedFd;

const BUFFER_BYTES: usize = 256 << 10;
/// The largest number of findings per layer.
const FINDINGS_MAX: usize = 1000;

/// Finds all differences, up to a thousand.
pub(crate) fn verify(
    root: BorrowedFd<'_>,
    mut items: Reader,
    work: &Work,
) -> io::Result<Vec<Finding>> {
    let lists_everything = items.lists_everything();
    let mut lookup = Lookup::new(root);
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut findings, mut known) = (Vec::new(), ListedPlaces::default());
    let mut directories: HashMap<u64, Metadata> = HashMap::new();
    for item in &mut items {
        work.check()?;
        let Item::Entry { path, kind, metadata } = item? else { continue };
        let place = lookup.identity(&path).ok().map(|(inode, name)| known.add(inode, &name));
        let checked = lookup.check_shape(&path, &kind).and_then(|stat| {
            content(&mut lookup, &path, &kind, &mut buffer, work)?;
            Ok(metadata
                .filter(|metadata| *metadata != Metadata::of(&stat))
                .map(|metadata| (metadata, stat)))
        });
        match (checked, place) {
            // An archive may list a directory several times: the last entry decides.
            (Ok(None), Some(place)) if kind == NodeKind::Directory => {
                directories.remove(&place);
            }
            (Ok(None), _) => {}
            (Ok(Some((want, _))), Some(place)) if kind == NodeKind::Directory => {
                directories.insert(place, want);
            }
            (Ok(Some((want, stat))), _) => {
                findings.push(Finding {
                    path,
                    why: metadata_differs(want, &stat),
                    mismatch: Mismatch::Content,
                });
            }
            (Err(why), _) => findings.push(Finding { path, why, mismatch: Mismatch::Content }),
        }
        if findings.len() >= FINDINGS_MAX {
            break;
        }
    }
    // An interrupted comparison looks like a difference.
    work.check()?;
    if findings.len() >= FINDINGS_MAX {
        return Ok(findings);
    }
    if !directories.is_empty() {
        find_wrong_metadata(&mut lookup, items.rewind()?, &known, directories, &mut findings)?;
    }
    if lists_everything {
        walk::walk(root, TreeState::Frozen, work, |seen| {
            let is_known = known.has(seen);
            if !is_known && findings.len() < FINDINGS_MAX {
                let (path, why) = (seen.path.to_vec(), "it was added".to_owned());
                findings.push(Finding { path, why, mismatch: Mismatch::Added });
            }
            Ok(is_known && is_directory(seen))
        })?;
    }
    Ok(findings)
}

/// Reports the directories with wrong metadata. Their paths are read again from the list: there are
/// seldom any, and a hostile archive could make every directory look wrong until its end.
fn find_wrong_metadata(
    lookup: &mut Lookup<'_>,
    items: Reader,
    known: &ListedPlaces,
    mut directories: HashMap<u64, Metadata>,
    findings: &mut Vec<Finding>,
) -> io::Result<()> {
    for item in items {
        let Item::Entry { path, kind: NodeKind::Directory, .. } = item? else { continue };
        let Ok((inode, name)) = lookup.identity(&path) else { continue };
        let Some(want) = directories.remove(&known.hash(inode, &name)) else { continue };
        let Ok(stat) = lookup.stat(&path) else { continue };
        findings.push(Finding {
            path,
            why: metadata_differs(want, &stat),
            mismatch: Mismatch::Metadata(want),
        });
        if findings.len() >= FINDINGS_MAX || directories.is_empty() {
            break;
        }
    }
    Ok(())
}

/// The places that the list names, as hashes under a random key, since a layer may have millions.
#[derive(Default)]
struct ListedPlaces {
    keys: RandomState,
    lookup: HashSet<u64>,
}

impl ListedPlaces {
    fn add(&mut self, inode_of_parent: u64, name: &CStr) -> u64 {
        let place = self.hash(inode_of_parent, name);
        self.lookup.insert(place);
        place
    }

    fn hash(&self, inode_of_parent: u64, name: &CStr) -> u64 {
        self.keys.hash_one((inode_of_parent, name))
    }

    fn has(&self, seen: &Visited<'_>) -> bool {
        self.lookup.contains(&self.hash(seen.inode_of_parent, seen.name))
    }
}

fn is_directory(seen: &Visited<'_>) -> bool {
    statat(seen.parent, seen.name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn metadata_differs(want: Metadata, stat: &Stat) -> String {
    let got = Metadata::of(stat);
    let shown = |of: Metadata| format!("mode {:o} and owner {}:{}", of.mode, of.uid, of.gid);
    format!("it should have {} and has {}", shown(want), shown(got))
}

fn content(
    lookup: &mut Lookup<'_>,
    path: &[u8],
    kind: &NodeKind,
    buffer: &mut [u8],
    work: &Work,
) -> Result<(), String> {
    let (pieces, want) = match kind {
        NodeKind::File { size, digest } => (vec![(0, *size)], digest),
        NodeKind::Sparse { map, digest, .. } => (map.clone(), digest),
        NodeKind::Link(target) => return same(lookup, path, target),
        NodeKind::Directory
        | NodeKind::Symlink(_)
        | NodeKind::Char(..)
        | NodeKind::Block(..)
        | NodeKind::Fifo
        | NodeKind::Whiteout => return Ok(()),
    };
    let failed = |err: &dyn std::fmt::Display| format!("it cannot be read: {err}");
    let (parent, last) = lookup.parent_of(path).map_err(|err| failed(&err))?;
    // Its type was looked at: nothing that has effects when it is opened.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat(parent, &last, flags, Mode::empty()).map_err(|err| failed(&err))?;
    let check = || work.check();
    let got = digest(&File::from(file), &pieces, buffer, &check).map_err(|err| failed(&err))?;
    if got == *want { Ok(()) } else { Err("its content was altered".into()) }
}

/// The digest of data segments of a file, concatenated. Stops when `check` fails.
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

fn same(lookup: &mut Lookup<'_>, path: &[u8], target: &[u8]) -> Result<(), String> {
    let own = lookup.stat(path).map_err(|errno| errno.to_string())?;
    match lookup.stat(target) {
        Ok(of) if (of.st_dev, of.st_ino) == (own.st_dev, own.st_ino) => Ok(()),
        _ => Err("it should be the same file as another one and is not".into()),
    }
}
