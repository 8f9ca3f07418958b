// SPDX-License-Identifier: Apache-2.0
//! Hard links to files that a layer below has.
//!
//! A layer is unpacked without those below it, so such a link is pending until they are stored. Then the
//! file is copied up, as overlayfs would have done, and further pending links to it are links
//! to the copy.

use super::entry::{Entry, Kind};
use super::error::{Error, charge, shown};
use super::{names, replace};
use crate::fs::spill::Spill;
use crate::fs::{files, holes};
use crate::limits::{LAYER_APPARENT_BYTES, LAYER_BYTES, Limits, Shift, WAITING_LINKS};
use hull_sys as sys;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags, fchmod,
    fchown, fgetxattr, flistxattr, fsetxattr, fstat, ftruncate, futimens, linkat, open, openat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

const COPY_BYTES: usize = 256 << 10;

/// The pending links of a layer, in the order of the archive: name and target, on disk.
#[derive(Debug)]
pub(crate) struct Links {
    list: Spill,
    count: u64,
}

impl Links {
    /// The number of links.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (mut at, mut all) = (0, Vec::new());
        while let Ok((name, target, next)) = self.get(at) {
            all.push((name, target));
            at = next;
        }
        all
    }

    /// The link at an offset, and the offset of the next.
    fn get(&self, at: u64) -> sys::Result<(Vec<u8>, Vec<u8>, u64)> {
        let failed = sys::Error::of_io(|| "read(the list of hard links)");
        let read = || {
            let (name, at) = self.list.get(at)?;
            let (target, at) = self.list.get(at)?;
            Ok((name, target, at))
        };
        read().map_err(failed)
    }
}

/// The pending links while a layer is unpacked. Memory has only the offset of each, by the hash of its
/// name under a random key.
#[derive(Debug, Default)]
pub(super) struct PendingLinks {
    links: Option<Links>,
    keys: RandomState,
    places: HashMap<u64, u64>,
}

impl PendingLinks {
    /// Adds a link.
    pub(super) fn add(
        &mut self,
        root: BorrowedFd<'_>,
        name: &[u8],
        target: &[u8],
    ) -> Result<(), Error> {
        let made = |source| Error::Make { entry: shown(name), source };
        let links = match &mut self.links {
            Some(links) => links,
            none => none.insert(Links { list: Spill::new(root).map_err(made)?, count: 0 }),
        };
        charge(&WAITING_LINKS, &mut links.count, 1, WAITING_LINKS.default)?;
        let at = links.list.push(&[name, target]);
        let at = at.map_err(sys::Error::of_io(|| "write(the list of hard links)")).map_err(made)?;
        self.places.insert(self.keys.hash_one(name), at);
        Ok(())
    }

    /// Whether an entry is a link to its own name. It changes nothing where the layer has that name already, and is
    /// refused elsewhere.
    pub(super) fn is_to_itself(
        &self,
        root: BorrowedFd<'_>,
        entry: &Entry,
        name: &[u8],
    ) -> Result<bool, Error> {
        let Kind::Link(target) = &entry.kind else { return Ok(false) };
        if names::target(b"", target).ok().as_deref() != Some(name) {
            return Ok(false);
        }
        let is_there = beneath(root, name, OFlags::PATH | OFlags::NOFOLLOW).is_ok()
            || self.places.contains_key(&self.keys.hash_one(name));
        if is_there {
            return Ok(true);
        }
        let why = "as a hard link, it names itself, and no entry before it has that name".into();
        Err(Error::Refused { entry: shown(&entry.path), why })
    }

    /// Drops a link whose name another entry has taken.
    pub(super) fn forget(&mut self, name: &[u8]) {
        if !self.places.is_empty() {
            self.places.remove(&self.keys.hash_one(name));
        }
    }

