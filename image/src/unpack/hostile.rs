// SPDX-License-Identifier: Apache-2.0
//! Layers that mean harm, or come close to what harms. Needs root.

use super::Error;
use super::tests::{can_run, temp, unpacked, with_pax, within, xattr};
use crate::limits::{Budget, HEADER_BYTES, LAYER_BYTES, LAYER_ENTRIES, Limits, SPARSE_PIECES};
use hull_tests::layer::Layer;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use tar::{EntryType, Header};

/// A header with bytes of the test's own in it.
fn with_header(change: impl FnOnce(&mut Header), data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path("file").unwrap();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    change(&mut header);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, data).unwrap();
    builder.into_inner().unwrap()
}

fn is_beyond(error: &Error, of: &Budget) -> bool {
    matches!(error, Error::Limit { budget, .. } if *budget == of)
}

#[test]
fn an_owner_that_is_no_number_of_the_kernels_is_refused() {
    if !can_run("an_owner_that_is_no_number_of_the_kernels_is_refused") {
        return;
    }
    let dir = temp();
    for (number, uid) in ["4294967295", "4294967296", "18446744073709551615"].iter().enumerate() {
        for key in ["uid", "gid"] {
            let tar = with_pax(&[(key, uid.as_bytes())], EntryType::Regular, "f", b"");
            let root = dir.path().join(format!("{key}{number}"));
            let err = unpacked(&tar, &root).unwrap_err();
            assert!(err.to_string().contains("`f`") && err.is_archives_fault(), "{uid}: {err}");
        }
    }
    // -1 in base 256, as GNU writes large numbers.
    let tar = with_header(|header| header.as_old_mut().uid = [0xff; 8], b"");
    assert!(unpacked(&tar, &dir.path().join("base256")).is_err());
    let root = dir.path().join("largest");
    let tar = with_pax(&[("uid", b"4294967294")], EntryType::Regular, "f", b"");
    unpacked(&tar, &root).unwrap();
    assert_eq!(fs::metadata(root.join("f")).unwrap().uid(), 4_294_967_294);
}

#[test]
fn labels_and_marks_that_are_the_machines_own_are_dropped() {
    if !can_run("labels_and_marks_that_are_the_machines_own_are_dropped") {
        return;
    }
    let dir = temp();
    for name in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "user.overlay.whiteout",
        "user.overlay.origin",
    ] {
        let (mark, own) = (format!("SCHILY.xattr.{name}"), "SCHILY.xattr.user.own");
        for (kind, path) in [(EntryType::Directory, "d"), (EntryType::Regular, "f")] {
            let root = dir.path().join(format!("{name}{path}"));
            let records: [(&str, &[u8]); 3] = [(&mark, b"y"), (&mark, b""), (own, b"kept")];
            unpacked(&with_pax(&records, kind, path, b""), &root).unwrap();
            assert_eq!(xattr(&root.join(path), name), None, "{name}");
            assert_eq!(xattr(&root.join(path), "user.own").as_deref(), Some(&b"kept"[..]));
        }
    }
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.security.selinux", b"system_u:object_r:shadow_t:s0"),
        ("SCHILY.xattr.security.ima", b"x"),
        ("SCHILY.xattr.system.posix_acl_access", b"x"),
    ];
    let root = dir.path().join("dropped");
    unpacked(&with_pax(&records, EntryType::Regular, "f", b""), &root).unwrap();
    for (name, _) in records {
        let name = name.trim_start_matches("SCHILY.xattr.");
        assert_ne!(xattr(&root.join("f"), name).as_deref(), Some(&b"x"[..]), "{name}");
    }
}

#[test]
fn headers_without_measure_are_refused_before_they_are_kept() {
    let dir = temp();
    let long = vec![b'a'; 2 << 20];
    let tar = with_pax(&[("comment", &long)], EntryType::Regular, "f", b"");
    assert!(matches!(unpacked(&tar, &dir.path().join("pax")), Err(Error::Malformed { .. })));
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XGlobalHeader] {
        let tar = with_header(|header| header.set_entry_type(kind), &long);
        let root = dir.path().join(format!("{:?}", kind.as_byte()));
        assert!(matches!(unpacked(&tar, &root), Err(Error::Malformed { .. })), "{kind:?}");
    }
    // It says that it is large, and is not even there.
    let tar = with_header(|header| header.set_size(1 << 40), b"");
    let limits = Limits { bytes: 1 << 30, ..Limits::default() };
    let err = within(limits, &tar, &dir.path().join("size")).unwrap_err();
    assert!(is_beyond(&err, &LAYER_BYTES), "{err}");
    let tar = with_header(|header| header.as_old_mut().size = [0xff; 12], b"");
    assert!(unpacked(&tar, &dir.path().join("negative")).is_err());
}

#[test]
fn of_entries_that_come_again_and_again_the_last_one_is_there() {
    if !can_run("of_entries_that_come_again_and_again_the_last_one_is_there") {
        return;
    }
    let dir = temp();
    let root = dir.path().join("layer");
    let mut layer = Layer::new();
    for number in 0..2000 {
        layer = match number % 4 {
            0 => layer.file("thing", 0o644, number.to_string()),
            1 => layer.symlink("thing", "/etc"),
            2 => layer.dir("thing", 0o755).file("thing/in-it", 0o644, "x"),
            _ => layer.hard_link("thing", "nowhere/at/all"),
        };
    }
    let done = unpacked(&layer.file("thing", 0o600, "last").tar(), &root).unwrap();
    assert!(done.replaced && done.links.is_none(), "links that were replaced wait no more");
    assert_eq!(fs::read(root.join("thing")).unwrap(), b"last");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
}

