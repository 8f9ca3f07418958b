// SPDX-License-Identifier: Apache-2.0
//! Where a file is, to open and to name it.

use crate::error::Unusable;
use hull_sys::files::read_opened;
use hull_sys::{Error, Result, remove_tree, remove_tree_at};
use rustix::fs::{CWD, Mode, OFlags, fsync, open, openat};
use rustix::io::Errno;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A file of Hull's own: a path, or a name in an open directory.
///
/// The open directory matters where its path may lead to another directory a moment later, as the path of a deleted
/// container does when its id is used again.
#[derive(Debug, Clone, Copy)]
pub struct Location<'a> {
    directory: BorrowedFd<'a>,
    /// The directory in messages; `None` if `name` is a path.
    directory_path: Option<&'a Path>,
    name: &'a Path,
}

impl<'a> Location<'a> {
    /// A file by its path.
    #[must_use]
    pub fn at(path: &'a Path) -> Self {
        Self { directory: CWD, directory_path: None, name: path }
    }

    /// The file `name` in an open directory, whose path is shown in messages.
    #[must_use]
    pub fn within(directory: BorrowedFd<'a>, directory_path: &'a Path, name: &'a str) -> Self {
        Self { directory, directory_path: Some(directory_path), name: Path::new(name) }
    }

    /// The path of the file, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory_path.map_or_else(|| self.name.to_owned(), |of| of.join(self.name))
    }

    /// Reads a regular file of at most `bytes_max` bytes. Follows no link, and does not wait for a writer of a FIFO.
    ///
    /// # Errors
    /// [`Unusable::Read`]: the error of the kernel; or the file is longer, or is not a regular file.
    pub fn read(&self, bytes_max: u64) -> std::result::Result<Vec<u8>, Unusable> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(self.directory, self.name, flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|file| read_opened(file, bytes_max))
            .map_err(|cause| Unusable::Read { cause })
    }

    /// Removes the file, or whatever lies in its place. A missing file counts as removed.
    ///
    /// # Errors
    /// The system call that failed.
    pub fn remove(&self) -> Result<()> {
        if self.directory_path.is_none() {
            return remove_tree(self.name);
        }
        let name = CString::new(self.name.as_os_str().as_encoded_bytes())
            .map_err(|_| Error::new(Errno::INVAL, format!("unlink({self})")))?;
        remove_tree_at(self.directory, &name)
    }

    pub(crate) fn create(&self, mode: u32) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(self.directory, self.name, flags, Mode::from_raw_mode(mode))
            .map_err(Error::of(|| format!("open({self}, CREATE)")))
    }

    pub(crate) fn rename_to(&self, to: &Location<'_>) -> Result<()> {
        rustix::fs::renameat(self.directory, self.name, to.directory, to.name)
            .map_err(Error::of(|| format!("rename({self}, {to})")))
    }

    /// Syncs the directory that has the file.
    pub(crate) fn sync_names(&self) -> Result<()> {
        if self.directory_path.is_none() {
            return self.name.parent().map_or(Ok(()), sync_dir);
        }
        fsync(self.directory).map_err(Error::of(|| format!("fsync(the directory of {self})")))
    }
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.directory_path {
            Some(directory) => write!(f, "{}/{}", directory.display(), self.name.display()),
            None => write!(f, "{}", self.name.display()),
        }
    }
}

/// Syncs a directory. Without this a power cut can lose a new name, until the file system writes its journal some
/// seconds later.
///
/// # Errors
/// The system call that failed.
pub fn sync_dir(directory: &Path) -> Result<()> {
    let shown = directory.display();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd =
        open(directory, flags, Mode::empty()).map_err(Error::of(|| format!("open({shown})")))?;
    fsync(&fd).map_err(Error::of(|| format!("fsync({shown})")))
}
