// SPDX-License-Identifier: Apache-2.0
//! Creates the files of a layer beneath one descriptor.
//!
//! The rule: a parent is found by `openat2(RESOLVE_IN_ROOT)`, so that links in it end inside; the last
//! part is made or removed in that parent and never followed. Owners come before modes (`chown`
//! clears set-user-id), both before capabilities (`chown` clears those too), times come last.

use super::content::copy;
use super::entry::{Entry, Kind};
use super::error::{Error, charge, shown};
use super::implied::Implied;
use super::links::{self, PendingLinks, Place};
use super::metadata::{
    applied_metadata, apply_metadata, holds_whiteouts, opaque, retained_xattrs, times,
};
use super::names::{self, EntryName};
use super::nodes;
use super::parents::{self, IMPLICIT};
use super::replace::{is_whiteout, remove_conflicting};
use super::unpacked::Unpacked;
use crate::digest::Hasher;
use crate::file_list::{Metadata, NodeKind};
use crate::fs::files;
use crate::limits::{ImpliedNames, LAYER_APPARENT_BYTES, LAYER_BYTES, LAYER_ENTRIES, Limits};
use hull_sys as sys;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timestamps, fstat, ftruncate, futimens, mkdirat,
    mknodat, openat, readlinkat, statat,
};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The approximate unit of disk allocation.
const UNIT: u64 = 4096;
/// The longest target of a symlink that is stored in its inode, approximately.
const LINK_IN_INODE: usize = 60;
const COPY_BYTES: usize = 256 << 10;
/// The largest number of symlinks on the way to one directory.
const LINKS_MAX: u32 = 40;

/// A layer's directory that is being filled.
pub(super) struct Tree {
    root: OwnedFd,
    /// The last parent: most entries are in the directory of the one before.
    parent: Option<Parent>,
    /// Links to files of the layers below.
    pending_links: PendingLinks,
    /// Parent directories that no entry lists.
    implied: Implied,
    limits: Limits,
    done: Unpacked,
    /// Bytes of extended attributes, which no file's length counts.
    xattr_bytes: u64,
    buffer: Vec<u8>,
}

/// A directory in which entries are created. Its times, which that changes, are restored afterwards.
struct Parent {
    name: Vec<u8>,
    fd: OwnedFd,
    times: Timestamps,
}

type Call<T> = Result<T, sys::Error>;

/// A created file: path, type and metadata.
pub(super) type Recorded = (Vec<u8>, NodeKind, Option<Metadata>);

impl Tree {
    pub(super) fn new(root: OwnedFd, limits: Limits, names: ImpliedNames) -> Self {
        let done = Unpacked { bytes: UNIT, inodes: 1, ..Default::default() };
        Self {
            root,
            parent: None,
            pending_links: PendingLinks::default(),
            implied: Implied::new(names),
            limits,
            done,
            xattr_bytes: 0,
            buffer: vec![0; COPY_BYTES],
        }
    }

    /// Creates the file of an entry, and returns all files that were created for it.
    pub(super) fn add(
        &mut self,
        entry: &Entry,
        data: &mut impl Read,
    ) -> Result<impl Iterator<Item = Recorded>, Error> {
        let xattrs = retained_xattrs(entry).map(|(name, value)| (name.len() + value.len()) as u64);
        charge(&LAYER_BYTES, &mut self.xattr_bytes, xattrs.sum(), self.limits.bytes)?;
        let made = self.make(entry, data)?;
        // Directories on the way and marks are inodes too, whatever the archive lists.
        let mut inodes = self.done.inodes.saturating_sub(1);
        charge(&LAYER_ENTRIES, &mut inodes, 0, self.limits.entries)?;
        let metadata = made.as_ref().map(|(_, kind)| applied_metadata(entry, kind)).transpose();
        let metadata =
            metadata.map_err(|source| Error::Make { entry: shown(&entry.path), source })?;
        let made = made.map(|(name, kind)| (name, kind, metadata.flatten()));
        let parents = self.implied.take_new()?.into_iter();
        Ok(parents.map(|name| (name, NodeKind::Directory, Some(IMPLICIT))).chain(made))
    }

