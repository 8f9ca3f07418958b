// SPDX-License-Identifier: Apache-2.0
//! Layers unpacked on a real filesystem, good ones and hostile ones. Needs root.

use super::{Error, Unpacked, copy_up, unpack};
use crate::file_list::Writer;
use crate::fs::files;
use crate::limits::{LAYER_BYTES, Limits, Work};
use crate::view;
use hull_tests::layer::Layer;
use hull_tests::paths::cannot_run;
use proptest::prelude::*;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tar::EntryType;

pub(super) fn can_run(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        cannot_run(test, "root, for devices and owners");
    }
    is_root
}

pub(super) fn unpacked(tar: &[u8], into: &Path) -> Result<Unpacked, Error> {
    within(Limits::default(), tar, into)
}

pub(super) fn within(limits: Limits, tar: &[u8], into: &Path) -> Result<Unpacked, Error> {
    files::make_dir(into, 0o755).unwrap();
    let mut notes = Writer::new(tempfile::tempfile().unwrap()).unwrap();
    let names = Work::default().implied_names();
    unpack(tar, files::open_dir(into).unwrap(), (limits, names), &mut notes)
        .map(|(unpacked, _)| unpacked)
}

pub(super) fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A header of any kind with extended records before it.
pub(super) fn with_pax(
    records: &[(&str, &[u8])],
    kind: EntryType,
    path: &str,
    data: &[u8],
) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions(records.iter().copied()).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path(path).unwrap();
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_cksum();
    builder.append(&header, data).unwrap();
    builder.into_inner().unwrap()
}

pub(super) fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    Some(value[..length].to_vec())
}

#[test]
fn everything_is_made_as_it_was_packed() {
    if !can_run("everything_is_made_as_it_was_packed") {
        return;
    }
    let dir = temp();
    let root = dir.path().join("layer");
    let tar = Layer::new()
        .dir("d", 0o1777)
        .file_of("d/setuid", 0o4755, 1000, "x")
        .hard_link("d/two", "d/setuid")
        .symlink("d/link", "/etc/passwd")
        .char_device("d/null", 1, 3)
        .file("implicit/deep/file", 0o600, "y")
        .tar();
    let done = unpacked(&tar, &root).unwrap();
    assert_eq!(done.inodes, 8, "root, d, 3 in it, 2 implicit, a file");
    assert!(done.links.is_none());
    let stat = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    assert_eq!(stat("d").mode() & 0o7777, 0o1777);
    assert_eq!(stat("d").mtime(), 1_000_000_000, "though entries were made in it");
    assert_eq!((stat("d/setuid").uid(), stat("d/setuid").mode() & 0o7777), (1000, 0o4755));
    assert_eq!(stat("d/two").ino(), stat("d/setuid").ino());
    assert_eq!(fs::read_link(root.join("d/link")).unwrap(), Path::new("/etc/passwd"));
    assert!(stat("d/null").file_type().is_char_device());
    assert_eq!(stat("d/null").rdev(), 0x103);
    assert_eq!(stat("implicit/deep").mode() & 0o7777, 0o755);
    assert_eq!(stat("implicit/deep/file").mode() & 0o7777, 0o600);
}

