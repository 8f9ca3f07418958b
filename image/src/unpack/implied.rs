// SPDX-License-Identifier: Apache-2.0
//! The directories that an archive implies by the names of its entries, but does not list.
//!
//! Such a directory says nothing about owner and mode. What an image shows of it is that of the layers below.

use super::error::Error;
use crate::limits::{IMPLIED_NAME_BYTES, ImpliedNames};
use hull_sys as sys;
use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags, fstat, statat};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

/// The implied directories while a layer is unpacked.
#[derive(Debug, Default)]
pub(super) struct Implied {
    /// The path of each, without symlinks, by its inode: an entry may list it under another name.
    paths: HashMap<u64, Vec<u8>>,
    memory: ImpliedNames,
    is_root_listed: bool,
    /// Those of the current entry: name, inode, and the name without symlinks.
    new: Vec<(Vec<u8>, u64, Vec<u8>)>,
}

impl Implied {
    /// None yet; `memory` is what all layers of a pull share.
    pub(super) fn new(memory: ImpliedNames) -> Self {
        Self { memory, ..Self::default() }
    }

    /// A directory was created for the current entry. `above` is the name of its parent without symlinks.
    pub(super) fn made(&mut self, name: &[u8], inode: u64, above: &[u8]) {
        let slash: &[u8] = if above.is_empty() { b"" } else { b"/" };
        let path = [above, slash, super::split(name).1].concat();
        self.new.push((name.to_vec(), inode, path));
    }

    /// The names of the directories that were created since the last call.
    pub(super) fn take_new(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        let mut names = Vec::new();
        for (name, inode, path) in std::mem::take(&mut self.new) {
            if !self.memory.take(cost(&path)) {
                let max = IMPLIED_NAME_BYTES.default;
                return Err(Error::Limit { budget: &IMPLIED_NAME_BYTES, max });
            }
            // The inode of a directory that was replaced may come again.
            let old = self.paths.insert(inode, path);
            self.memory.give_back(old.map_or(0, |old| cost(&old)));
            names.push(name);
        }
        Ok(names)
    }

    /// The archive lists this directory.
    pub(super) fn listed(&mut self, dir: impl AsFd) -> Result<(), sys::Error> {
        if !self.paths.is_empty() {
            let inode = fstat(dir).map_err(sys::Error::of(|| "fstat()"))?.st_ino;
            let old = self.paths.remove(&inode);
            self.memory.give_back(old.map_or(0, |old| cost(&old)));
        }
        Ok(())
    }

    /// The archive lists its root.
    pub(super) fn root_listed(&mut self) {
        self.is_root_listed = true;
    }

    /// The paths of those that are still there, sorted, and the memory for them. The root's is empty.
    pub(super) fn finish(mut self, root: BorrowedFd<'_>) -> (Vec<Vec<u8>>, ImpliedNames) {
        let mut paths = Vec::new();
        for (inode, path) in std::mem::take(&mut self.paths) {
            if is_at(root, &path, inode) {
                paths.push(path);
            } else {
                self.memory.give_back(cost(&path));
            }
        }
        if !self.is_root_listed {
            paths.push(Vec::new());
        }
        paths.sort_unstable();
        (paths, self.memory)
    }
}

/// The memory for a path in a table, in bytes: its text, its place, and the allocator's part.
pub(crate) fn cost(path: &[u8]) -> u64 {
    (path.len() as u64).saturating_add(96)
}

/// Whether the directory of this inode is at `path`: another entry may have replaced it.
fn is_at(root: BorrowedFd<'_>, path: &[u8], inode: u64) -> bool {
    let (above, last) = super::split(path);
    let above = if above.is_empty() { b".".as_slice() } else { above };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let found = sys::open_in_root(root, above, flags, ResolveFlags::NO_SYMLINKS)
        .and_then(|parent| statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW));
    found.is_ok_and(|stat| {
        stat.st_ino == inode && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short names take little text, but a place in the table each.
    #[test]
    fn directories_are_counted_with_their_places_in_the_table() {
        let mut implied = Implied::default();
        let names = (0_u64..).map(|number| (number, format!("{number:x}").into_bytes()));
        let mut count = 0;
        for (number, name) in names {
            implied.made(&name, number, b"");
            if implied.take_new().is_err() {
                break;
            }
            count = number;
        }
        assert!((250_000..350_000).contains(&count), "{count} directories were kept");
    }
}
