// SPDX-License-Identifier: Apache-2.0
//! The directories of the containers below `--root`.
//!
//! ```text
//! <root>/<id>/record.json   written whole beside the old one and renamed over it
//!             start         the socket at which it waits to be started; see hull_init::start_socket
//!             filter        its seccomp filter, compiled, for execs
//! <root>/filters@3/         compiled filters by their profile; no id has an `@`
//! ```
//!
//! The rule: the directory is there before anything that it stands for, and until after the last of
//! it. Making it is what takes an id.

use crate::error::{Error, Result};
use crate::record::{Record, VERSION};
use hull_records::{Durability, Location, PRIVATE};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const RECORD: &str = "record.json";
const RECORD_NEW: &str = "record.new";
const FILTER: &str = "filter";
/// Longest id: a file name of most file systems, with room for what others put to it.
const ID_BYTES_MAX: usize = 200;
/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 16 << 20;

/// Checks an id: a file name, and a cgroup's.
pub(crate) fn checked(id: &str) -> Result<&str> {
    let bad = |why| Err(Error::BadId { id: id.chars().take(ID_BYTES_MAX).collect(), why });
    match id {
        "" => bad("it is empty"),
        "." | ".." => bad("it is not a name"),
        _ if id.len() > ID_BYTES_MAX => bad("it has more than 200 characters"),
        _ if !id.chars().all(|c| c.is_ascii_alphanumeric() || "_+-.".contains(c)) => {
            bad("it may have letters, digits, `_`, `+`, `-` and `.`")
        }
        _ => Ok(id),
    }
}

/// One container's directory.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    fd: OwnedFd,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Creates the directory of a new container.
    pub(crate) fn create(root: &Path, id: &str) -> Result<Self> {
        let path = root.join(checked(id)?);
        let make = || mkdirat(CWD, &path, Mode::RWXU);
        let made = match make() {
            Err(Errno::NOENT) => {
                make_root(root)?;
                make()
            }
            other => other,
        };
        match made {
            Ok(()) => Self::open_path(path, id),
            Err(Errno::EXIST) => Err(Error::Exists { id: id.into() }),
            Err(errno) => Err(Error::of(|| format!("mkdir({})", path.display()))(errno)),
        }
    }

    /// The one of a container that is there.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Self> {
        Self::open_path(root.join(checked(id)?), id)
    }

    fn open_path(path: PathBuf, id: &str) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(CWD, &path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { path, fd }),
            Err(Errno::NOENT) => Err(Error::NoContainer { id: id.into() }),
            Err(errno) => Err(Error::of(|| format!("open({})", path.display()))(errno)),
        }
    }

    /// Waits until no other command changes this container; until the directory is closed no other
    /// does.
    pub(crate) fn lock(&self) -> Result<()> {
        flock(&self.fd, FlockOperation::LockExclusive)
            .map_err(Error::of(|| format!("flock({})", self.path.display())))
    }

    /// `None` when the create that made the directory got no further.
    pub(crate) fn record(&self) -> Result<Option<Record>> {
        match hull_records::read_record(self.file(RECORD), BYTES_MAX, VERSION) {
            Ok(record) => Ok(Some(record)),
            Err(err) if err.is_not_found() => Ok(None),
            Err(source) => Err(Error::Record { source }),
        }
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        let (file, scratch) = (self.file(RECORD), self.file(RECORD_NEW));
        hull_records::replace_record(file, scratch, record, Durability::Process)
            .map_err(|source| Error::Record { source })
    }

    /// The compiled seccomp filter for execs, if the container has one.
    pub(crate) fn filter(&self) -> Result<Option<Vec<u8>>> {
        match self.file(FILTER).read(BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(err) if err.is_not_found() => Ok(None),
            Err(source) => {
                let path = self.path.join(FILTER);
                Err(Error::Record { source: hull_records::Error::Read { path, source } })
            }
        }
    }

    pub(crate) fn write_filter(&self, bytes: &[u8]) -> Result<()> {
        let file = self.file(FILTER);
        file.remove()
            .and_then(|()| hull_records::write_new(file, bytes, PRIVATE))
            .map(drop)
            .map_err(Error::call)
    }

    fn file<'a>(&'a self, name: &'a str) -> Location<'a> {
        Location::within(self.fd.as_fd(), &self.path, name)
    }

    /// Removes the start socket, once the container was started.
    pub(crate) fn remove_start_socket(&self) -> Result<()> {
        self.remove_file(hull_init::start_socket::NAME)
    }

    fn remove_file(&self, name: &str) -> Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => {
                Err(Error::of(|| format!("unlink({}/{name})", self.path.display()))(errno))
            }
        }
    }

    /// Gives the id back. The record goes last, so that a removal that was cut short can be done again.
    pub(crate) fn remove(&self) -> Result<()> {
        for name in [hull_init::start_socket::NAME, FILTER, RECORD_NEW, RECORD] {
            self.remove_file(name)?;
        }
        match unlinkat(CWD, &self.path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::of(|| format!("rmdir({})", self.path.display()))(errno)),
        }
    }
}

