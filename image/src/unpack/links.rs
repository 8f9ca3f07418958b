// SPDX-License-Identifier: Apache-2.0
//! Hard links to files that a layer below has.
//!
//! A layer is unpacked without those below it, so such a link is pending until they are stored. Until then an empty
//! file with a mark takes its place. Entries after it replace that file, link to it or remove it with its directory, as
//! they would the link itself. At last each such file that is left gets the content from below, as overlayfs would have
//! copied it up.
//!
//! The rule: what comes later in the archive never changes what a link names, as with tar.

use super::entry::{Entry, Kind};
use super::error::{Error, charge, shown};
use super::{names, parents, replace};
use crate::fs::spill::Spill;
use crate::fs::{files, holes};
use crate::limits::{LAYER_APPARENT_BYTES, LAYER_BYTES, Limits, Shift, WAITING_LINKS};
use hull_sys as sys;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags, fchmod,
    fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat, ftruncate, futimens, lgetxattr,
    linkat, open, openat, statat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

const COPY_BYTES: usize = 256 << 10;
/// The mark of a placeholder: the offset of its record, little-endian. No archive can set such an attribute.
const PENDING: &str = "trusted.hull.pending";

/// The pending links of a layer, in the order of the archive, on disk.
#[derive(Debug)]
pub(crate) struct Links {
    list: Spill,
    count: u64,
}

/// A pending link: where its placeholder was made, without symlinks, and what it names in the layers below.
struct Record {
    place: Vec<u8>,
    target: Vec<u8>,
}

impl Links {
    /// The number of links.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (mut at, mut all) = (0, Vec::new());
        while let Ok((record, next)) = self.get(at) {
            all.push((record.place, record.target));
            at = next;
        }
        all
    }

    /// The link at an offset, and the offset of the next.
    fn get(&self, at: u64) -> sys::Result<(Record, u64)> {
        let failed = sys::Error::of_io(|| "read(the list of hard links)");
        let read = || {
            let (place, at) = self.list.get(at)?;
            let (target, at) = self.list.get(at)?;
            Ok((Record { place, target }, at))
        };
        read().map_err(failed)
    }
}

/// A name in an open directory, beneath the layer's root.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) parent: BorrowedFd<'a>,
    pub(super) last: &'a CString,
    /// The same as the archive has it.
    pub(super) name: &'a [u8],
}

impl Place<'_> {
    /// The path from the root without symlinks: an entry may replace those by something else. The kernel does not tell
    /// a path of more than a page.
    fn resolved(&self) -> Result<Vec<u8>, Error> {
        let above = parents::place_of(self.root, self.parent).ok_or_else(|| {
            let why = "as a hard link to a layer below, its path is too long".into();
            Error::Refused { entry: shown(self.name), why }
        })?;
        let slash: &[u8] = if above.is_empty() { b"" } else { b"/" };
        Ok([above.as_slice(), slash, self.last.as_bytes()].concat())
    }
}

/// The pending links while a layer is unpacked. Memory has only the offset of one link to each target, by the hash of
/// the target under a random key.
#[derive(Debug, Default)]
pub(super) struct PendingLinks {
    links: Option<Links>,
    keys: RandomState,
    targets: HashMap<u64, u64>,
}

impl PendingLinks {
    /// Adds a link to a target that the layer does not have, and makes its placeholder.
    pub(super) fn add(&mut self, place: Place<'_>, target: &[u8]) -> Result<(), Error> {
        let made = |source| Error::Make { entry: shown(place.name), source };
        let links = match &mut self.links {
            Some(links) => links,
            none => {
                let list = Spill::new(place.root).map_err(made)?;
                none.insert(Links { list, count: 0 })
            }
        };
        let hash = self.keys.hash_one(target);
        let known = self.targets.get(&hash).copied();
        let linked = known.map(|at| link_to_known(links, at, place, target)).transpose();
        if linked.map_err(made)? != Some(true) {
            let at = links.list.end();
            make_placeholder(place, at).map_err(made)?;
            self.targets.insert(hash, at);
        }
        links.push(place, target)
    }

    /// A hard link was made to a file of the layer. If that is a placeholder, the new name is pending, too.
    pub(super) fn linked(&mut self, place: Place<'_>) -> Result<(), Error> {
        let Some(links) = &mut self.links else { return Ok(()) };
        let made = |source| Error::Make { entry: shown(place.name), source };
        let Some(at) = mark(place.parent, place.last).map_err(made)? else { return Ok(()) };
        let (record, _) = links.get(at).map_err(made)?;
        links.push(place, &record.target)
    }

    /// The links that are still pending.
    pub(super) fn finish(&mut self, root: BorrowedFd<'_>) -> sys::Result<Option<Links>> {
        let Some(mut links) = self.links.take() else { return Ok(None) };
        let (mut at, mut pending) = (0, 0);
        while at < links.list.end() {
            let (record, next) = links.get(at)?;
            pending += u64::from(find_mark(root, &record.place)?.is_some());
            at = next;
        }
        links.count = pending;
        Ok(Some(links).filter(|_| pending > 0))
    }
}

impl Links {
    fn push(&mut self, place: Place<'_>, target: &[u8]) -> Result<(), Error> {
        let made = |source| Error::Make { entry: shown(place.name), source };
        charge(&WAITING_LINKS, &mut self.count, 1, WAITING_LINKS.default)?;
        let pushed = self.list.push(&[&place.resolved()?, target]);
        pushed
            .map(drop)
            .map_err(sys::Error::of_io(|| "write(the list of hard links)"))
            .map_err(made)
    }
}

