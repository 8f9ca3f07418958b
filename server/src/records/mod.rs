// SPDX-License-Identifier: Apache-2.0
//! The records of pods and containers on disk: what the daemon has promised the kubelet.
//!
//! ```text
//! pods/<pod-id>.json              the pod: its config as asked for, and its state
//! containers/<container-id>.json  the container: the same
//! plans/<container-id>            what was resolved when it was made: `container::plans`
//! bundles/<container-id>/         its hooks, if it has any: `container::hooks`
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
//! A file is replaced as a whole and readable for its owner alone: see [`hull_records::Folder`]. Only the object's own
//! task writes it, so there are no locks here. No fsync: the directory is on /run, which does not survive a power cut,
//! as the processes do not.
//!
//! Not here: whether processes run. The monitors know that, and only they.

pub(crate) use hull_records::{Error, SetAside, create_dir};

use hull_records::{Folder, Loaded};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
/// Longest record that is read, in bytes: a config fits a call's message, and grows as JSON.
const RECORD_BYTES_MAX: u64 = 128 << 20;

/// The document in a file.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    record: T,
}

/// One directory of records.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    folder: Folder,
}

impl Store {
    /// Opens the directory, creates it if it is missing, and sweeps writes that were cut short.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, Error> {
        create_dir(&dir)?;
        let folder = Folder::new(dir, RECORD_BYTES_MAX);
        folder.sweep()?;
        Ok(Self { folder })
    }

    /// Replaces the record of `id` as a whole.
    pub(crate) fn save<T: Serialize>(&self, id: &str, record: &T) -> Result<(), Error> {
        self.folder.write(id, &Versioned { version: VERSION, record })
    }

    /// Removes the record of `id`; a missing one counts as removed.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Error> {
        self.folder.remove(id)
    }

    /// Reads all records. One that cannot be read, or that `name_fits` says is not the one of its file's name, is
    /// set aside, so that it never keeps the daemon from starting.
    pub(crate) fn load<T: DeserializeOwned>(
        &self,
        name_fits: impl Fn(&str, &T) -> Result<(), String>,
    ) -> Result<(Vec<T>, Vec<SetAside>), Error> {
        let check = |name: &str, of: &Versioned<T>| name_fits(name, &of.record);
        let Loaded { records, set_aside } = self.folder.load(VERSION, check)?;
        Ok((records.into_iter().map(|(_, of)| of.record).collect(), set_aside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_sys::remove_tree;
    use std::fs;
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
        let mode = fs::metadata(store.folder.file("a")).unwrap().permissions().mode();
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
            remove_tree(&at(name)).unwrap();
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
