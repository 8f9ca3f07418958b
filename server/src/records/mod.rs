// SPDX-License-Identifier: Apache-2.0
//! What the daemon has promised the kubelet, on disk.
//!
//! ```text
//! pods/<pod-id>.json              the pod: its config as asked for, and its state
//! containers/<container-id>.json  likewise
//! plans/<container-id>            what was resolved when it was made: `container::plans`
//! *.new                           a write that was cut short; swept at start
//! *.bad                           a record that could not be used, set aside for a person to see
//! ```
//!
//! A file's name is the id of its record. A record that says another id, a directory, a link or a FIFO in place
//! of a file are set aside like one that cannot be read: what is loaded can be removed by its id.
//!
//! The rule: a record is there before the first thing it stands for, and until after the last. So
//! whatever of ours is on the host has a record, while a record may stand for nothing yet.
//! `recover` lives off that.
//!
//! A file is written whole beside the old one and renamed over it, readable for its owner alone. Only the object's own task
//! writes it, so there are no locks here. No fsync: the directory is on /run, which does not outlive
//! a power cut any more than the processes do.
//!
//! Not here: whether processes run. The monitors know that, and only they.

use hull_sys::files::{read_regular, remove_any};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The version written. Older ones are read as long as they are named in [`Store::load`].
const VERSION: u32 = 1;
/// Longest record that is read, in bytes: a config fits a call's message, and grows as JSON.
const RECORD_BYTES_MAX: u64 = 128 << 20;

/// Why a record could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("write record {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("remove record {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("make directory {}", path.display())]
    MakeDir { path: PathBuf, source: io::Error },
    #[error("list directory {}", path.display())]
    List { path: PathBuf, source: io::Error },
    #[error("put record {} into JSON", path.display())]
    Encode { path: PathBuf, source: serde_json::Error },
}

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Write { path, source } if source.kind() == io::ErrorKind::StorageFull => {
                Some(format!("free some space on the filesystem of {}", path.display()))
            }
            Self::MakeDir { .. } | Self::Write { .. } => Some(
                "set `state_dir` to a directory on a writable filesystem, such as /run/hull".into(),
            ),
            Self::Remove { .. } | Self::List { .. } | Self::Encode { .. } => None,
        }
    }
}

/// A record set aside because it could not be read.
#[derive(Debug)]
pub(crate) struct SetAside {
    pub(crate) path: PathBuf,
    pub(crate) why: String,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    record: T,
}