#[test]
fn devices_are_made_as_they_are_and_never_opened() {
    if !can_run("devices_are_made_as_they_are_and_never_opened") {
        return;
    }
    let dir = temp();
    let root = dir.path().join("layer");
    // Opening the first would hang, the second tell on us, the third rewind a tape.
    let tar = Layer::new()
        .hostile(EntryType::Fifo, "fifo", "", b"")
        .char_device("console", 5, 1)
        .char_device("tape", 9, 0)
        .hostile(EntryType::Fifo, "fifo", "", b"")
        .file("console", 0o644, "a file now")
        .hard_link("tape2", "tape")
        .tar();
    unpacked(&tar, &root).unwrap();
    assert!(fs::symlink_metadata(root.join("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read(root.join("console")).unwrap(), b"a file now");
    assert_eq!(fs::metadata(root.join("tape2")).unwrap().rdev(), 0x900);
}

#[test]
fn names_at_and_beyond_the_kernels_limits_are_taken_or_refused() {
    if !can_run("names_at_and_beyond_the_kernels_limits_are_taken_or_refused") {
        return;
    }
    let dir = temp();
    let deep = "d/".repeat(1900) + "f";
    unpacked(&Layer::new().file(&deep, 0o644, "x").tar(), &dir.path().join("deep")).unwrap();
    files_gone(&dir.path().join("deep"));
    let longest = "n".repeat(255);
    unpacked(&Layer::new().file(&longest, 0o644, "x").tar(), &dir.path().join("long")).unwrap();
    for (number, bad) in ["d/".repeat(2100) + "f", "n".repeat(256)].iter().enumerate() {
        let tar = Layer::new().file(bad, 0o644, "x").tar();
        let err = unpacked(&tar, &dir.path().join(number.to_string())).unwrap_err();
        assert!(matches!(err, Error::Refused { .. }), "{err}");
    }
}

fn files_gone(path: &std::path::Path) {
    hull_sys::remove_tree(path).unwrap();
}

#[test]
fn a_file_that_is_all_hole_takes_no_room_and_one_that_cannot_be_is_an_error() {
    if !can_run("a_file_that_is_all_hole_takes_no_room_and_one_that_cannot_be_is_an_error") {
        return;
    }
    let dir = temp();
    let sparse = |length: &'static [u8]| {
        let records: [(&str, &[u8]); 3] = [
            ("GNU.sparse.size", length),
            ("GNU.sparse.numblocks", b"0"),
            ("GNU.sparse.map", b"0,0"),
        ];
        with_pax(&records, EntryType::Regular, "hole", b"")
    };
    let root = dir.path().join("large");
    unpacked(&sparse(b"1099511627776"), &root).unwrap();
    let stat = fs::metadata(root.join("hole")).unwrap();
    assert_eq!((stat.len(), stat.blocks()), (1 << 40, 0));
    assert!(unpacked(&sparse(b"9223372036854775807"), &dir.path().join("larger")).is_err());
    assert!(unpacked(&sparse(b"18446744073709551615"), &dir.path().join("largest")).is_err());
}

#[test]
fn everything_that_one_entry_brings_counts_together() {
    if !can_run("everything_that_one_entry_brings_counts_together") {
        return;
    }
    let dir = temp();
    let long = vec![b'a'; 700 << 10];
    let record = [b"716816 comment=", long.as_slice(), b"\n"].concat();
    for kind in [EntryType::GNULongName, EntryType::XGlobalHeader, EntryType::XHeader] {
        let body = if kind == EntryType::XGlobalHeader { &record } else { &long };
        let one = with_header(|header| header.set_entry_type(kind), body);
        let many: Vec<u8> = (0..4).flat_map(|_| one[..one.len() - 1024].to_vec()).collect();
        let err = unpacked(&many, &dir.path().join(format!("{:?}", kind.as_byte()))).unwrap_err();
        let is_refused = is_beyond(&err, &HEADER_BYTES) || matches!(err, Error::Malformed { .. });
        assert!(is_refused, "{kind:?}: {err}");
        assert!(kind == EntryType::XHeader || is_beyond(&err, &HEADER_BYTES), "{kind:?}: {err}");
    }
    let pieces: String = (0..SPARSE_PIECES.default + 1).map(|_| "0,0,").collect();
    let records: [(&str, &[u8]); 2] =
        [("GNU.sparse.size", b"10"), ("GNU.sparse.map", pieces.trim_end_matches(',').as_bytes())];
    let tar = with_pax(&records, EntryType::Regular, "f", b"");
    let err = unpacked(&tar, &dir.path().join("pieces")).unwrap_err();
    assert!(is_beyond(&err, &SPARSE_PIECES), "{err}");
}

#[test]
fn directories_that_are_only_implied_count_too() {
    if !can_run("directories_that_are_only_implied_count_too") {
        return;
    }
    let dir = temp();
    let mut layer = Layer::new();
    for number in 0..10 {
        layer = layer.file(&format!("{number}/{}f", "d/".repeat(200)), 0o644, "");
    }
    let limits = Limits { entries: 1000, ..Limits::default() };
    let err = within(limits, &layer.tar(), &dir.path().join("layer")).unwrap_err();
    assert!(is_beyond(&err, &LAYER_ENTRIES), "{err}");
}