/// Whether an entry is a link to its own name. It changes nothing where the layer has that name already, and is refused
/// elsewhere.
pub(super) fn is_to_itself(
    root: BorrowedFd<'_>,
    entry: &Entry,
    name: &[u8],
) -> Result<bool, Error> {
    let Kind::Link(target) = &entry.kind else { return Ok(false) };
    if names::target(b"", target).ok().as_deref() != Some(name) {
        return Ok(false);
    }
    if beneath(root, name, OFlags::PATH | OFlags::NOFOLLOW).is_ok() {
        return Ok(true);
    }
    let why = "as a hard link, it names itself, and no entry before it has that name".into();
    Err(Error::Refused { entry: shown(&entry.path), why })
}

/// Links to the file `last` of the layer, which `stat` describes. A name that is a link to that file already stays.
pub(super) fn link_within(
    dir: &OwnedFd,
    last: &CString,
    stat: &Stat,
    place: Place<'_>,
    replaced: &mut bool,
) -> sys::Result<()> {
    let is_same = || {
        let there = statat(place.parent, place.last, AtFlags::SYMLINK_NOFOLLOW);
        there.is_ok_and(|of| (of.st_dev, of.st_ino) == (stat.st_dev, stat.st_ino))
    };
    let make = || match linkat(dir, last, place.parent, place.last, AtFlags::empty()) {
        Err(Errno::EXIST) if is_same() => Ok(()),
        other => other,
    };
    replace::remove_conflicting(place.parent, place.last, replaced, make)
}

/// Links to the placeholder at an offset, if it is for this target and still there; returns whether it was.
fn link_to_known(links: &Links, at: u64, place: Place<'_>, target: &[u8]) -> sys::Result<bool> {
    let (record, _) = links.get(at)?;
    let Ok((from, last)) = parent_of(place.root, &record.place) else { return Ok(false) };
    if record.target != target || mark(from.fd.as_fd(), &last)? != Some(at) {
        return Ok(false);
    }
    // A link in the place of that very placeholder is the same.
    if mark(place.parent, place.last)? == Some(at) {
        return Ok(true);
    }
    let make = || linkat(&from.fd, &last, place.parent, place.last, AtFlags::empty());
    match replace::remove_conflicting(place.parent, place.last, &mut false, make) {
        // It was in the directory that the link takes the place of.
        Err(err) if err.errno() == Errno::NOENT => Ok(false),
        linked => linked.map(|()| true),
    }
}

fn make_placeholder(place: Place<'_>, at: u64) -> sys::Result<()> {
    let create = || openat(place.parent, place.last, NEW_FILE, Mode::RUSR | Mode::WUSR);
    let file = replace::remove_conflicting(place.parent, place.last, &mut false, create)?;
    fsetxattr(&file, PENDING, &at.to_le_bytes(), XattrFlags::empty())
        .map_err(sys::Error::of(|| format!("fsetxattr({PENDING})")))
}

const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The mark of a file: the offset of a placeholder's record. None for everything else.
fn mark(parent: BorrowedFd<'_>, last: &CString) -> sys::Result<Option<u64>> {
    // Opening a device may have effects.
    let path =
        [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), last.as_bytes()].concat();
    let mut value = [0; 8];
    match lgetxattr(path.as_slice(), PENDING, value.as_mut_slice()) {
        Ok(length) => Ok((length == value.len()).then(|| u64::from_le_bytes(value))),
        Err(Errno::NODATA | Errno::NOENT | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(sys::Error::new(errno, format!("lgetxattr({PENDING})"))),
    }
}

/// The same for the path of a placeholder. Its directory may be gone.
fn find_mark(root: BorrowedFd<'_>, place: &[u8]) -> sys::Result<Option<u64>> {
    let Ok((parent, last)) = parent_of(root, place) else { return Ok(None) };
    mark(parent.fd.as_fd(), &last)
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
    let mut at = 0;
    while at < links.list.end() {
        shift.check().map_err(Error::of_read)?;
        let made = |source| Error::Make { entry: "its hard links".into(), source };
        let (Record { place, .. }, next) = links.get(at).map_err(made)?;
        at = next;
        // Without a mark it was replaced, or has its content by another name.
        let Some(first) = find_mark(root, &place).map_err(made)? else { continue };
        let target = links.get(first).map_err(made)?.0.target;
        let made = |source| Error::Make { entry: shown(&place), source };
        if let Some(found) = below.and_then(|below| find(below, &target).ok()) {
            copying.copy(&found, &place)?;
        } else if !link_to_own(root, &target, &place).map_err(made)? {
            return Err(Error::LinkToNothing { entry: shown(&place), target: shown(&target) });
        }
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
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let into = openat(&parent.fd, &own, flags, Mode::empty());
        let into = File::from(into.map_err(sys::Error::of(|| "openat(WRONLY)")).map_err(made)?);
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
        fremovexattr(&into, PENDING)
            .and_then(|()| apply_metadata(from, &into, &stat))
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

/// Links to a file that the layer itself has behind the link, where no layer below has one; returns whether it does.
fn link_to_own(root: BorrowedFd<'_>, target: &[u8], name: &[u8]) -> sys::Result<bool> {
    let Ok((from, last)) = parent_of(root, target) else { return Ok(false) };
    let is_nothing = replace::is_whiteout(from.fd.as_fd(), &last);
    if is_nothing || mark(from.fd.as_fd(), &last)?.is_some() {
        return Ok(false);
    }
    let (to, own) = parent_of(root, name)?;
    let make = || linkat(&from.fd, &last, &to.fd, &own, AtFlags::empty());
    match replace::replace(to.fd.as_fd(), &own, make) {
        Ok(()) => to.leave().map(|()| true),
        Err(err) if matches!(err.errno(), Errno::NOENT | Errno::PERM) => Ok(false),
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
