// SPDX-License-Identifier: Apache-2.0
//! A tar archive into a directory. No link is followed beneath it, also none that was there before; a file is written
//! under a new name and renamed, so that no existing file, device or FIFO is opened.

use super::root::Root;
use super::skipped::Skipped;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod, fstat,
    futimens, linkat, mkdirat, openat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path};
use tar::{Archive, Entry, EntryType, Header};

/// Reads an archive to its end, and returns what was skipped: devices, FIFOs and the like. With `keep`, files get the
/// owners that the archive names; else those of the root of the container, or of the caller on the host.
pub(super) fn unpack(from: impl Read, to: OwnedFd, root: &Root, keep: bool) -> io::Result<Skipped> {
    let mut skipped = Skipped::default();
    let mut archive = Archive::new(from);
    for entry in archive.entries()? {
        let mut entry = entry?;
        // Of the whole archive, such as the commit of `git archive`.
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        let name = |entry: &Entry<'_, _>| {
            entry.path().map(|path| path.display().to_string()).unwrap_or_default()
        };
        if !is_copied(entry.header().entry_type()) {
            skipped.add(name(&entry));
            continue;
        }
        one(&mut entry, to.as_fd(), root, keep)
            .map_err(|err| io::Error::new(err.kind(), format!("{}: {err}", name(&entry))))?;
    }
    Ok(skipped)
}

/// Whether entries of a type are copied.
fn is_copied(kind: EntryType) -> bool {
    is_content(kind) || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()
}

/// Whether entries of a type have the content of a file.
fn is_content(kind: EntryType) -> bool {
    kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse()
}

fn one<R: Read>(
    entry: &mut Entry<'_, R>,
    to: BorrowedFd<'_>,
    root: &Root,
    keep: bool,
) -> io::Result<()> {
    let path = entry.path()?.into_owned();
    let header = entry.header().clone();
    let owner = owner(&header, root, keep)?;
    let Some((parent, name)) = parent(to, &path)? else {
        // The directory itself, whose content is copied.
        return Ok(());
    };
    let parent = parent.as_ref().map_or(to, |parent| parent.as_fd());
    let kind = header.entry_type();
    if kind.is_dir() {
        return directory(parent, &name, &header, owner);
    }
    let temporary = temporary()?;
    let written = if is_content(kind) {
        file(entry, parent, &temporary, &header, (owner, keep))
    } else if kind.is_hard_link() {
        hard_link(entry, to, parent, &temporary)
    } else {
        link(entry, parent, &temporary, owner)
    };
    let renamed =
        written.and_then(|()| renameat(parent, &temporary, parent, &name).map_err(io::Error::from));
    if renamed.is_err() {
        // The first error is the result.
        let _left = unlinkat(parent, &temporary, AtFlags::empty());
    }
    renamed
}

/// Gives a file of the target, which the archive has named before, another name. No link leads to it.
fn hard_link<R: Read>(
    entry: &Entry<'_, R>,
    to: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
) -> io::Result<()> {
    let path = entry.link_name()?.ok_or_else(|| bad("the link has no target"))?.into_owned();
    let (above, last) = names(&path)?;
    let last = last.ok_or_else(|| bad("the target of the link is a directory"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: Option<OwnedFd> = None;
    for name in above {
        let directory = at.as_ref().map_or(to, |at| at.as_fd());
        at = Some(openat(directory, name, flags, Mode::empty())?);
    }
    let directory = at.as_ref().map_or(to, |at| at.as_fd());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let there = openat(directory, last, flags, Mode::empty())?;
    if !FileType::from_raw_mode(fstat(&there)?.st_mode).is_file() {
        return Err(bad("the target of the link is not a file"));
    }
    // Of the name: a link by descriptor needs a capability. What a container puts there meanwhile is its own.
    linkat(directory, last, parent, name, AtFlags::empty())?;
    Ok(())
}

fn link<R: Read>(
    entry: &Entry<'_, R>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let target = entry.link_name()?.ok_or_else(|| bad("the link has no target"))?;
    symlinkat(target.as_ref(), parent, name)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = openat(parent, name, flags, Mode::empty())?;
    // Nobody has put another file there, which would get this owner.
    if !FileType::from_raw_mode(fstat(&link)?.st_mode).is_symlink() {
        return Err(bad("the container replaced the link meanwhile"));
    }
    own(link.as_fd(), owner)
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The directory of an entry, created if it is missing, and the name in it; `None` for the whole.
fn parent(to: BorrowedFd<'_>, path: &Path) -> io::Result<Option<(Option<OwnedFd>, OsString)>> {
    let (above, last) = names(path)?;
    let Some(last) = last else { return Ok(None) };
    let mut at: Option<OwnedFd> = None;
    for name in above {
        let next = subdirectory(at.as_ref().map_or(to, |at| at.as_fd()), name)?;
        at = Some(next);
    }
    Ok(Some((at, last.to_owned())))
}

/// The directories of a path and its last name, which is missing if the path is the whole.
fn names(path: &Path) -> io::Result<(Vec<&OsStr>, Option<&OsStr>)> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(bad("its name leads out of the target"));
            }
        }
    }
    let last = names.pop();
    Ok((names, last))
}

/// Opens a directory, which is created if it is missing. A link is an error.
fn subdirectory(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            Ok(openat(parent, name, flags, Mode::empty())?)
        }
        opened => Ok(opened?),
    }
}

fn directory(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    header: &Header,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let is_new = match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(err) => return Err(err.into()),
    };
    let opened = subdirectory(parent, name)?;
    // A directory that was there stays as it is.
    if is_new {
        own(opened.as_fd(), owner)?;
        fchmod(&opened, Mode::from_raw_mode(header.mode()? & 0o7777))?;
    }
    Ok(())
}

fn file<R: Read>(
    entry: &mut Entry<'_, R>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    header: &Header,
    (owner, keep): (Option<(u32, u32)>, bool),
) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
    io::copy(entry, &mut file)?;
    file.flush()?;
    own(file.as_fd(), owner)?;
    // After the owner: a change of the owner clears the bits of set-user-ID.
    fchmod(&file, Mode::from_raw_mode(header.mode()? & mode_mask(keep)))?;
    let at = Timespec { tv_sec: i64::try_from(header.mtime()?).unwrap_or(0), tv_nsec: 0 };
    Ok(futimens(&file, &Timestamps { last_access: at, last_modification: at })?)
}

/// Set-user-ID and set-group-ID are rights of the owner, and only kept together with it: a file that a user of the
/// container has made would be root's otherwise.
fn mode_mask(keep: bool) -> u32 {
    if keep { 0o7777 } else { 0o777 }
}

fn own(object: BorrowedFd<'_>, owner: Option<(u32, u32)>) -> io::Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(chownat(object, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}

/// The owner on the host; `None` is the caller.
fn owner(header: &Header, root: &Root, keep: bool) -> io::Result<Option<(u32, u32)>> {
    let id = |id: u64| u32::try_from(id).map_err(|_| bad("its owner is not an id"));
    let (uid, gid) = if keep { (id(header.uid()?)?, id(header.gid()?)?) } else { (0, 0) };
    if !keep && root.container.is_none() {
        return Ok(None);
    }
    let outside = root.owners.outside(uid, gid);
    outside
        .map(Some)
        .ok_or_else(|| bad("its owner does not exist in the user namespace of the container"))
}

/// A name that nobody else uses.
fn temporary() -> io::Result<OsString> {
    let mut bytes = [0_u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!(".hull-cp-{}", data_encoding::HEXLOWER.encode(&bytes)).into())
}
