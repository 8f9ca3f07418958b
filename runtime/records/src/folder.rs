// SPDX-License-Identifier: Apache-2.0
//! A directory with one record per file.
//!
//! ```text
//! <folder>/<name>.json   the record
//!          *.new         a write that was cut short; removed by the next one, or by `sweep`
//!          *.bad         a record that cannot be used; set aside for a person to see
//! ```
//!
//! No locks: a record has one writer.

use crate::error::{Error, Unusable};
use crate::json::{decode, encode};
use crate::location::Location;
use crate::replace::{Durability, PRIVATE, replace};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// A directory of records that need not survive a power cut.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    bytes_max: u64,
}

/// The records of a folder.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The usable records with their paths, sorted by path.
    pub records: Vec<(PathBuf, T)>,
    /// The other ones.
    pub set_aside: Vec<SetAside>,
}

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The path where it is now: a new one, or the old one if it could not be renamed.
    pub path: PathBuf,
    /// The reason, a clause about the record.
    pub why: String,
}

impl Folder {
    /// The folder at `path`, which need not exist yet. Records of more than `bytes_max` bytes are not read.
    #[must_use]
    pub fn new(path: PathBuf, bytes_max: u64) -> Self {
        Self { path, bytes_max }
    }

    /// The path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the record with this name.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.json"))
    }

    /// Replaces the record with this name as a whole, and creates the directory if it is missing.
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::CreateDir`] or [`Error::Write`]; the file then has its old content.
    pub fn write<T: Serialize>(&self, name: &str, record: &T) -> Result<(), Error> {
        let (path, scratch) = (self.file(name), self.path.join(format!("{name}.new")));
        let (file, scratch) = (Location::at(&path), Location::at(&scratch));
        let bytes = encode(record, file)?;
        let write = || replace(file, scratch, &bytes, PRIVATE, Durability::Process);
        let written = match write() {
            // The first record, or somebody removed the directory.
            Err(err) if err.is_not_found() => {
                create_dir(&self.path)?;
                write()
            }
            other => other,
        };
        written.map_err(|source| Error::Write { path: path.clone(), source })
    }

    /// Removes the record with this name. A missing one counts as removed.
    ///
    /// # Errors
    /// [`Error::Remove`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.file(name);
        Location::at(&path).remove().map_err(|source| Error::Remove { path: path.clone(), source })
    }

    /// Removes the directory, unless it has files or does not exist.
    ///
    /// # Errors
    /// [`Error::Remove`].
    pub fn remove_empty(&self) -> Result<(), Error> {
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(errno) => {
                let source = hull_sys::Error::new(errno, format!("rmdir({})", self.path.display()));
                Err(Error::Remove { path: self.path.clone(), source })
            }
        }
    }

    /// Removes writes that were cut short.
    ///
    /// # Errors
    /// [`Error::List`] or [`Error::Remove`].
    pub fn sweep(&self) -> Result<(), Error> {
        for path in self.files("new")? {
            let removed = Location::at(&path).remove();
            removed.map_err(|source| Error::Remove { path: path.clone(), source })?;
        }
        Ok(())
    }

    /// Reads all records, and sets aside those that cannot be used: unreadable ones, those with a version above
    /// `newest`, and those that `check`, which gets the file's name without its end, refuses. A missing directory
    /// is an empty one.
    ///
    /// # Errors
    /// [`Error::List`].
    pub fn load<T: DeserializeOwned>(
        &self,
        newest: u32,
        check: impl Fn(&str, &T) -> Result<(), String>,
    ) -> Result<Loaded<T>, Error> {
        let mut loaded = Loaded { records: Vec::new(), set_aside: Vec::new() };
        for path in self.files("json")? {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let read = Location::at(&path).read(self.bytes_max);
            let record = read.and_then(|bytes| decode::<T>(&bytes, newest)).and_then(|record| {
                check(name, &record).map(|()| record).map_err(|why| Unusable::Content { why })
            });
            match record {
                Ok(record) => loaded.records.push((path, record)),
                Err(err) => loaded.set_aside.push(self.set_aside(&path, &err)),
            }
        }
        Ok(loaded)
    }

    /// Sets a record of the folder aside as `*.bad`.
    pub fn set_aside(&self, path: &Path, why: &Unusable) -> SetAside {
        set_aside(path, &path.with_extension("bad"), why)
    }

    /// The files whose name ends so, sorted.
    fn files(&self, extension: &str) -> Result<Vec<PathBuf>, Error> {
        let failed = |source| Error::List { path: self.path.clone(), source };
        let entries = match fs::read_dir(&self.path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|have| have == extension) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Renames a record that cannot be used to `aside`, which is replaced whatever it is.
pub fn set_aside(path: &Path, aside: &Path, why: &Unusable) -> SetAside {
    let (from, to) = (Location::at(path), Location::at(aside));
    // A rename replaces a file, but neither a directory, nor anything with a directory.
    let moved = from.rename_to(&to).or_else(|_| to.remove().and_then(|()| from.rename_to(&to)));
    let why = match why.hint() {
        Some(hint) => format!("{why}; {hint}"),
        None => why.to_string(),
    };
    match moved {
        Ok(()) => SetAside { path: aside.to_owned(), why },
        Err(err) => SetAside {
            path: path.to_owned(),
            why: format!("{why}; and it cannot be set aside: {err}"),
        },
    }
}

/// Creates a directory that only its owner may enter, with its parents. An existing one is left as it is.
///
/// # Errors
/// [`Error::CreateDir`].
pub fn create_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::CreateDir { path: path.to_owned(), source })
}