/// The reported disk usage of images, computed without reading any file.
#[test]
fn what_a_layer_takes_is_what_the_disk_says() {
    if !can_run("what_a_layer_takes_is_what_the_disk_says") {
        return;
    }
    let dir = temp();
    let mut layer = Layer::new().dir("d", 0o755);
    for number in 0..300 {
        let (name, size) = (format!("d/{}/f{number}", number % 7), number * 97 % 20_000);
        layer = layer.file(&name, 0o644, vec![1; size]);
        layer = layer.symlink(&format!("{name}-link"), "../somewhere");
        layer = layer.hard_link(&format!("{name}-same"), &name);
    }
    let layer = layer.symlink("long", &"x/".repeat(40)).whiteout("gone").char_device("null", 1, 3);
    let root = dir.path().join("layer");
    let done = unpacked(&layer.tar(), &root).unwrap();
    fs::File::open(&root).map(rustix::fs::syncfs).unwrap().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let (mut bytes, mut directories) = (0, 0);
    let mut left = vec![root];
    while let Some(path) = left.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        if seen.insert(stat.ino()) {
            bytes += stat.blocks() * 512;
        }
        if stat.is_dir() {
            directories += 1;
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert_eq!(done.inodes, seen.len() as u64);
    // Not every filesystem has blocks for directories and links.
    let off = done.bytes.abs_diff(bytes);
    assert!(off <= 4096 * (directories + 1), "{} and {bytes}", done.bytes);
}

#[test]
fn whiteouts_hide_only_what_lies_below() {
    if !can_run("whiteouts_hide_only_what_lies_below") {
        return;
    }
    let dir = temp();
    let (below, above) = (dir.path().join("below"), dir.path().join("above"));
    let tar = Layer::new()
        .dirs(&["gone", "opaque", "again", "kept"])
        .file("gone/a", 0o644, "a")
        .file("opaque/old", 0o644, "a")
        .file("again/old", 0o644, "a")
        .file("kept/file", 0o644, "old");
    unpacked(&tar.tar(), &below).unwrap();
    let tar = Layer::new()
        .whiteout("gone")
        .opaque("opaque")
        .file("opaque/new", 0o644, "b")
        .whiteout("again")
        .dir("again", 0o755)
        .file("again/new", 0o644, "b")
        .file("kept/file", 0o644, "new")
        .whiteout("kept/file");
    unpacked(&tar.tar(), &above).unwrap();
    let view = view::view(&[above, below]).unwrap();
    let read = |path: &str| view::read_inside(view.as_fd(), path, 100).unwrap();
    for hidden in ["gone/a", "opaque/old", "again/old"] {
        assert_eq!(read(hidden), None, "{hidden}");
    }
    assert_eq!(read("opaque/new").as_deref(), Some(&b"b"[..]));
    assert_eq!(read("again/new").as_deref(), Some(&b"b"[..]));
    assert_eq!(read("/kept/../kept/file").as_deref(), Some(&b"new"[..]));
}

#[test]
fn capabilities_and_user_attributes_are_kept_and_others_are_not() {
    if !can_run("capabilities_and_user_attributes_are_kept_and_others_are_not") {
        return;
    }
    let dir = temp();
    let root = dir.path().join("layer");
    // Version 2, cap_net_raw: with a newline among its bytes, as real ones have.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.user.note", b"a\nb"),
        ("SCHILY.xattr.trusted.mine", b"x"),
    ];
    unpacked(&with_pax(&records, EntryType::Regular, "ping", b"x"), &root).unwrap();
    let file = root.join("ping");
    assert_eq!(xattr(&file, "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(xattr(&file, "trusted.mine"), None);
    if let Some(note) = xattr(&file, "user.note") {
        assert_eq!(note, b"a\nb");
    }
    for forged in ["SCHILY.xattr.trusted.overlay.redirect", "SCHILY.xattr.user.overlay.opaque"] {
        let root = dir.path().join(forged);
        unpacked(&with_pax(&[(forged, b"/x")], EntryType::Directory, "d", b""), &root).unwrap();
        assert_eq!(xattr(&root.join("d"), forged.trim_start_matches("SCHILY.xattr.")), None);
    }
}

#[test]
fn files_with_holes_have_their_holes() {
    if !can_run("files_with_holes_have_their_holes") {
        return;
    }
    let dir = temp();
    let map = "2\n1000000\n3\n2000000\n2\n";
    let mut data = map.as_bytes().to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"abcde");
    let one = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"real-name"),
        ("GNU.sparse.realsize", b"3000000"),
    ];
    let old = [("GNU.sparse.map", &b"1000000,3,2000000,2"[..]), ("GNU.sparse.size", b"3000000")];
    for (number, (records, data, name)) in
        [(&one[..], &data[..], "real-name"), (&old[..], b"abcde", "file")].into_iter().enumerate()
    {
        let root = dir.path().join(number.to_string());
        unpacked(&with_pax(records, EntryType::Regular, "file", data), &root).unwrap();
        let bytes = fs::read(root.join(name)).unwrap();
        assert_eq!(bytes.len(), 3_000_000);
        assert_eq!(
            (&bytes[1_000_000..1_000_004], &bytes[2_000_000..2_000_003]),
            (&b"abc\0"[..], &b"de\0"[..])
        );
        assert!(fs::metadata(root.join(name)).unwrap().blocks() < 100, "its holes take no space");
    }
    let overlapping = [("GNU.sparse.map", &b"5,3,6,2"[..]), ("GNU.sparse.size", b"100")];
    let tar = with_pax(&overlapping, EntryType::Regular, "file", b"abcde");
    assert!(matches!(unpacked(&tar, &dir.path().join("bad")), Err(Error::Malformed { .. })));
}