    /// The links that are still pending.
    pub(super) fn finish(&mut self, root: BorrowedFd<'_>) -> sys::Result<Option<Links>> {
        let Some(links) = self.links.take().filter(|_| !self.places.is_empty()) else {
            return Ok(None);
        };
        if links.count == self.places.len() as u64 {
            return Ok(Some(links));
        }
        let mut kept = Links { list: Spill::new(root)?, count: 0 };
        let mut at = 0;
        while at < links.list.end() {
            let (name, target, next) = links.get(at)?;
            if self.places.get(&self.keys.hash_one(name.as_slice())) == Some(&at) {
                let added = kept.list.push(&[&name, &target]);
                added.map_err(sys::Error::of_io(|| "write(the list of hard links)"))?;
                kept.count += 1;
            }
            at = next;
        }
        Ok(Some(kept))
    }
}

/// The cost of the copies for links.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CopyCost {
    /// Bytes that were written.
    pub(crate) bytes: u64,
    apparent_bytes: u64,
}

/// Creates the pending `links` of the layer in `root`. `below` is a view of the layers below it. The layer
/// uses `taken` bytes already.
pub(crate) fn copy_up(
    root: BorrowedFd<'_>,
    below: Option<BorrowedFd<'_>>,
    links: &Links,
    limits: Limits,
    taken: u64,
    shift: &Shift,
) -> Result<CopyCost, Error> {
    let mut copying = Copying {
        root,
        bytes: taken,
        done: CopyCost::default(),
        limits,
        shift,
        buffer: vec![0; COPY_BYTES],
    };
    // Where in the list the name of the copy is, by a hash of what is copied.
    let (keys, mut copies) = (RandomState::new(), HashMap::new());
    let mut at = 0;
    while at < links.list.end() {
        shift.check().map_err(Error::of_read)?;
        let made = |source| Error::Make { entry: "its hard links".into(), source };
        let (name, target, next) = links.get(at).map_err(made)?;
        let made = |source| Error::Make { entry: shown(&name), source };
        let nothing = || Error::LinkToNothing { entry: shown(&name), target: shown(&target) };
        let hash = keys.hash_one(target.as_slice());
        // A copy of the same target, or a link that has been made since.
        let own = match copies.get(&hash) {
            Some(copy) => links.get(*copy).map_err(made)?.0,
            None => target.clone(),
        };
        if !link(root, &own, &name).map_err(made)? {
            let found = below
                .ok_or_else(nothing)
                .and_then(|below| find(below, &target).map_err(|_| nothing()))?;
            copying.copy(&found, &name)?;
            copies.insert(hash, at);
        }
        at = next;
    }
    Ok(copying.done)
}

struct Copying<'a> {
    root: BorrowedFd<'a>,
    /// The bytes that count against the limit.
    bytes: u64,
    done: CopyCost,
    limits: Limits,
    shift: &'a Shift,
    buffer: Vec<u8>,
}

impl Copying<'_> {
    fn copy(&mut self, from: &File, name: &[u8]) -> Result<(), Error> {
        let made = |source| Error::Make { entry: shown(name), source };
        let (parent, own) = parent_of(self.root, name).map_err(made)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = || openat(&parent.fd, &own, flags, Mode::RUSR | Mode::WUSR);
        let into = File::from(replace::replace(parent.fd.as_fd(), &own, make).map_err(made)?);
        parent.leave().map_err(made)?;
        let stat = fstat(from).map_err(sys::Error::of(|| "fstat()")).map_err(made)?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        let max = self.limits.apparent_bytes;
        charge(&LAYER_APPARENT_BYTES, &mut self.done.apparent_bytes, length, max)?;
        ftruncate(&into, length)
            .map_err(sys::Error::of(|| format!("ftruncate({length})")))
            .map_err(made)?;
        let mut at = 0;
        let failed = |call: &'static str| sys::Error::of_io(move || call);
        while let Some((begin, bytes)) =
            holes::next(from, at, length).map_err(failed("lseek(SEEK_DATA)")).map_err(made)?
        {
            charge(&LAYER_BYTES, &mut self.bytes, bytes, self.limits.bytes)?;
            self.piece(from, &into, begin, bytes, name)?;
            self.done.bytes += bytes;
            at = begin + bytes;
        }
        apply_metadata(from, &into, &stat)
            .map_err(sys::Error::of(|| "copy the attributes of a file"))
            .map_err(made)
    }

    fn piece(
        &mut self,
        from: &File,
        into: &File,
        mut at: u64,
        bytes: u64,
        name: &[u8],
    ) -> Result<(), Error> {
        let end = at + bytes;
        while at < end {
            self.shift.check().map_err(Error::of_read)?;
            let want = usize::try_from(end - at).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
            let part = &mut self.buffer[..want];
            let copied = from.read_exact_at(part, at).and_then(|()| into.write_all_at(part, at));
            copied
                .map_err(sys::Error::of_io(|| format!("write({want} bytes)")))
                .map_err(|source| Error::Make { entry: shown(name), source })?;
            at += want as u64;
        }
        Ok(())
    }
}