    fn make(
        &mut self,
        entry: &Entry,
        data: &mut impl Read,
    ) -> Result<Option<(Vec<u8>, NodeKind)>, Error> {
        let refused = |why: &str| Error::Refused { entry: shown(&entry.path), why: why.to_owned() };
        let name = names::clean(&entry.path).map_err(|names::Refused(why)| refused(why))?;
        let made = |source| Error::Make { entry: shown(&entry.path), source };
        if name.is_empty() {
            self.add_root(entry).map_err(made)?;
            return Ok(Some((name, NodeKind::Directory)));
        }
        let (directory, last) = names::split(&name);
        let last_name = CString::new(last).map_err(|_| refused("the name contains NUL"))?;
        let kind = match names::classify(last).map_err(|names::Refused(why)| refused(why))? {
            EntryName::Ignored => None,
            EntryName::Opaque => {
                self.make_opaque(directory).map_err(made)?;
                None
            }
            EntryName::Whiteout(gone) => {
                let is_made = self.make_whiteout(directory, gone).map_err(made)?;
                let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
                let path = [directory, slash, gone].concat();
                return Ok(is_made.then_some((path, NodeKind::Whiteout)));
            }
            EntryName::Entry => {
                if links::is_to_itself(self.root.as_fd(), entry, &name)? {
                    return Ok(None);
                }
                match &entry.kind {
                    Kind::Link(target) => self.link(entry, &name, target)?,
                    Kind::File | Kind::Sparse { .. } => {
                        Some(self.file(entry, &name, &last_name, data)?)
                    }
                    Kind::Directory
                    | Kind::Symlink(_)
                    | Kind::Char(..)
                    | Kind::Block(..)
                    | Kind::Fifo => Some(self.other(entry, &name, &last_name).map_err(made)?),
                }
            }
        };
        Ok(kind.map(|kind| (name, kind)))
    }

    /// Restores the times of the last parent and returns the unpacked layer.
    pub(super) fn finish(mut self) -> Result<Unpacked, Error> {
        let made = |source| Error::Make { entry: "its hard links".into(), source };
        self.leave().map_err(made)?;
        self.done.links = self.pending_links.finish(self.root.as_fd()).map_err(made)?;
        (self.done.implied, self.done.names) = self.implied.finish(self.root.as_fd());
        Ok(self.done)
    }

    /// Restores the times of the last parent.
    fn leave(&mut self) -> Call<()> {
        let Some(Parent { name, fd, times }) = self.parent.take() else { return Ok(()) };
        futimens(&fd, &times).map_err(sys::Error::of(|| format!("futimens({})", shown(&name))))
    }

    fn beneath(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let name = if name.is_empty() { b".".as_slice() } else { name };
        sys::open_in_root(self.root.as_fd(), name, flags, ResolveFlags::NO_XDEV)
    }

