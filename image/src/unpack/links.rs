// SPDX-License-Identifier: Apache-2.0
//! Hard links to files that a layer below has.
//!
//! A layer is unpacked without those below it, so such a link is pending until they are stored. Until then an empty
//! file with a mark takes its place. Entries after it replace that file, link to it or remove it with its directory, as
//! they would the link itself. At last `copy_up` gives each such file that is left the content from below.
//!
//! The rule: what comes later in the archive never changes what a link names, as with tar.

use super::entry::{Entry, Kind};
use super::error::{Error, charge, shown};
use super::{names, parents, replace};
use crate::fs::files;
use crate::fs::spill::Spill;
use crate::limits::WAITING_LINKS;
use hull_sys as sys;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timestamps, XattrFlags, fsetxattr, fstat,
    futimens, lgetxattr, linkat, openat, statat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CString;
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// The mark of a placeholder: the offset of its record, little-endian. No archive can set such an attribute.
pub(super) const PENDING: &str = "trusted.hull.pending";

/// The pending links of a layer, in the order of the archive, on disk.
#[derive(Debug)]
pub(crate) struct Links {
    list: Spill,
    count: u64,
}

/// A pending link: where its placeholder was made, without symlinks, and what it names in the layers below.
pub(super) struct Record {
    pub(super) place: Vec<u8>,
    pub(super) target: Vec<u8>,
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

    /// The offset after the last link.
    pub(super) fn end(&self) -> u64 {
        self.list.end()
    }

    /// The link at an offset, and the offset of the next.
    pub(super) fn get(&self, at: u64) -> sys::Result<(Record, u64)> {
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

/// Refuses a link to `target`, of which `stat` is what the layer has there, if no file system could have it.
pub(super) fn refuse_impossible(
    name: &[u8],
    target: &[u8],
    stat: Option<&Stat>,
) -> Result<(), Error> {
    let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
    let is_below = name.strip_prefix(target).is_some_and(|rest| rest.starts_with(b"/"));
    if is_below && kind != Some(FileType::Symlink) {
        let why = format!("as a hard link, it is below its own target `{}`", shown(target));
        return Err(Error::Refused { entry: shown(name), why });
    }
    if kind == Some(FileType::Directory) {
        return Err(directory_as_target(name, target));
    }
    Ok(())
}

pub(super) fn directory_as_target(name: &[u8], target: &[u8]) -> Error {
    let why = format!("as a hard link, its target `{}` is a directory", shown(target));
    Error::Refused { entry: shown(name), why }
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
pub(super) fn mark(parent: BorrowedFd<'_>, last: &CString) -> sys::Result<Option<u64>> {
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
pub(super) fn find_mark(root: BorrowedFd<'_>, place: &[u8]) -> sys::Result<Option<u64>> {
    let Ok((parent, last)) = parent_of(root, place) else { return Ok(None) };
    mark(parent.fd.as_fd(), &last)
}

pub(super) fn beneath(root: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let name = if name.is_empty() { b".".as_slice() } else { name };
    sys::open_in_root(root, name, flags, ResolveFlags::empty())
}

/// A directory in which a file is created, and its times before that.
pub(super) struct Parent {
    pub(super) fd: OwnedFd,
    times: Timestamps,
}

impl Parent {
    pub(super) fn leave(&self) -> sys::Result<()> {
        futimens(&self.fd, &self.times).map_err(sys::Error::of(|| "futimens()"))
    }
}

pub(super) fn parent_of(root: BorrowedFd<'_>, name: &[u8]) -> sys::Result<(Parent, CString)> {
    let (above, last) = names::split(name);
    let failed = |errno| sys::Error::new(errno, format!("openat2({})", shown(above)));
    let fd = beneath(root, above, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    let times = files::modified(&fstat(&fd).map_err(failed)?);
    let last = CString::new(last).map_err(|_| sys::Error::new(Errno::INVAL, "openat2(NUL)"))?;
    Ok((Parent { fd, times }, last))
}
