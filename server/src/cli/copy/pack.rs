// SPDX-License-Identifier: Apache-2.0
//! Files into a tar archive. Every object is opened by `O_PATH` without following links, looked at, and read through
//! that descriptor: it cannot become another one in between.

use super::root::Root;
use super::skipped::Skipped;
use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, fstat, open, openat, readlinkat};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// Deepest tree that is copied.
const DEPTH_MAX: usize = 256;
/// Most files with further names that are remembered at a time; each further one is copied by each of its names.
const LINKED_MAX: usize = 1 << 16;

/// A file of a file system: its device and its number there.
type FileId = (u64, u64);

/// Writes the tree at `path` under `name`, and returns what was skipped. The copy goes into the directory `target`,
/// which must not be part of the tree.
///
/// The memory grows with the depth of the tree and the number of files with several names, not with its width.
pub(super) fn pack(
    from: &Root,
    path: &Path,
    name: &OsStr,
    follow: bool,
    target: Option<FileId>,
    to: impl Write,
) -> io::Result<Skipped> {
    // What the caller names with a slash or `/.` at its end is a directory.
    let bytes = path.as_os_str().as_bytes();
    let follow = follow || bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    let object = from.open(path, OFlags::PATH, follow)?;
    let mut packer = Packer {
        from,
        archive: Builder::new(to),
        skipped: Skipped::default(),
        target,
        linked: HashMap::new(),
    };
    packer.object(&object, Path::new(name), 0)?;
    packer.archive.into_inner()?.flush()?;
    Ok(packer.skipped)
}

struct Packer<'r, W: Write> {
    from: &'r Root,
    archive: Builder<W>,
    skipped: Skipped,
    target: Option<FileId>,
    /// Files with several names: the name in the archive, and how many are still to come.
    linked: HashMap<FileId, (PathBuf, u64)>,
}

/// The identity of an object.
pub(super) fn id(stat: &Stat) -> FileId {
    (stat.st_dev, stat.st_ino)
}

impl<W: Write> Packer<'_, W> {
    fn object(&mut self, object: &OwnedFd, name: &Path, depth: usize) -> io::Result<()> {
        let stat = fstat(object)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(object, &stat, name, depth),
            FileType::RegularFile => self.file(object, &stat, name),
            FileType::Symlink => self.link(object, &stat, name),
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                self.skipped.add(name.to_string_lossy().into_owned());
                Ok(())
            }
        }
    }

    fn directory(
        &mut self,
        object: &OwnedFd,
        stat: &Stat,
        name: &Path,
        depth: usize,
    ) -> io::Result<()> {
        if depth > DEPTH_MAX {
            let why = format!("{} is deeper than {DEPTH_MAX} directories", name.display());
            return Err(io::Error::other(why));
        }
        if self.target == Some(id(stat)) {
            let why = format!("{} is the directory that the copy goes into", name.display());
            return Err(io::Error::other(why));
        }
        let mut header = self.header(stat, EntryType::Directory);
        header.set_size(0);
        self.archive.append_data(&mut header, name, io::empty())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(object, ".", flags, Mode::empty())?;
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let entry = entry.file_name().to_bytes();
            if matches!(entry, b"." | b"..") {
                continue;
            }
            let entry = OsStr::from_bytes(entry);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = match openat(&opened, entry, flags, Mode::empty()) {
                Ok(inner) => inner,
                // It was removed meanwhile.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(err) => return Err(err.into()),
            };
            self.object(&inner, &name.join(entry), depth + 1)?;
        }
        Ok(())
    }

    fn file(&mut self, object: &OwnedFd, stat: &Stat, name: &Path) -> io::Result<()> {
        if self.is_linked(stat, name)? {
            return Ok(());
        }
        // The same object: the descriptor, and not its path, is opened.
        let path = format!("/proc/self/fd/{}", object.as_raw_fd());
        let file = File::from(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let names = file.metadata()?.nlink();
        let mut header = self.header(stat, EntryType::Regular);
        header.set_size(size);
        // A file that shrinks or grows meanwhile has the length that the header says.
        let padded = file.take(size).chain(io::repeat(0)).take(size);
        self.archive.append_data(&mut header, name, padded)?;
        // Of a file that gets more names meanwhile, these are files of their own.
        let more = names.saturating_sub(1);
        if more > 0 && self.linked.len() < LINKED_MAX {
            self.linked.insert(id(stat), (name.to_owned(), more));
        }
        Ok(())
    }

    /// Writes a further name of a file that the archive has, as a hard link. Returns whether it did.
    fn is_linked(&mut self, stat: &Stat, name: &Path) -> io::Result<bool> {
        let Some((first, more)) = self.linked.get_mut(&id(stat)) else { return Ok(false) };
        *more = more.saturating_sub(1);
        let (first, is_last) = (first.clone(), *more == 0);
        if is_last {
            self.linked.remove(&id(stat));
        }
        let mut header = self.header(stat, EntryType::Link);
        header.set_size(0);
        self.archive.append_link(&mut header, name, first)?;
        Ok(true)
    }

    fn link(&mut self, object: &OwnedFd, stat: &Stat, name: &Path) -> io::Result<()> {
        let target = readlinkat(object, "", Vec::new())?;
        let mut header = self.header(stat, EntryType::Symlink);
        header.set_size(0);
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        self.archive.append_link(&mut header, name, target)
    }

    /// A header with mode, owner and time; the owner as its container sees it.
    fn header(&self, stat: &Stat, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        let (uid, gid) = self.from.owners.inside(stat.st_uid, stat.st_gid);
        header.set_uid(u64::from(uid));
        header.set_gid(u64::from(gid));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header
    }
}
