// SPDX-License-Identifier: Apache-2.0
//! Reads and writes the files of cgroup directories.

use crate::error::{Error, is, libc_errno};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, read as read_fd, write as write_fd};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes. `memory.stat` has about 2 KiB.
const BYTES_MAX: u64 = 64 << 10;
/// Buffer size for one read, in bytes; usually the whole file.
const AT_ONCE: usize = 8 << 10;

pub(crate) fn write(dir: &Path, file: &str, value: &str) -> Result<(), Error> {
    write_each(dir, file, std::iter::once(value.to_owned()))
}

/// Writes several values, one per write, to a file that accepts one at a time.
pub(crate) fn write_each(
    dir: &Path,
    file: &str,
    values: impl Iterator<Item = String>,
) -> Result<(), Error> {
    let path = dir.join(file);
    let mut opened = None;
    for value in values {
        let fd = match opened.take() {
            Some(fd) => Ok(fd),
            None => openat(CWD, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()),
        };
        // The kernel never accepts such a value partially.
        let written = fd.and_then(|fd| write_fd(&fd, value.as_bytes()).map(|_| fd));
        match written {
            Ok(fd) => opened = Some(fd),
            Err(errno) => return Err(Error::Write { path, value, source: errno.into() }),
        }
    }
    Ok(())
}

/// Like [`write`], but returns `false` if the file does not exist.
pub(crate) fn write_if_there(dir: &Path, file: &str, value: &str) -> Result<bool, Error> {
    match write(dir, file, value) {
        Ok(()) => Ok(true),
        Err(Error::Write { source, .. }) if is_gone(&source) => Ok(false),
        Err(err) => Err(err),
    }
}

/// Writes files that the kernel checks against each other, in whichever order it accepts them: what it refuses is
/// tried again after the others, for as long as that changes anything. Gives those that do not exist.
pub(crate) fn write_in_any_order<'f>(
    dir: &Path,
    files: &[(&'f str, String)],
) -> Result<Vec<&'f str>, Error> {
    let mut left: Vec<_> = files.iter().collect();
    let mut missing = Vec::new();
    loop {
        let (count, mut refused, mut rest) = (left.len(), None, Vec::new());
        for of in left {
            match write_if_there(dir, of.0, &of.1) {
                Ok(true) => {}
                Ok(false) => missing.push(of.0),
                Err(err) if is_invalid(&err) => {
                    rest.push(of);
                    refused.get_or_insert(err);
                }
                Err(err) => return Err(err),
            }
        }
        match refused {
            None => return Ok(missing),
            Some(err) if rest.len() == count => return Err(err),
            Some(_) => left = rest,
        }
    }
}

/// Whether the kernel refused a value for what it is, or for what another file has.
pub(crate) fn is_invalid(error: &Error) -> bool {
    matches!(error, Error::Write { source, .. } if is(source, libc_errno::EINVAL))
}

pub(crate) fn read(dir: &Path, file: &str) -> Result<String, Error> {
    let path = dir.join(file);
    read_path(&path).map_err(|source| Error::Read { path, source })
}

/// `None` where the kernel has no such file.
pub(crate) fn read_if_there(dir: &Path, file: &str) -> Result<Option<String>, Error> {
    let path = dir.join(file);
    match read_path(&path) {
        Ok(text) => Ok(Some(text)),
        Err(err) if is_gone(&err) || is(&err, libc_errno::EOPNOTSUPP) => Ok(None),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// Not there, or removed between its being opened and this. systemd removes an empty scope by itself,
/// at the same moment as we do.
fn is_gone(error: &io::Error) -> bool {
    is(error, libc_errno::ENOENT) || is(error, libc_errno::ENODEV)
}

fn read_path(path: &Path) -> io::Result<String> {
    read_at(CWD, path)
}

fn read_at(dir: BorrowedFd<'_>, path: &Path) -> io::Result<String> {
    let fd = openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = [0; AT_ONCE];
    let got = read_fd(&fd, &mut bytes)?;
    let mut text = String::from_utf8_lossy(&bytes[..got]).into_owned();
    // The kernel gives all that it has and that fits: only a full buffer leaves a rest.
    if got == AT_ONCE {
        File::from(fd).take(BYTES_MAX).read_to_string(&mut text)?;
    }
    Ok(text)
}

/// A directory of which several files are read: the way to it, most of the work, is walked once.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    pub(crate) fn open(path: PathBuf) -> Result<Self, Error> {
        match Self::at(&path) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(errno) => Err(Error::Read { path, source: errno.into() }),
        }
    }

    /// `None` when it is not there.
    pub(crate) fn open_if_there(path: PathBuf) -> Result<Option<Self>, Error> {
        match Self::at(&path) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::Read { path, source: errno.into() }),
        }
    }

    fn at(path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, path, flags, Mode::empty())
    }

    pub(crate) fn read(&self, file: &str) -> Result<String, Error> {
        self.text(file).map_err(|source| Error::Read { path: self.path.join(file), source })
    }

    /// `None` where the kernel has no such file.
    pub(crate) fn read_if_there(&self, file: &str) -> Result<Option<String>, Error> {
        match self.text(file) {
            Ok(text) => Ok(Some(text)),
            Err(err) if is(&err, libc_errno::ENOENT) || is(&err, libc_errno::EOPNOTSUPP) => {
                Ok(None)
            }
            Err(source) => Err(Error::Read { path: self.path.join(file), source }),
        }
    }

    /// The number in a file; `None` for `max` and where there is no such file.
    pub(crate) fn number(&self, file: &str) -> Result<Option<u64>, Error> {
        Ok(self.read_if_there(file)?.as_deref().and_then(number))
    }

    fn text(&self, file: &str) -> io::Result<String> {
        read_at(self.fd.as_fd(), Path::new(file))
    }
}

/// A number, or `None` for `max`.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of `key` in lines of `key value`.
pub(crate) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

pub(crate) fn mkdir(path: &Path) -> Result<bool, Error> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(Error::Make { path: path.to_owned(), source }),
    }
}

/// Makes `path` below `root`, with those parents of it that are missing. Whether it was not there.
pub(crate) fn mkdir_all(root: &Path, path: &Path) -> Result<bool, Error> {
    match (mkdir(path), path.parent()) {
        (Err(Error::Make { source, .. }), Some(parent))
            if is(&source, libc_errno::ENOENT) && path != root =>
        {
            mkdir_all(root, parent)?;
            mkdir(path)
        }
        (made, _) => made,
    }
}