#[test]
fn a_hard_link_to_a_layer_below_is_copied_up() {
    if !can_run("a_hard_link_to_a_layer_below_is_copied_up") {
        return;
    }
    let dir = temp();
    let (below, above) = (dir.path().join("below"), dir.path().join("above"));
    unpacked(&Layer::new().file_of("bin/one", 0o4711, 7, "program").tar(), &below).unwrap();
    let tar = Layer::new()
        .dir("bin", 0o755)
        .hard_link("bin/two", "bin/one")
        .hard_link("bin/three", "bin/two")
        .hard_link("bin/four", "bin/one")
        .hard_link("bin/replaced", "bin/one")
        .file("bin/replaced", 0o644, "own");
    let done = unpacked(&tar.tar(), &above).unwrap();
    let links = done.links.unwrap();
    assert_eq!(links.count(), 3);
    let (root, below) = (files::open_dir(&above).unwrap(), view::view(&[below]).unwrap());
    let (limits, shift) = (Limits::default(), Work::default().shift(60));
    let copied = copy_up(root.as_fd(), Some(below.as_fd()), &links, limits, 0, &shift);
    assert_eq!(copied.unwrap().bytes, 7);
    let bin = fs::metadata(above.join("bin")).unwrap();
    assert_eq!(bin.mtime(), 1_000_000_000, "though entries were made in it");
    let two = fs::metadata(above.join("bin/two")).unwrap();
    assert_eq!((two.uid(), two.mode() & 0o7777, two.nlink()), (7, 0o4711, 3));
    assert_eq!(fs::read(above.join("bin/replaced")).unwrap(), b"own");

    let tar = Layer::new().hard_link("two", "nowhere").tar();
    let done = unpacked(&tar, &dir.path().join("broken")).unwrap();
    let root = files::open_dir(&dir.path().join("broken")).unwrap();
    let links = done.links.unwrap();
    let err = copy_up(root.as_fd(), Some(below.as_fd()), &links, limits, 0, &shift).unwrap_err();
    assert!(err.to_string().contains("`nowhere`"), "{err}");
}

#[test]
fn holes_stay_holes_when_a_file_is_copied_up_and_bytes_count() {
    if !can_run("holes_stay_holes_when_a_file_is_copied_up_and_bytes_count") {
        return;
    }
    let dir = temp();
    let (below, above) = (dir.path().join("below"), dir.path().join("above"));
    let sparse: [(&str, &[u8]); 3] = [
        ("GNU.sparse.size", b"1099511627776"),
        ("GNU.sparse.numblocks", b"1"),
        ("GNU.sparse.map", b"549755813888,5"),
    ];
    unpacked(&with_pax(&sparse, EntryType::Regular, "hole", b"bytes"), &below).unwrap();
    let (below, shift) = (view::view(&[below]).unwrap(), Work::default().shift(60));
    let copied = |limits, taken| {
        hull_sys::remove_tree(&above).unwrap();
        let done = unpacked(&Layer::new().hard_link("two", "hole").tar(), &above).unwrap();
        let (root, links) = (files::open_dir(&above).unwrap(), done.links.unwrap());
        copy_up(root.as_fd(), Some(below.as_fd()), &links, limits, taken, &shift)
    };
    copied(Limits::default(), 0).unwrap();
    let two = fs::metadata(above.join("two")).unwrap();
    assert_eq!(two.len(), 1 << 40);
    assert!(two.blocks() * 512 <= 1 << 20, "{} blocks", two.blocks());
    let mut end = [0; 5];
    let two = fs::File::open(above.join("two")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&two, &mut end, 1 << 39).unwrap();
    assert_eq!(&end, b"bytes");
    let err = copied(Limits { bytes: 100, ..Limits::default() }, 99).unwrap_err();
    assert!(matches!(err, Error::Limit { budget, .. } if *budget == LAYER_BYTES), "{err}");
    let err = copied(Limits { apparent_bytes: 1 << 39, ..Limits::default() }, 0).unwrap_err();
    assert!(err.to_string().contains("layer_apparent_bytes_max"), "{err}");
}