    /// Opens the parent directory of an entry, and creates it if the archive does not list it.
    fn directory(&mut self, name: &[u8]) -> Call<BorrowedFd<'_>> {
        if self.parent.as_ref().is_none_or(|known| known.name != name) {
            self.leave()?;
            let fd = self.ensure(name, LINKS_MAX)?;
            let stat = fstat(&fd).map_err(sys::Error::of(|| format!("fstat({})", shown(name))))?;
            self.parent = Some(Parent { name: name.to_vec(), fd, times: files::modified(&stat) });
        }
        Ok(self.parent.as_ref().map_or(self.root.as_fd(), |parent| parent.fd.as_fd()))
    }

    fn ensure(&mut self, name: &[u8], links: u32) -> Call<OwnedFd> {
        let failed =
            |errno| sys::Error::new(errno, format!("openat2({}, DIRECTORY|IN_ROOT)", shown(name)));
        match self.beneath(name, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => return Ok(fd),
            // A whiteout of this layer may be in the way.
            Err(Errno::NOENT | Errno::NOTDIR) if !name.is_empty() => {}
            Err(errno) => return Err(failed(errno)),
        }
        // From the top: a layer may nest deeper than a stack does.
        let slashes = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for end in slashes.map(|(at, _)| at).chain([name.len()]) {
            self.ensure_one(&name[..end], links)?;
        }
        self.beneath(name, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)
    }

    /// The same, when all directories above it exist.
    fn ensure_one(&mut self, name: &[u8], links: u32) -> Call<()> {
        let failed = |errno| sys::Error::new(errno, format!("mkdirat({})", shown(name)));
        let (above, last) = names::split(name);
        let parent = self.beneath(above, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let before = fstat(&parent).map_err(failed)?;
        let mode = Mode::from_raw_mode(IMPLICIT.mode);
        let last_name = CString::new(last).map_err(|_| failed(Errno::INVAL))?;
        if is_whiteout(parent.as_fd(), &last_name) {
            parents::replace_whiteout(parent.as_fd(), &last_name)?;
            self.done.replaced = true;
            self.count(UNIT);
            return Ok(());
        }
        match mkdirat(&parent, last, mode) {
            Ok(()) => {
                parents::apply_implicit(parent.as_fd(), &last_name)?;
                futimens(&parent, &files::modified(&before)).map_err(failed)?;
                let place = parents::place_of(self.root.as_fd(), parent.as_fd())
                    .unwrap_or_else(|| above.to_owned());
                let stat = statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                self.implied.made(name, stat.st_ino, &place);
                self.count(UNIT);
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        match self.beneath(name, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) if links > 0 => {}
            Err(errno) => return Err(failed(errno)),
        }
        // A link to a directory of a lower layer: what it means is made in this layer.
        let target = readlinkat(&parent, last, Vec::new()).map_err(failed)?.into_bytes();
        let beside = parents::place_of(self.root.as_fd(), parent.as_fd())
            .unwrap_or_else(|| above.to_owned());
        let joined = names::target(&beside, &target).map_err(|_| failed(Errno::LOOP))?;
        self.ensure(&joined, links - 1).map(drop)
    }

    fn count(&mut self, bytes: u64) {
        self.done.inodes += 1;
        self.done.bytes += bytes.next_multiple_of(UNIT);
    }

    fn add_root(&mut self, entry: &Entry) -> Call<()> {
        if entry.kind != Kind::Directory {
            return Err(sys::Error::new(Errno::ISDIR, "openat(/, CREATE)"));
        }
        let root = self
            .beneath(b"", files::DIRECTORY)
            .map_err(sys::Error::of(|| "openat2(/, DIRECTORY)"))?;
        self.leave()?;
        apply_metadata(root.as_fd(), entry)?;
        self.implied.root_listed();
        futimens(&root, &times(entry.mtime)).map_err(sys::Error::of(|| "futimens(/)"))
    }

    fn make_opaque(&mut self, directory: &[u8]) -> Call<()> {
        drop(self.ensure(directory, LINKS_MAX)?);
        let dir = self
            .beneath(directory, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(sys::Error::of(|| format!("openat2({})", shown(directory))))?;
        let inode = |fd| fstat(fd).map(|stat| stat.st_ino).map_err(sys::Error::of(|| "fstat()"));
        // overlayfs does not look at the mark of a layer's root.
        self.done.hides_below |= inode(dir.as_fd())? == inode(self.root.as_fd())?;
        opaque(dir.as_fd())
    }

    /// Creates a whiteout; returns whether there is one now.
    fn make_whiteout(&mut self, directory: &[u8], gone: &[u8]) -> Call<bool> {
        let gone = CString::new(gone).map_err(|_| sys::Error::new(Errno::INVAL, "mknodat(NUL)"))?;
        let parent = self.directory(directory)?;
        match mknodat(parent, &gone, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {
                holds_whiteouts(parent)?;
                self.count(0);
                Ok(true)
            }
            // The layer has one of its own: only that of the layers below is gone.
            Err(Errno::EXIST) => match openat(parent, &gone, files::DIRECTORY, Mode::empty()) {
                Ok(dir) => {
                    opaque(dir.as_fd())?;
                    // Owner and mode from below are gone as well.
                    self.implied.listed(&dir)?;
                    Ok(false)
                }
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(false),
                Err(errno) => Err(sys::Error::new(errno, "openat(DIRECTORY)")),
            },
            Err(errno) => {
                Err(sys::Error::new(errno, format!("mknodat({}, c, 0, 0)", shown(gone.as_bytes()))))
            }
        }
    }

    fn file(
        &mut self,
        entry: &Entry,
        name: &[u8],
        last: &CString,
        data: &mut impl Read,
    ) -> Result<NodeKind, Error> {
        let made = |source| Error::Make { entry: shown(&entry.path), source };
        let mut replaced = false;
        let parent = self.directory(names::split(name).0).map_err(made)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || openat(parent, last, flags, Mode::RUSR | Mode::WUSR);
        let fd = remove_conflicting(parent, last, &mut replaced, create).map_err(made)?;
        self.done.replaced |= replaced;
        let mut file = File::from(fd);
        let mut hasher = Hasher::sha256();
        let (written, length) = match &entry.kind {
            Kind::Sparse { map, length } => {
                let pieces = (map.as_slice(), *length);
                (self.copy_pieces(entry, &mut file, data, pieces, &mut hasher)?, *length)
            }
            Kind::File
            | Kind::Directory
            | Kind::Symlink(_)
            | Kind::Link(_)
            | Kind::Char(..)
            | Kind::Block(..)
            | Kind::Fifo => (
                copy(&mut self.buffer, entry, &mut file, data, entry.size, &mut hasher)?,
                entry.size,
            ),
        };
        apply_metadata(file.as_fd(), entry).map_err(made)?;
        futimens(&file, &times(entry.mtime))
            .map_err(sys::Error::of(|| "futimens()"))
            .map_err(made)?;
        self.count(written);
        let digest = hasher.bytes();
        if let Kind::Sparse { map, .. } = &entry.kind {
            return Ok(NodeKind::Sparse { length, map: map.clone(), digest });
        }
        Ok(NodeKind::File { size: length, digest })
    }

    fn copy_pieces(
        &mut self,
        entry: &Entry,
        file: &mut File,
        data: &mut impl Read,
        (map, length): (&[(u64, u64)], u64),
        hasher: &mut Hasher,
    ) -> Result<u64, Error> {
        let made = |source| Error::Make { entry: shown(&entry.path), source };
        let max = self.limits.apparent_bytes;
        charge(&LAYER_APPARENT_BYTES, &mut self.done.apparent_bytes, length, max)?;
        ftruncate(&*file, length)
            .map_err(sys::Error::of(|| format!("ftruncate({length})")))
            .map_err(made)?;
        let mut written = 0;
        for (offset, size) in map {
            file.seek(SeekFrom::Start(*offset))
                .map_err(sys::Error::of_io(|| "lseek()"))
                .map_err(made)?;
            written += copy(&mut self.buffer, entry, file, data, *size, hasher)?;
        }
        Ok(written)
    }

    fn link(
        &mut self,
        entry: &Entry,
        name: &[u8],
        target: &[u8],
    ) -> Result<Option<NodeKind>, Error> {
        let made = |source| Error::Make { entry: shown(&entry.path), source };
        let refused = |why: &str| Error::Refused {
            entry: shown(&entry.path),
            why: format!("as a hard link, {why}"),
        };
        let target = names::target(b"", target).map_err(|names::Refused(why)| refused(why))?;
        let (above, last) = names::split(&target);
        let last = CString::new(last).map_err(|_| refused("the name contains NUL"))?;
        let found = match self.beneath(above, OFlags::PATH | OFlags::DIRECTORY) {
            // What the layer removes from below is there to be linked to.
            Ok(dir) if is_whiteout(dir.as_fd(), &last) => Err(Errno::NOENT),
            Ok(dir) => statat(&dir, &last, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (dir, stat)),
            Err(errno) => Err(errno),
        };
        links::refuse_impossible(name, &target, found.as_ref().ok().map(|(_, stat)| stat))?;
        let (directory, own) = names::split(name);
        let own = CString::new(own).map_err(|_| refused("the name contains NUL"))?;
        self.directory(directory).map_err(made)?;
        let parent = self.parent.as_ref().map_or(self.root.as_fd(), |of| of.fd.as_fd());
        let place = Place { root: self.root.as_fd(), parent, last: &own, name };
        match found {
            Ok((dir, stat)) => {
                let mut replaced = false;
                links::link_within(&dir, &last, &stat, place, &mut replaced).map_err(made)?;
                self.done.replaced |= replaced;
                self.pending_links.linked(place)?;
                Ok(Some(NodeKind::Link(target)))
            }
            // A layer below has it: linked once that is there.
            Err(Errno::NOENT | Errno::NOTDIR) => {
                // The list of files does not have the placeholder.
                self.done.replaced = true;
                self.pending_links.add(place, &target)?;
                Ok(None)
            }
            Err(errno) => Err(made(sys::Error::new(errno, format!("fstatat({})", shown(&target))))),
        }
    }

    fn other(&mut self, entry: &Entry, name: &[u8], last: &CString) -> Call<NodeKind> {
        let (file_type, kind) = match &entry.kind {
            Kind::Directory => {
                return self.make_directory(entry, name, last).map(|()| NodeKind::Directory);
            }
            Kind::Symlink(target) => {
                let made = self.symlink(entry, name, last, target);
                return made.map(|()| NodeKind::Symlink(target.clone()));
            }
            Kind::File
            | Kind::Sparse { .. }
            | Kind::Link(_)
            | Kind::Char(..)
            | Kind::Block(..)
            | Kind::Fifo => entry.kind.node(),
        };
        let parent = self.directory(names::split(name).0)?;
        let replaced = nodes::node(parent, last, entry, (file_type, &kind))?;
        self.done.replaced |= replaced;
        self.count(0);
        Ok(kind)
    }

    fn symlink(&mut self, entry: &Entry, name: &[u8], last: &CString, target: &[u8]) -> Call<()> {
        let parent = self.directory(names::split(name).0)?;
        let replaced = nodes::symlink(parent, last, entry, target)?;
        self.done.replaced |= replaced;
        // A short one lies in its inode.
        self.count(if target.len() < LINK_IN_INODE { 0 } else { UNIT });
        Ok(())
    }

    fn make_directory(&mut self, entry: &Entry, name: &[u8], last: &CString) -> Call<()> {
        let mut replaced = false;
        let parent = self.directory(names::split(name).0)?;
        let open = || openat(parent, last, files::DIRECTORY, Mode::empty());
        let (dir, is_new) = match open() {
            Ok(dir) => (dir, false),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => {
                let make = || mkdirat(parent, last, Mode::RWXU);
                remove_conflicting(parent, last, &mut replaced, make)?;
                let dir = open().map_err(sys::Error::of(|| "openat(DIRECTORY)"))?;
                // A whiteout, or a file of this layer: both have removed what the layers below have there.
                if replaced {
                    opaque(dir.as_fd())?;
                }
                (dir, true)
            }
            Err(errno) => return Err(sys::Error::new(errno, "openat(DIRECTORY)")),
        };
        apply_metadata(dir.as_fd(), entry)?;
        futimens(&dir, &times(entry.mtime)).map_err(sys::Error::of(|| "futimens()"))?;
        self.implied.listed(&dir)?;
        self.done.replaced |= replaced;
        if is_new {
            self.count(UNIT);
        }
        // A link may have been replaced that the cached parent went through.
        self.leave()
    }
}
