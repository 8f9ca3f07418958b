// SPDX-License-Identifier: Apache-2.0
//! Repairs a layer file by file, from a new copy that was unpacked beside it.
//!
//! The rule: intact files stay in place, since containers may be running on them; a broken file is
//! replaced by a rename, so that no container sees a half-written file.

use super::finding::{Finding, Mismatch};
use super::item::Metadata;
use super::lookup::Lookup;
use super::read::Reader;
use super::verify::verify;
use crate::digest::Digest;
use crate::error::{NAME_MAX, shown};
use crate::fs::files;
use crate::limits::Work;
use hull_sys as sys;
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown, openat, renameat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Rounds of verifying and repairing: a missing directory hides what is wrong in it.
const ROUNDS_MAX: usize = 64;

/// Replaces broken files of `root` by those of `good`, according to the file list in `file`.
pub(crate) fn repair(
    root: &OwnedFd,
    good: &OwnedFd,
    file: &File,
    digest: &Digest,
    work: &Work,
) -> sys::Result<()> {
    let failed = |source: io::Error| sys::Error::of_io(|| "read(file list)")(source);
    for _ in 0..ROUNDS_MAX {
        let again = file.try_clone().and_then(|mut file| {
            io::Seek::rewind(&mut file)?;
            Reader::open(file, digest)
        });
        let findings = verify(root.as_fd(), again.map_err(failed)?, work).map_err(failed)?;
        if findings.is_empty() {
            return Ok(());
        }
        for finding in &findings {
            match finding.mismatch {
                Mismatch::Content => replace(root.as_fd(), good.as_fd(), finding)?,
                Mismatch::Metadata(metadata) => set_metadata(root.as_fd(), finding, metadata)?,
                Mismatch::Added => remove(root.as_fd(), finding)?,
            }
        }
    }
    Err(sys::Error::new(Errno::IO, "renameat(a layer that does not get whole)"))
}

fn replace(root: BorrowedFd<'_>, good: BorrowedFd<'_>, finding: &Finding) -> sys::Result<()> {
    let (mut from, mut to) = (Lookup::new(good), Lookup::new(root));
    let path = first_missing(&mut to, &finding.path);
    let shown = || shown(path, NAME_MAX);
    let failed = |errno| sys::Error::new(errno, format!("renameat({})", shown()));
    let (into, name) = to.parent_of(path).map_err(failed)?;
    let (source, own) = match from.parent_of(path) {
        Ok(found) => found,
        // It was moved together with its directory.
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    match renameat(source, &own, into, &name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => {
            hull_sys::remove_tree_at(into, &name)?;
            renameat(source, &own, into, &name).map_err(failed)
        }
        Err(errno) => Err(failed(errno)),
    }
}

/// Sets the metadata of a directory, which keeps its intact files.
fn set_metadata(root: BorrowedFd<'_>, finding: &Finding, metadata: Metadata) -> sys::Result<()> {
    let shown = || shown(&finding.path, NAME_MAX);
    let failed = |errno| sys::Error::new(errno, format!("fchmod({})", shown()));
    let mut lookup = Lookup::new(root);
    let (parent, name) = lookup.parent_of(&finding.path).map_err(failed)?;
    let dir = openat(parent, &name, files::DIRECTORY, Mode::empty()).map_err(failed)?;
    fchown(&dir, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))
        .map_err(failed)?;
    fchmod(&dir, Mode::from_raw_mode(metadata.mode)).map_err(failed)
}

fn remove(root: BorrowedFd<'_>, finding: &Finding) -> sys::Result<()> {
    let mut lookup = Lookup::new(root);
    match lookup.parent_of(&finding.path) {
        Ok((parent, name)) => hull_sys::remove_tree_at(parent, &name),
        // It was removed together with its directory.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        Err(errno) => {
            let shown = shown(&finding.path, NAME_MAX);
            Err(sys::Error::new(errno, format!("unlinkat({shown})")))
        }
    }
}

/// The first missing directory on the way to `path`, or the path itself: a missing directory is moved
/// as a whole.
fn first_missing<'a>(lookup: &mut Lookup<'_>, path: &'a [u8]) -> &'a [u8] {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let mut above = slashes.map(|(at, _)| &path[..at]);
    above.find(|above| matches!(lookup.stat(above), Err(Errno::NOENT))).unwrap_or(path)
}
