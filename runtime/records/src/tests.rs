// SPDX-License-Identifier: Apache-2.0
//! Writes that are cut short or fail, records that cannot be used, and round trips of any record.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

const BYTES_MAX: u64 = 1 << 10;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    version: u32,
    text: String,
    numbers: BTreeMap<String, i64>,
}

fn record(text: &str) -> Record {
    Record { version: 1, text: text.into(), numbers: BTreeMap::new() }
}

fn load(folder: &Folder) -> Loaded<Record> {
    folder.load(1, |_, _| Ok(())).unwrap()
}

fn texts(loaded: &Loaded<Record>) -> Vec<&str> {
    loaded.records.iter().map(|(_, record)| record.text.as_str()).collect()
}

#[test]
fn a_folder_has_what_was_written_last_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path().join("deep/folder"), BYTES_MAX);
    assert!(load(&folder).records.is_empty(), "a missing directory is an empty one");
    folder.remove("a").unwrap();
    folder.write("b", &record("other")).unwrap();
    folder.write("a", &record("first")).unwrap();
    folder.write("a", &record("second")).unwrap();
    assert_eq!(texts(&load(&folder)), ["second", "other"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&folder.file("a")), mode(folder.path())), (0o600, 0o700));
    folder.remove("b").unwrap();
    folder.remove("b").unwrap();
    assert_eq!(texts(&load(&folder)), ["second"]);
}

#[test]
fn a_write_that_is_cut_short_leaves_the_old_record() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path().to_owned(), BYTES_MAX);
    folder.write("a", &record("old")).unwrap();
    // The process ends before the rename: half of the new record is in the scratch file.
    let whole = serde_json::to_vec(&record("new")).unwrap();
    let scratch = dir.path().join("a.new");
    for length in 0..=whole.len() {
        fs::write(&scratch, &whole[..length]).unwrap();
        let loaded = load(&folder);
        assert_eq!((texts(&loaded), loaded.set_aside.len()), (vec!["old"], 0));
    }
    folder.sweep().unwrap();
    assert!(!scratch.try_exists().unwrap());
    // The next write replaces whatever lies there.
    fs::create_dir_all(scratch.join("inner")).unwrap();
    folder.write("a", &record("new")).unwrap();
    assert_eq!(texts(&load(&folder)), ["new"]);
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_scratch_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, scratch) = (dir.path().join("file"), dir.path().join("scratch"));
    let (file, scratch) = (Location::at(&path), Location::at(&scratch));
    for durability in [Durability::Process, Durability::PowerCut] {
        replace(file, scratch, b"old", PRIVATE, durability).unwrap();
        replace(file, scratch, b"new", PRIVATE, durability).unwrap();
        assert_eq!(file.read(3).unwrap(), b"new");
    }
    // A rename cannot replace a directory that is not empty.
    fs::create_dir_all(dir.path().join("directory/inner")).unwrap();
    let directory = dir.path().join("directory");
    let err = replace(Location::at(&directory), scratch, b"x", PRIVATE, Durability::Process);
    let err = err.unwrap_err().to_string();
    assert!(err.starts_with("rename(") && err.contains("directory"), "{err}");
    assert!(directory.join("inner").is_dir());
    assert!(!scratch.path().try_exists().unwrap());
}