fn beneath(root: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let name = if name.is_empty() { b".".as_slice() } else { name };
    sys::open_in_root(root, name, flags, ResolveFlags::empty())
}

/// A directory in which a file is created, and its times before that.
struct Parent {
    fd: OwnedFd,
    times: Timestamps,
}

impl Parent {
    fn leave(&self) -> sys::Result<()> {
        futimens(&self.fd, &self.times).map_err(sys::Error::of(|| "futimens()"))
    }
}

fn parent_of(root: BorrowedFd<'_>, name: &[u8]) -> sys::Result<(Parent, CString)> {
    let (above, last) = names::split(name);
    let failed = |errno| sys::Error::new(errno, format!("openat2({})", shown(above)));
    let fd = beneath(root, above, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    let times = files::modified(&fstat(&fd).map_err(failed)?);
    let last = CString::new(last).map_err(|_| sys::Error::new(Errno::INVAL, "openat2(NUL)"))?;
    Ok((Parent { fd, times }, last))
}

/// Creates the link if the layer itself has the target by now; returns whether it did.
fn link(root: BorrowedFd<'_>, target: &[u8], name: &[u8]) -> sys::Result<bool> {
    let Ok((from, last)) = parent_of(root, target) else { return Ok(false) };
    if replace::is_whiteout(from.fd.as_fd(), &last) {
        return Ok(false);
    }
    let (to, own) = parent_of(root, name)?;
    let make = || linkat(&from.fd, &last, &to.fd, &own, AtFlags::empty());
    // An entry before this one may have made a file of this name.
    match replace::remove_conflicting(to.fd.as_fd(), &own, &mut false, make) {
        Ok(()) => to.leave().map(|()| true),
        Err(err) if err.errno() == Errno::NOENT => Ok(false),
        Err(err) => Err(err),
    }
}

/// The regular file `target` of the layers below, open for reading.
fn find(below: BorrowedFd<'_>, target: &[u8]) -> Result<File, Errno> {
    let found = beneath(below, target, OFlags::PATH | OFlags::NOFOLLOW)?;
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(Errno::NOENT);
    }
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

fn apply_metadata(from: &File, into: &File, stat: &Stat) -> Result<(), Errno> {
    use rustix::fs::{Gid, Uid};
    fchown(into, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(into, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut list = vec![0; 64 << 10];
    let length = flistxattr(from, list.as_mut_slice()).unwrap_or(0);
    for name in list[..length].split(|b| *b == 0) {
        if name == b"security.capability" || name.starts_with(b"user.") {
            let mut value = vec![0; 64 << 10];
            let length = fgetxattr(from, name, value.as_mut_slice())?;
            fsetxattr(into, name, &value[..length], XattrFlags::empty())?;
        }
    }
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds };
    futimens(into, &Timestamps { last_access: time, last_modification: time })
}
