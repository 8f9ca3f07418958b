// SPDX-License-Identifier: Apache-2.0
//! Whether everything of an inventory is there, of its type and size. No content is read: about two
//! microseconds per file, so that a layer can be looked through before it is first used after a boot.
//!
//! That finds what power cuts leave: files that are missing, empty or cut. It does not find bytes, modes
//! or owners that were altered, nor what was added; [`verify`](super::verify()) does.

use super::item::{Item, What};
use super::read::Reader;
use super::verify::{Finding, Flaw};
use crate::unpack::split;
use hull_sys as sys;
use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Finds the first thing that is not as it should be.
pub(crate) fn look(root: BorrowedFd<'_>, items: Reader) -> io::Result<Option<Finding>> {
    let mut places = Places::new(root);
    for item in items {
        let Item::Entry { path, what, .. } = item? else { continue };
        if let Err(why) = places.shape(&path, &what) {
            return Ok(Some(Finding { path, why, flaw: Flaw::Content }));
        }
    }
    Ok(None)
}

/// Finds things beneath a descriptor. Most lie in the directory of the one before.
pub(super) struct Places<'a> {
    root: BorrowedFd<'a>,
    parent: Option<Parent>,
}

struct Parent {
    path: Vec<u8>,
    fd: OwnedFd,
    inode: u64,
}

impl<'a> Places<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, parent: None }
    }

    /// The directory that `path` lies in, and its last part.
    pub(super) fn place(&mut self, path: &[u8]) -> Result<(BorrowedFd<'_>, CString), Errno> {
        let (above, last) = split(path);
        let last = if last.is_empty() { b".".as_slice() } else { last };
        let last = CString::new(last).map_err(|_| Errno::INVAL)?;
        if self.parent.as_ref().is_none_or(|known| known.path != above) {
            let name = if above.is_empty() { b".".as_slice() } else { above };
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let fd = sys::open_in_root(self.root, name, flags, ResolveFlags::NO_XDEV)?;
            let inode = fstat(&fd)?.st_ino;
            self.parent = Some(Parent { path: above.to_vec(), fd, inode });
        }
        let parent = self.parent.as_ref().map_or(self.root, |parent| parent.fd.as_fd());
        Ok((parent, last))
    }

    /// What names a place however it was come to, over links too: the directory that it really is in, and its
    /// name there.
    pub(super) fn really(&mut self, path: &[u8]) -> Result<(u64, CString), Errno> {
        let (_, last) = self.place(path)?;
        Ok((self.parent.as_ref().map_or(0, |parent| parent.inode), last))
    }

    pub(super) fn stat(&mut self, path: &[u8]) -> Result<Stat, Errno> {
        let (parent, last) = self.place(path)?;
        statat(parent, &last, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether it is there, of its type and size; else what is wrong, in words.
    pub(super) fn shape(&mut self, path: &[u8], what: &What) -> Result<Stat, String> {
        let stat = self.stat(path).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => "it is missing".to_owned(),
            errno => format!("it cannot be looked at: {errno}"),
        })?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let wanted = match what {
            What::File { .. } | What::Sparse { .. } | What::Link(_) => FileType::RegularFile,
            What::Directory => FileType::Directory,
            What::Symlink(_) => FileType::Symlink,
            What::Char(..) | What::Whiteout => FileType::CharacterDevice,
            What::Block(..) => FileType::BlockDevice,
            What::Fifo => FileType::Fifo,
        };
        // A hard link may be one to anything.
        if kind != wanted && !matches!(what, What::Link(_)) {
            return Err(format!("it should be {wanted:?} and is {kind:?}"));
        }
        match what {
            What::File { size, .. } | What::Sparse { length: size, .. } => {
                sized(*size, u64::try_from(stat.st_size).unwrap_or(0))?;
            }
            What::Char(major, minor) | What::Block(major, minor)
                if stat.st_rdev != rustix::fs::makedev(*major, *minor) =>
            {
                return Err("it is another device".into());
            }
            What::Whiteout if stat.st_rdev != 0 => return Err("it is another device".into()),
            What::Symlink(target) => self.leads_to(path, target)?,
            What::Directory
            | What::Fifo
            | What::Link(_)
            | What::Char(..)
            | What::Block(..)
            | What::Whiteout => {}
        }
        Ok(stat)
    }

    fn leads_to(&mut self, path: &[u8], target: &[u8]) -> Result<(), String> {
        let (parent, last) = self.place(path).map_err(|errno| errno.to_string())?;
        match readlinkat(parent, &last, Vec::new()) {
            Ok(found) if found.as_bytes() == target => Ok(()),
            Ok(_) => Err("it leads elsewhere".into()),
            Err(errno) => Err(format!("it cannot be read: {errno}")),
        }
    }
}

fn sized(want: u64, got: u64) -> Result<(), String> {
    if want == got {
        return Ok(());
    }
    Err(format!("it should have {want} bytes and has {got}"))
}