#[test]
fn a_newer_version_is_refused_by_name_whatever_else_the_record_has() {
    let newer = br#"{"version": 7, "text": {"now": "an object"}, "numbers": null}"#;
    let err = decode::<Record>(newer, 1).unwrap_err();
    assert_eq!(err.to_string(), "it has version 7, and this hull reads versions up to 1");
    assert!(err.hint().unwrap().contains("newer hull"));
    for bad in [&b"{}"[..], b"[]", b"", br#"{"version":1,"te"#, br#"{"version":-1}"#] {
        assert!(matches!(decode::<Record>(bad, 1), Err(Unusable::Syntax { .. })));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record");
    fs::write(&path, newer).unwrap();
    let err = read_record::<Record>(Location::at(&path), BYTES_MAX, 1).unwrap_err();
    assert_eq!(err.to_string(), format!("read record {}", path.display()));
    assert!(err.hint().is_some() && !err.is_not_found());
    fs::remove_file(&path).unwrap();
    assert!(read_record::<Record>(Location::at(&path), BYTES_MAX, 1).unwrap_err().is_not_found());
}

#[test]
fn what_is_too_long_or_not_a_file_is_set_aside_and_the_others_are_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path().to_owned(), BYTES_MAX);
    folder.write("good", &record("fine")).unwrap();
    folder.write("long", &record(&"x".repeat(usize::try_from(BYTES_MAX).unwrap()))).unwrap();
    folder.write("renamed", &record("of another")).unwrap();
    fs::write(folder.file("newer"), r#"{"version":2}"#).unwrap();
    fs::write(folder.file("torn"), r#"{"version":1,"te"#).unwrap();
    fs::create_dir_all(folder.file("directory").join("inner")).unwrap();
    mknodat(CWD, folder.file("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    symlink("/dev/zero", folder.file("link")).unwrap();
    // What was set aside before gives way, whatever it is.
    fs::create_dir_all(dir.path().join("torn.bad/inner")).unwrap();
    fs::write(dir.path().join("directory.bad"), "").unwrap();
    let check = |name: &str, record: &Record| match (name, record.text.as_str()) {
        ("renamed", text) => Err(format!("it is the record {text}")),
        _ => Ok(()),
    };
    let loaded = folder.load(1, check).unwrap();
    assert_eq!(texts(&loaded), ["fine"]);
    let why: BTreeMap<&str, &str> = (loaded.set_aside.iter())
        .map(|bad| (bad.path.file_name().unwrap().to_str().unwrap(), bad.why.as_str()))
        .collect();
    assert_eq!(why["long.bad"], "it cannot be read: it is larger than 1024 bytes");
    assert_eq!(why["directory.bad"], "it cannot be read: it is not a regular file");
    assert_eq!(why["fifo.bad"], "it cannot be read: it is not a regular file");
    assert_eq!(why["renamed.bad"], "it is the record of another");
    assert!(why["newer.bad"].contains("version 2") && why["newer.bad"].contains("newer hull"));
    assert!(why["link.bad"].starts_with("it cannot be read: ") && why.contains_key("torn.bad"));
    assert_eq!(why.len(), 7);
    let loaded = folder.load(1, check).unwrap();
    assert_eq!((loaded.records.len(), loaded.set_aside.len()), (1, 0), "set aside once");
}

#[test]
fn a_name_in_an_open_directory_stays_in_it_when_the_path_leads_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("container");
    fs::create_dir(&path).unwrap();
    let open = fs::File::open(&path).unwrap();
    fs::rename(&path, dir.path().join("deleted")).unwrap();
    fs::create_dir(&path).unwrap();
    let at = |name| Location::within(std::os::fd::AsFd::as_fd(&open), &path, name);
    let (file, scratch) = (at("record.json"), at("record.new"));
    replace_record(file, scratch, &record("one"), Durability::PowerCut).unwrap();
    assert_eq!(read_record::<Record>(file, BYTES_MAX, 1).unwrap(), record("one"));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    assert_eq!(file.to_string(), format!("{}/record.json", path.display()));
    file.remove().unwrap();
    file.remove().unwrap();
    assert_eq!(fs::read_dir(dir.path().join("deleted")).unwrap().count(), 0);
}

#[test]
fn errors_name_the_operation_and_the_file_and_carry_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let folder = Folder::new(dir.path().join("file"), BYTES_MAX);
    let errors = [
        folder.write("a", &record("x")).unwrap_err(),
        create_dir(&dir.path().join("file/below")).unwrap_err(),
        folder.sweep().unwrap_err(),
        folder.remove("a").unwrap_err(),
    ];
    let operations = ["write record", "create directory", "list directory", "remove record"];
    for (err, operation) in errors.iter().zip(operations) {
        assert!(err.to_string().starts_with(operation), "{err}");
        assert!(err.to_string().contains(dir.path().to_str().unwrap()), "{err}");
        assert!(err.hint().is_some(), "{err}");
    }
    let hint = |errno| {
        let source = hull_sys::Error::new(errno, "write(/x)");
        Error::Write { path: "/x".into(), source }.hint().unwrap()
    };
    assert_eq!(hint(rustix::io::Errno::NOSPC), "free some space on the file system of /x");
    assert!(hint(rustix::io::Errno::DQUOT).contains("quota"));
    assert!(hint(rustix::io::Errno::IO).contains("dmesg"));
    assert!(hint(rustix::io::Errno::ROFS).contains("remount,rw"));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        text in any::<String>(),
        numbers in prop::collection::btree_map(any::<String>(), any::<i64>(), 0..20),
        version in 0..=3_u32,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned(), 1 << 20);
        let written = Record { version, text, numbers };
        folder.write("name", &written).unwrap();
        let loaded = folder.load::<Record>(3, |_, _| Ok(())).unwrap();
        prop_assert_eq!(&loaded.records, &[(folder.file("name"), written)]);
    }

    #[test]
    fn any_bytes_are_read_as_a_record_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(record) = decode::<Record>(&bytes, 1) {
            prop_assert!(record.version <= 1);
        }
    }

    #[test]
    fn a_part_of_a_record_is_refused(text in any::<String>(), cut in any::<prop::sample::Index>()) {
        let whole = serde_json::to_vec(&record(&text)).unwrap();
        decode::<Record>(&whole[..cut.index(whole.len())], 1).unwrap_err();
    }
}