/// Creates a directory that only root may enter, with its parents.
pub(crate) fn make_root(root: &Path) -> Result<()> {
    hull_records::create_dir(root).map_err(|source| Error::Record { source })
}

/// The ids below a root, sorted. One that is not there has none, unless it `must_exist`.
pub(crate) fn ids(root: &Path, must_exist: bool) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(Vec::new());
        }
        Err(err) => {
            let call = || format!("readdir({})", root.display());
            return Err(Error::call(hull_sys::Error::of_io(call)(err)));
        }
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut ids: Vec<String> = names.filter(|name| checked(name).is_ok()).collect();
    ids.sort();
    Ok(ids)
}

/// Reads a file that the caller names.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let failed = hull_sys::Error::of_io(|| format!("read({})", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes))
        .map(|_| bytes)
        .map_err(|err| Error::call(failed(err)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_file_name_and_nothing_else() {
        for good in ["a", "web-1", "A.b_c+d", &"x".repeat(ID_BYTES_MAX)] {
            checked(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "filters@3", &"x".repeat(ID_BYTES_MAX + 1)] {
            checked(bad).unwrap_err();
        }
    }

    #[test]
    fn an_id_is_taken_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::create(&root.path().join("deep"), "one").unwrap();
        let again = Dir::create(&root.path().join("deep"), "one").unwrap_err();
        assert!(again.to_string().contains("already exists"), "{again}");
        assert!(dir.record().unwrap().is_none());
        dir.remove().unwrap();
        dir.remove().unwrap();
        assert!(ids(&root.path().join("deep"), true).unwrap().is_empty());
        assert!(ids(&root.path().join("none"), false).unwrap().is_empty());
        ids(&root.path().join("none"), true).unwrap_err();
    }

    #[test]
    fn a_record_that_cannot_be_used_is_refused_with_the_reason() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::create(root.path(), "one").unwrap();
        let path = root.path().join("one").join(RECORD);
        let reason = || {
            let err = dir.record().unwrap_err();
            let hint = err.hint();
            let Error::Record { source } = err else { panic!("{err}") };
            (format!("{source}: {}", std::error::Error::source(&source).unwrap()), hint)
        };
        std::fs::write(&path, r#"{"version": 9, "id": {}}"#).unwrap();
        let (text, hint) = reason();
        assert!(text.contains("record.json") && text.contains("version 9"), "{text}");
        assert!(hint.unwrap().contains("newer hull"));
        std::fs::write(&path, vec![b' '; usize::try_from(BYTES_MAX).unwrap() + 1]).unwrap();
        assert!(reason().0.contains("larger than"), "{}", reason().0);
        std::fs::remove_file(&path).unwrap();
        assert!(dir.record().unwrap().is_none());
        assert!(dir.filter().unwrap().is_none());
        dir.write_filter(b"one").unwrap();
        dir.write_filter(b"two").unwrap();
        assert_eq!(dir.filter().unwrap().as_deref(), Some(&b"two"[..]));
        dir.remove().unwrap();
    }
}
