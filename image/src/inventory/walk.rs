// SPDX-License-Identifier: Apache-2.0
//! An inventory of a directory as it is now.
//!
//! For layers that are not what their archive says from start to end: entries that replace others,
//! and hard links into layers below. The archive cannot be rebuilt from it.

use super::item::{Dress, What};
use super::verify::digest;
use super::write::Writer;
use crate::files;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, major, minor, openat, openat2,
    readlinkat, statat,
};
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

const BUFFER_BYTES: usize = 256 << 10;

/// Something that a walk came by.
pub(super) struct Seen<'a> {
    pub(super) parent: BorrowedFd<'a>,
    pub(super) inode_of_parent: u64,
    pub(super) name: &'a CStr,
    pub(super) path: &'a [u8],
}

/// Shows everything beneath `root`, and goes on into what `see` says is a directory worth that.
pub(super) fn each(
    root: BorrowedFd<'_>,
    mut see: impl FnMut(&Seen<'_>) -> io::Result<bool>,
) -> io::Result<()> {
    let mut left = vec![Vec::<u8>::new()];
    while let Some(path) = left.pop() {
        let name = if path.is_empty() { &b"."[..] } else { &path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let dir = openat2(root, name, files::DIRECTORY, Mode::empty(), resolve)?;
        let inode_of_parent = fstat(&dir)?.st_ino;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let inner = [&path, slash, name.to_bytes()].concat();
            let seen = Seen { parent: dir.as_fd(), inode_of_parent, name, path: &inner };
            if see(&seen)? {
                left.push(inner);
            }
        }
    }
    Ok(())
}

/// Writes down everything beneath `root`, and itself.
pub(crate) fn walk(root: BorrowedFd<'_>, into: &mut Writer) -> io::Result<()> {
    into.not_exact();
    into.entry(Vec::new(), What::Directory, Some(Dress::of(&fstat(root)?)))?;
    let mut walked = Walk { into, links: HashMap::new(), buffer: vec![0; BUFFER_BYTES] };
    each(root, |seen| walked.add(seen.parent, seen.name, seen.path))
}

struct Walk<'a> {
    into: &'a mut Writer,
    /// First paths of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// Whether it is a directory.
    fn add(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> io::Result<bool> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_directory = kind == FileType::Directory;
        if !is_directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                self.into.entry(path.to_vec(), What::Link(first.clone()), None)?;
                return Ok(false);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        let device = (major(stat.st_rdev), minor(stat.st_rdev));
        let what = match kind {
            FileType::RegularFile => self.file(parent, name, &stat)?,
            FileType::Directory => What::Directory,
            FileType::Symlink => What::Symlink(readlinkat(parent, name, Vec::new())?.into_bytes()),
            FileType::CharacterDevice if device == (0, 0) => What::Whiteout,
            FileType::CharacterDevice => What::Char(device.0, device.1),
            FileType::BlockDevice => What::Block(device.0, device.1),
            FileType::Fifo => What::Fifo,
            // Unpacking makes none.
            FileType::Socket | FileType::Unknown => return Ok(false),
        };
        self.into.entry(path.to_vec(), what, Some(Dress::of(&stat)))?;
        Ok(is_directory)
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<What> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(openat(parent, name, flags, Mode::empty())?);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(What::File { size, digest: digest(&file, &[(0, size)], &mut self.buffer)? })
    }
}