/// One directory of records.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the directory, makes it when missing, and sweeps writes that were cut short.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, Error> {
        make_dir(&dir)?;
        let store = Self { dir };
        for path in store.files("new")? {
            remove_file(path)?;
        }
        Ok(store)
    }

    /// Writes the record of `id`, whole.
    pub(crate) fn save<T: Serialize>(&self, id: &str, record: &T) -> Result<(), Error> {
        let path = self.path(id);
        let encoded = serde_json::to_vec(&Versioned { version: VERSION, record })
            .map_err(|source| Error::Encode { path: path.clone(), source })?;
        write_whole(&path, &self.dir.join(format!("{id}.new")), &encoded)
    }

    /// Removes the record of `id`; one that is not there counts as removed.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Error> {
        remove_file(self.path(id))
    }

    /// Reads all records. One that cannot be read, or that `name_fits` says is not the one of its file's name, is
    /// set aside, so that it never keeps the daemon down.
    pub(crate) fn load<T: DeserializeOwned>(
        &self,
        name_fits: impl Fn(&str, &T) -> Result<(), String>,
    ) -> Result<(Vec<T>, Vec<SetAside>), Error> {
        let (mut records, mut bad) = (Vec::new(), Vec::new());
        for path in self.files("json")? {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            match read(&path).and_then(|record| name_fits(name, &record).map(|()| record)) {
                Ok(record) => records.push(record),
                Err(why) => bad.push(set_aside(path, why)),
            }
        }
        Ok((records, bad))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn files(&self, extension: &str) -> Result<Vec<PathBuf>, Error> {
        let failed = |source| Error::List { path: self.dir.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|have| have == extension) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let bytes = read_regular(path, RECORD_BYTES_MAX).map_err(|err| err.to_string())?;
    let found: Versioned<T> = serde_json::from_slice(&bytes).map_err(|err| err.to_string())?;
    if found.version > VERSION {
        return Err(format!(
            "it is of version {}, this daemon reads up to {VERSION}; start the newer hull again",
            found.version
        ));
    }
    Ok(found.record)
}

fn set_aside(path: PathBuf, why: String) -> SetAside {
    let aside = path.with_extension("bad");
    // What was set aside before gives way: a directory takes the place of nothing else.
    let moved = fs::rename(&path, &aside)
        .or_else(|_| remove_any(&aside).and_then(|()| fs::rename(&path, &aside)));
    match moved {
        Ok(()) => SetAside { path: aside, why },
        Err(err) => SetAside { path, why: format!("{why}; and it cannot be set aside: {err}") },
    }
}

/// Puts a file in place whole, for its owner alone: written as `new`, which is replaced, then renamed.
pub(crate) fn write_whole(path: &Path, new: &Path, bytes: &[u8]) -> Result<(), Error> {
    let written = || {
        remove_any(new)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(new)?;
        file.write_all(bytes)?;
        fs::rename(new, path)
    };
    written().map_err(|source| {
        // Half of it only takes room that others lack. Should that fail, the next write or start does it.
        let _left = remove_any(new);
        Error::Write { path: path.to_owned(), source }
    })
}

/// Removes a file of ours, or what lies in its place; nothing there counts as removed.
pub(crate) fn remove_file(path: PathBuf) -> Result<(), Error> {
    remove_any(&path).map_err(|source| Error::Remove { path, source })
}

/// Makes a directory that only root may enter, with its parents.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::MakeDir { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_was_saved_is_loaded_and_what_was_removed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("pods")).unwrap();
        store.save("a", &"first").unwrap();
        store.save("a", &"second").unwrap();
        store.save("b", &"other").unwrap();
        store.remove("b").unwrap();
        store.remove("b").unwrap();
        let (records, bad) = store.load::<String>(|_, _| Ok(())).unwrap();
        assert_eq!(records, ["second"]);
        assert!(bad.is_empty());
        let mode = fs::metadata(store.path("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_set_aside_and_the_others_are_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().to_owned()).unwrap();
        store.save("good", &"fine").unwrap();
        fs::write(dir.path().join("torn.json"), b"{\"version\":1,\"rec").unwrap();
        fs::write(dir.path().join("newer.json"), b"{\"version\":99,\"record\":\"x\"}").unwrap();
        fs::write(dir.path().join("half.new"), b"{").unwrap();
        let store = Store::open(dir.path().to_owned()).unwrap();
        let (records, bad) = store.load::<String>(|_, _| Ok(())).unwrap();
        assert_eq!(records, ["fine"]);
        assert_eq!(bad.len(), 2);
        assert!(bad.iter().any(|bad| bad.why.contains("version 99")));
        assert!(dir.path().join("torn.bad").try_exists().unwrap());
        assert!(!dir.path().join("half.new").try_exists().unwrap());
        let (records, bad) = store.load::<String>(|_, _| Ok(())).unwrap();
        assert_eq!((records.len(), bad.len()), (1, 0), "set aside once");
    }

    #[test]
    fn what_lies_in_a_records_place_keeps_nobody_down_and_can_be_replaced() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a.json", "b.json", "c.json", "d.json", "a.new", "d.bad"] {
            fs::create_dir_all(at(name).join("inner")).unwrap();
        }
        for name in ["b.json", "c.json"] {
            remove_any(&at(name)).unwrap();
        }
        mknodat(CWD, at("b.json"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("c.json")).unwrap();
        for _ in 0..2 {
            let store = Store::open(dir.path().to_owned()).unwrap();
            let (records, bad) = store.load::<String>(|_, _| Ok(())).unwrap();
            assert!(records.is_empty());
            assert!(bad.iter().all(|bad| bad.path.extension().unwrap() == "bad"), "{bad:?}");
            fs::create_dir_all(at("d.json/again")).unwrap();
        }
        let store = Store::open(dir.path().to_owned()).unwrap();
        store.save("a", &"fine").unwrap();
        store.save("e", &"another's").unwrap();
        let named = |name: &str, record: &String| match record.as_str() {
            "fine" => Ok(()),
            other => Err(format!("`{name}` holds {other}")),
        };
        let (records, bad) = store.load::<String>(named).unwrap();
        assert_eq!(records, ["fine"]);
        assert!(bad.iter().any(|bad| bad.why == "`e` holds another's"), "{bad:?}");
    }
}
