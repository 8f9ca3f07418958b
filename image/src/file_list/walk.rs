// SPDX-License-Identifier: Apache-2.0
//! Writes the file list of a directory as it is.
//!
//! For layers whose entries replace each other or are hard links to layers below. The archive cannot be
//! rebuilt from such a list.

use super::item::{Metadata, NodeKind};
use super::verify::digest;
use super::write::Writer;
use crate::fs::holes;
use crate::fs::spill::Spill;
use crate::fs::walk::{self, TreeState, Visited};
use crate::limits::{LINKED_FILES, SPARSE_PIECES, Shift, Work};
use crate::unpack;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fstat, major, minor, openat, readlinkat, statat,
};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

const BUFFER_BYTES: usize = 256 << 10;

/// Lists `root` and everything beneath it, within `seconds` of processor time.
pub(crate) fn walk(
    root: BorrowedFd<'_>,
    into: &mut Writer,
    work: &Work,
    seconds: u64,
) -> io::Result<()> {
    into.not_exact();
    into.entry(Vec::new(), NodeKind::Directory, Some(Metadata::of(&fstat(root)?)))?;
    let linked = Linked { paths: None, lookup: HashMap::new() };
    let shift = work.shift(seconds);
    let mut walked = Walk { root, into, linked, shift: &shift, buffer: vec![0; BUFFER_BYTES] };
    walk::walk(root, TreeState::Frozen, work, |seen| walked.add(seen))
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    into: &'a mut Writer,
    linked: Linked,
    shift: &'a Shift,
    buffer: Vec<u8>,
}

/// The first path of each file with several links: the paths on disk, their offsets by inode.
struct Linked {
    paths: Option<Spill>,
    lookup: HashMap<u64, u64>,
}

impl Linked {
    /// The first path of an inode, if it was visited before.
    fn first(
        &mut self,
        root: BorrowedFd<'_>,
        inode: u64,
        path: &[u8],
    ) -> io::Result<Option<Vec<u8>>> {
        let paths = match &mut self.paths {
            Some(paths) => paths,
            none => none.insert(Spill::new(root).map_err(io::Error::other)?),
        };
        if let Some(at) = self.lookup.get(&inode) {
            return paths.get(*at).map(|(path, _)| Some(path));
        }
        unpack::charge(&LINKED_FILES, &mut (self.lookup.len() as u64), 1, LINKED_FILES.default)
            .map_err(io::Error::other)?;
        self.lookup.insert(inode, paths.push(&[path])?);
        Ok(None)
    }
}

impl Walk<'_> {
    /// Lists one file; returns whether it is a directory.
    fn add(&mut self, seen: &Visited<'_>) -> io::Result<bool> {
        self.shift.check()?;
        let (parent, name) = (seen.parent, seen.name);
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_directory = kind == FileType::Directory;
        if !is_directory
            && stat.st_nlink > 1
            && let Some(first) = self.linked.first(self.root, stat.st_ino, seen.path)?
        {
            self.into.entry(seen.path.to_vec(), NodeKind::Link(first), None)?;
            return Ok(false);
        }
        let device = (major(stat.st_rdev), minor(stat.st_rdev));
        let kind = match kind {
            FileType::RegularFile => self.file(seen, &stat)?,
            FileType::Directory => NodeKind::Directory,
            FileType::Symlink => {
                NodeKind::Symlink(readlinkat(parent, name, Vec::new())?.into_bytes())
            }
            FileType::CharacterDevice if device == (0, 0) => NodeKind::Whiteout,
            FileType::CharacterDevice => NodeKind::Char(device.0, device.1),
            FileType::BlockDevice => NodeKind::Block(device.0, device.1),
            FileType::Fifo => NodeKind::Fifo,
            // Unpacking never creates these.
            FileType::Socket | FileType::Unknown => return Ok(false),
        };
        self.into.entry(seen.path.to_vec(), kind, Some(Metadata::of(&stat)))?;
        Ok(is_directory)
    }

    fn file(&mut self, seen: &Visited<'_>, stat: &Stat) -> io::Result<NodeKind> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(openat(seen.parent, seen.name, flags, Mode::empty())?);
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        let pieces_max = usize::try_from(SPARSE_PIECES.default).unwrap_or(usize::MAX);
        let map = holes::map(&file, length, pieces_max)?;
        let check = || self.shift.check();
        let digest = digest(&file, &map, &mut self.buffer, &check)?;
        if length == 0 || map == [(0, length)] {
            return Ok(NodeKind::File { size: length, digest });
        }
        Ok(NodeKind::Sparse { length, map, digest })
    }
}
