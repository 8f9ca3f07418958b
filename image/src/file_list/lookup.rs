// SPDX-License-Identifier: Apache-2.0
//! Looks up the entries of a file list beneath a layer's descriptor, and checks type and size.

use super::item::NodeKind;
use crate::unpack::split;
use hull_sys as sys;
use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Looks up paths beneath a descriptor, and caches the parent directory of the last one.
pub(super) struct Lookup<'a> {
    root: BorrowedFd<'a>,
    parent: Option<Parent>,
}

struct Parent {
    path: Vec<u8>,
    fd: OwnedFd,
    inode: u64,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, parent: None }
    }

    /// The parent directory of `path`, and its last component.
    pub(super) fn parent_of(&mut self, path: &[u8]) -> Result<(BorrowedFd<'_>, CString), Errno> {
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

    /// Identifies a file by the inode of its parent directory and its name, whichever symlinks its path
    /// goes through.
    pub(super) fn identity(&mut self, path: &[u8]) -> Result<(u64, CString), Errno> {
        let (_, last) = self.parent_of(path)?;
        Ok((self.parent.as_ref().map_or(0, |parent| parent.inode), last))
    }

    pub(super) fn stat(&mut self, path: &[u8]) -> Result<Stat, Errno> {
        let (parent, last) = self.parent_of(path)?;
        statat(parent, &last, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Checks presence, type and size. The error says what is wrong.
    pub(super) fn check_shape(&mut self, path: &[u8], kind: &NodeKind) -> Result<Stat, String> {
        let stat = self.stat(path).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => "it is missing".to_owned(),
            errno => format!("fstatat fails: {errno}"),
        })?;
        let found = FileType::from_raw_mode(stat.st_mode);
        let wanted = match kind {
            NodeKind::File { .. } | NodeKind::Sparse { .. } | NodeKind::Link(_) => {
                FileType::RegularFile
            }
            NodeKind::Directory => FileType::Directory,
            NodeKind::Symlink(_) => FileType::Symlink,
            NodeKind::Char(..) | NodeKind::Whiteout => FileType::CharacterDevice,
            NodeKind::Block(..) => FileType::BlockDevice,
            NodeKind::Fifo => FileType::Fifo,
        };
        // A hard link may be one to anything.
        if found != wanted && !matches!(kind, NodeKind::Link(_)) {
            return Err(format!("it should be {wanted:?} and is {found:?}"));
        }
        match kind {
            NodeKind::File { size, .. } | NodeKind::Sparse { length: size, .. } => {
                check_size(*size, u64::try_from(stat.st_size).unwrap_or(0))?;
            }
            NodeKind::Char(major, minor) | NodeKind::Block(major, minor)
                if stat.st_rdev != rustix::fs::makedev(*major, *minor) =>
            {
                return Err("it is another device".into());
            }
            NodeKind::Whiteout if stat.st_rdev != 0 => return Err("it is another device".into()),
            NodeKind::Symlink(target) => self.check_target(path, target)?,
            NodeKind::Directory
            | NodeKind::Fifo
            | NodeKind::Link(_)
            | NodeKind::Char(..)
            | NodeKind::Block(..)
            | NodeKind::Whiteout => {}
        }
        Ok(stat)
    }

    fn check_target(&mut self, path: &[u8], target: &[u8]) -> Result<(), String> {
        let (parent, last) = self.parent_of(path).map_err(|errno| errno.to_string())?;
        match readlinkat(parent, &last, Vec::new()) {
            Ok(found) if found.as_bytes() == target => Ok(()),
            Ok(_) => Err("it leads elsewhere".into()),
            Err(errno) => Err(format!("it cannot be read: {errno}")),
        }
    }
}

fn check_size(want: u64, got: u64) -> Result<(), String> {
    if want == got {
        return Ok(());
    }
    Err(format!("it should have {want} bytes and has {got}"))
}