#[test]
fn links_are_followed_inside_only_and_later_entries_replace_earlier_ones() {
    if !can_run("links_are_followed_inside_only") {
        return;
    }
    let dir = temp();
    let root = dir.path().join("layer");
    let tar = Layer::new()
        .hostile(EntryType::Symlink, "lib", "/usr/lib", b"")
        .file("lib/inside", 0o644, "x")
        .hostile(EntryType::Symlink, "up", "../../../../../..", b"")
        .file("up/at-root", 0o644, "y")
        .file("was-file", 0o644, "z")
        .dir("was-file", 0o755)
        .dir("was-dir", 0o755)
        .file("was-dir/in-it", 0o644, "z")
        .file("was-dir", 0o644, "file")
        .tar();
    unpacked(&tar, &root).unwrap();
    assert_eq!(fs::read(root.join("usr/lib/inside")).unwrap(), b"x");
    assert_eq!(fs::read(root.join("at-root")).unwrap(), b"y");
    assert!(root.join("was-file").is_dir());
    assert_eq!(fs::read(root.join("was-dir")).unwrap(), b"file");
}

#[test]
fn names_that_climb_are_refused_by_name() {
    let dir = temp();
    for (number, (kind, path, link)) in [
        (EntryType::Regular, "../escaped", ""),
        (EntryType::Directory, "a/../../escaped", ""),
        (EntryType::Regular, "a/.wh..", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let tar = Layer::new().hostile(kind, path, link, b"").tar();
        let err = unpacked(&tar, &dir.path().join(number.to_string())).unwrap_err();
        let text = err.to_string();
        assert!(matches!(err, Error::Refused { .. }) && text.contains(path), "{path}: {text}");
    }
}

/// As the kernel has it in a container, and other tools when they unpack: above the root is the root.
#[test]
fn where_links_lead_stops_at_the_root() {
    if !can_run("where_links_lead_stops_at_the_root") {
        return;
    }
    let dir = temp();
    let root = dir.path().join("layer");
    let link =
        |layer: Layer, path: &str, to: &str| layer.hostile(EntryType::Symlink, path, to, b"");
    let mut layer = Layer::new()
        .file("etc/passwd", 0o644, "mine")
        .hostile(EntryType::Link, "passwd", "../../etc/passwd", b"")
        .hostile(EntryType::Link, "deep/passwd", "a/../../../etc/./passwd", b"")
        .hostile(EntryType::Link, "of-below", "../../../etc/group", b"")
        .dir("usr/lib/x", 0o755);
    for (path, to) in [
        ("climbs", "../../../made/here"),
        ("a/b/climbs", "../../../../made/there"),
        ("absolute", "/../../made/elsewhere"),
        // `..` is counted from where a link is, not from how it is called.
        ("lib", "usr/lib/x"),
        ("lib/up", "../../up"),
        ("lib/over", "../../../../over"),
    ] {
        layer = link(layer, path, to);
    }
    for name in ["climbs", "a/b/climbs", "absolute", "lib/up", "lib/over"] {
        layer = layer.hostile(EntryType::Regular, &format!("{name}/file"), "", name.as_bytes());
    }
    let done = unpacked(&layer.tar(), &root).unwrap();
    let inode = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
    assert_eq!(inode("passwd"), inode("etc/passwd"));
    assert_eq!(inode("deep/passwd"), inode("etc/passwd"));
    let waits = done.links.unwrap();
    assert_eq!(waits.all(), [(b"of-below".to_vec(), b"etc/group".to_vec())]);
    for (path, name) in [
        ("made/here", "climbs"),
        ("made/there", "a/b/climbs"),
        ("made/elsewhere", "absolute"),
        ("usr/up", "lib/up"),
        ("over", "lib/over"),
    ] {
        assert_eq!(fs::read(root.join(path).join("file")).unwrap(), name.as_bytes(), "{path}");
    }
    // What links say stays as it was written.
    assert_eq!(fs::read_link(root.join("climbs")).unwrap(), Path::new("../../../made/here"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let err = unpacked(
        &Layer::new().hostile(EntryType::Link, "self", "../self", b"").tar(),
        &dir.path().join("self"),
    );
    assert!(err.unwrap_err().to_string().contains("names itself"));
}

/// The files outside of a layer, to check that they are unchanged.
fn outside(path: &Path) -> Vec<(PathBuf, u32, u64, i64, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap().path();
        let stat = fs::symlink_metadata(&entry).unwrap();
        let bytes = if stat.is_file() { fs::read(&entry).unwrap() } else { Vec::new() };
        all.push((entry.clone(), stat.permissions().mode(), stat.nlink(), stat.mtime(), bytes));
        if stat.is_dir() {
            all.extend(outside(&entry));
        }
    }
    all.sort();
    all
}

/// Few names, so that entries meet: one is a link, the next goes through it.
fn any_name() -> impl Strategy<Value = String> {
    let usual = proptest::sample::select(vec![
        "a",
        "b",
        "a/a",
        "a/b",
        "b/a",
        "b/b",
        "a/b/a",
        ".wh.a",
        "a/.wh..wh..opq",
    ]);
    let parts = proptest::collection::vec(
        proptest::sample::select(vec!["..", ".", "", "a", "b", "canary"]),
        1..6,
    );
    prop_oneof![
        4 => usual.prop_map(str::to_owned),
        1 => (any::<bool>(), parts).prop_map(|(is_absolute, parts)| {
            format!("{}{}", if is_absolute { "/" } else { "" }, parts.join("/"))
        }),
    ]
}

/// Where links lead: to the canary, by its full path or by climbing, or anywhere.
fn any_target() -> impl Strategy<Value = String> {
    let far =
        ["CANARY", "CANARY/a", "../canary", "../../canary", "../../canary/a", "../../../canary"];
    prop_oneof![2 => proptest::sample::select(far.to_vec()).prop_map(str::to_owned), 1 => any_name()]
}

fn any_kind() -> impl Strategy<Value = EntryType> {
    prop_oneof![
        2 => Just(EntryType::Regular),
        1 => Just(EntryType::Directory),
        3 => Just(EntryType::Symlink),
        2 => Just(EntryType::Link),
        1 => Just(EntryType::Fifo),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_archive_changes_anything_outside_of_its_layer(
        entries in proptest::collection::vec((any_kind(), any_name(), any_target()), 1..12)
    ) {
        if !can_run("no_archive_changes_anything_outside_of_its_layer") {
            return Ok(());
        }
        let dir = temp();
        let canary = dir.path().join("canary");
        fs::create_dir(&canary).unwrap();
        fs::write(canary.join("a"), "untouched").unwrap();
        fs::write(dir.path().join("a"), "untouched").unwrap();
        let layers = dir.path().join("layers");
        fs::create_dir(&layers).unwrap();
        let root = layers.join("layer");
        fs::create_dir(&root).unwrap();
        let before: Vec<_> = outside(dir.path());
        let mut layer = Layer::new();
        for (kind, path, link) in &entries {
            let link = link.replace("CANARY", &canary.display().to_string());
            layer = layer.hostile(*kind, path, &link, b"");
        }
        let _either = unpacked(&layer.tar(), &root);
        let is_outside = |(path, ..): &(PathBuf, u32, u64, i64, Vec<u8>)| !path.starts_with(&root) && *path != layers;
        let after: Vec<_> = outside(dir.path()).into_iter().filter(is_outside).collect();
        let before: Vec<_> = before.into_iter().filter(is_outside).collect();
        prop_assert_eq!(before, after);
    }
}
