// SPDX-License-Identifier: Apache-2.0
//! File lists of real layers: scan, verify, repair and rebuild. Needs root.

use super::{Finding, Reader, RebuiltArchive, Writer, length, repair, scan, verify, walk};
use crate::digest::Digest;
use crate::fs::files;
use crate::limits::{Limits, Work};
use crate::unpack::{Unpacked, unpack};
use hull_tests::layer::Layer;
use hull_tests::paths::cannot_run;
use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown, lchown};
use std::path::{Path, PathBuf};
use tar::EntryType;

/// An unpacked layer with its file list.
struct Unpack {
    dir: tempfile::TempDir,
    done: Unpacked,
    digest: Digest,
}

impl Unpack {
    fn new(tar: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("layer");
        files::make_dir(&root, 0o755).unwrap();
        let mut notes = Writer::new(files::create(&dir.path().join("inventory")).unwrap()).unwrap();
        let root = files::open_dir(&root).unwrap();
        let within = (Limits::default(), Work::default().implied_names());
        let (done, _) = unpack(tar, root, within, &mut notes).unwrap();
        let digest = notes.finish().unwrap();
        Self { dir, done, digest }
    }

    fn file(&self) -> File {
        files::open_file(&self.dir.path().join("inventory")).unwrap()
    }

    fn items(&self) -> Reader {
        Reader::open(self.file(), &self.digest).unwrap()
    }

    fn root(&self) -> OwnedFd {
        files::open_dir(&self.at("")).unwrap()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("layer").join(path)
    }

    fn looked(&self) -> Option<Finding> {
        scan(self.root().as_fd(), self.items()).unwrap()
    }

    fn verified(&self) -> Vec<(String, String)> {
        let findings = verify(self.root().as_fd(), self.items(), &Work::default()).unwrap();
        let shown = |of: Finding| (String::from_utf8(of.path).unwrap(), of.why);
        findings.into_iter().map(shown).collect()
    }

    fn rebuilt(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        RebuiltArchive::new(self.root(), self.items()).read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Replaces the file list by one of the files as they are now.
    fn list_again(&mut self) {
        let path = self.dir.path().join("walked");
        let mut list = Writer::new(files::create(&path).unwrap()).unwrap();
        walk(self.root().as_fd(), &mut list, &Work::default(), 60).unwrap();
        self.digest = list.finish().unwrap();
        fs::rename(&path, self.dir.path().join("inventory")).unwrap();
    }
}

fn can_run(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        cannot_run(test, "root, for devices and owners");
    }
    is_root
}

fn everything() -> Vec<u8> {
    let long = "long/".repeat(40) + "name";
    Layer::new()
        .dir("d", 0o1777)
        .file("d/file", 0o644, vec![7; 70_000])
        .file("d/empty", 0o644, "")
        .hard_link("d/link", "d/file")
        .symlink("d/soft", "../elsewhere")
        .char_device("d/null", 1, 3)
        .hostile(EntryType::Fifo, "d/fifo", "", b"")
        .file(&long, 0o600, "deep")
        .whiteout("gone")
        .opaque("d")
        .tar()
}

#[test]
fn the_archive_comes_back_to_the_byte() {
    if !can_run("the_archive_comes_back_to_the_byte") {
        return;
    }
    let mut padded = everything();
    padded.extend([0; 8192]);
    // A directory with a list of names, a mark of aufs with content, and no padding at the end.
    let odd = Layer::new()
        .hostile(EntryType::new(b'D'), "dir", "", b"nobody reads this")
        .file(".wh..wh.plnk", 0o644, "nor this")
        .file("x", 0o644, "x");
    let mut cut = odd.tar();
    cut.truncate(cut.len() - 1024);
    for tar in [everything(), padded, cut, Layer::new().tar(), Vec::new()] {
        let unpacked = Unpack::new(&tar);
        assert_eq!(length(unpacked.items()).unwrap(), Some(tar.len() as u64));
        assert!(unpacked.rebuilt() == tar, "{} bytes", tar.len());
        assert_eq!(unpacked.verified(), []);
        assert_eq!(unpacked.looked(), None);
    }
}

#[test]
fn what_is_missing_cut_altered_or_another_thing_is_found() {
    if !can_run("what_is_missing_cut_altered_or_another_thing_is_found") {
        return;
    }
    let unpacked = Unpack::new(&everything());
    let replace = |path: &str| fs::remove_file(unpacked.at(path)).unwrap();
    fs::write(unpacked.at("d/empty"), "now it has something").unwrap();
    replace("d/soft");
    std::os::unix::fs::symlink("/etc/shadow", unpacked.at("d/soft")).unwrap();
    replace("d/link");
    fs::write(unpacked.at("d/link"), vec![7; 70_000]).unwrap();
    replace("d/null");
    replace("gone");
    fs::create_dir(unpacked.at("gone")).unwrap();
    let file = File::options().write(true).open(unpacked.at("d/file")).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"x", 69_999).unwrap();
    let found = unpacked.verified();
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["d/file", "d/empty", "d/link", "d/soft", "d/null", "gone"], "{found:?}");
    assert!(found[0].1.contains("altered") && found[4].1.contains("missing"), "{found:?}");
    // Without reading, an altered byte cannot be seen; the first of the others is.
    assert_eq!(unpacked.looked().unwrap().path, b"d/empty");
}

#[test]
fn what_was_added_or_given_another_mode_or_owner_is_found() {
    if !can_run("what_was_added_or_given_another_mode_or_owner_is_found") {
        return;
    }
    let unpacked = Unpack::new(&everything());
    fs::set_permissions(unpacked.at("d/file"), Permissions::from_mode(0o4644)).unwrap();
    fs::set_permissions(unpacked.at("d"), Permissions::from_mode(0o755)).unwrap();
    lchown(unpacked.at("d/soft"), Some(7), None).unwrap();
    chown(unpacked.at("long"), None, Some(8)).unwrap();
    fs::write(unpacked.at("long/new"), "x").unwrap();
    fs::create_dir_all(unpacked.at("d/dir/in-it")).unwrap();
    fs::hard_link(unpacked.at("d/file"), unpacked.at("d/again")).unwrap();
    let mut found = unpacked.verified();
    found.sort();
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["d", "d/again", "d/dir", "d/file", "d/soft", "long", "long/new"]);
    assert_eq!(found[0].1, "it should have mode 1777 and owner 0:0 and has mode 755 and owner 0:0");
    assert!(found[2].1.contains("added") && found[5].1.contains("0:8"), "{found:?}");
    assert_eq!(unpacked.looked(), None, "a look through after a boot is for what power cuts leave");

    let (kept, good) = (inode_at(&unpacked.at("d")), Unpack::new(&everything()));
    repair(&unpacked.root(), &good.root(), &good.file(), &good.digest, &Work::default()).unwrap();
    assert_eq!(unpacked.verified(), []);
    assert_eq!(inode_at(&unpacked.at("d")), kept, "a directory is not replaced for its mode");
}

/// Entries that give a directory other modes, also by way of a link, leave the last of them; directories
/// that no entry names are known all the same.
#[test]
fn what_an_archive_itself_changes_or_implies_is_as_it_should_be() {
    if !can_run("what_an_archive_itself_changes_or_implies_is_as_it_should_be") {
        return;
    }
    let tar = Layer::new()
        .dir("usr", 0o2775)
        .file("usr/implied/file", 0o644, "x")
        .dir("usr/lib", 0o700)
        .symlink("lib", "usr/lib")
        .file("lib/by-link", 0o644, "x")
        .dir("lib/sub", 0o700)
        .dir("usr/lib/sub", 0o755)
        .dir("usr/lib", 0o755)
        .whiteout("other/implied/gone")
        .tar();
    let unpacked = Unpack::new(&tar);
    assert!(!unpacked.done.replaced);
    assert_eq!(unpacked.verified(), []);
}

/// Such an inventory has no modes and owners, and does not tell what is implied.
#[test]
fn an_inventory_of_the_first_form_is_still_read() {
    if !can_run("an_inventory_of_the_first_form_is_still_read") {
        return;
    }
    let mut unpacked = Unpack::new(&Layer::new().file("d/f", 0o644, "x").tar());
    let digest: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
        <sha2::Sha256 as sha2::Digest>::new(),
        b"x",
    ))
    .into();
    let bytes = [b"hull layer inventory 1\nf\x03d/f\x01", &digest[..], b"E\x01\x01"].concat();
    let bytes = zstd::encode_all(&bytes[..], 1).unwrap();
    unpacked.digest = Digest::of(&bytes);
    fs::write(unpacked.dir.path().join("inventory"), bytes).unwrap();
    assert_eq!(unpacked.verified(), []);
    fs::write(unpacked.at("added"), "x").unwrap();
    assert_eq!(unpacked.verified(), []);
    fs::write(unpacked.at("d/f"), "y").unwrap();
    assert_eq!(unpacked.verified().len(), 1);
}

#[test]
fn an_inventory_that_was_altered_is_not_believed() {
    if !can_run("an_inventory_that_was_altered_is_not_believed") {
        return;
    }
    let unpacked = Unpack::new(&Layer::new().file("x", 0o644, "x").tar());
    let path = unpacked.dir.path().join("inventory");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(Reader::open(unpacked.file(), &unpacked.digest).is_err());
}

#[test]
fn a_broken_layer_is_repaired_in_place() {
    if !can_run("a_broken_layer_is_repaired_in_place") {
        return;
    }
    let (broken, good) = (Unpack::new(&everything()), Unpack::new(&everything()));
    let kept = fs::metadata(broken.at("d/file")).map(|of| inode(&of)).unwrap();
    fs::remove_dir_all(broken.at("long")).unwrap();
    fs::write(broken.at("d/empty"), "x").unwrap();
    fs::remove_file(broken.at("gone")).unwrap();
    fs::create_dir_all(broken.at("gone/with/things")).unwrap();
    repair(&broken.root(), &good.root(), &good.file(), &good.digest, &Work::default()).unwrap();
    assert_eq!(broken.verified(), []);
    assert_eq!(fs::metadata(broken.at("d/file")).map(|of| inode(&of)).unwrap(), kept);
}

fn inode(of: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(of)
}

fn inode_at(path: &Path) -> u64 {
    inode(&fs::metadata(path).unwrap())
}

#[test]
fn a_layer_that_replaces_its_own_is_written_down_as_it_is() {
    if !can_run("a_layer_that_replaces_its_own_is_written_down_as_it_is") {
        return;
    }
    let tar = Layer::new().dir("a", 0o755).file("a/b", 0o644, "1").file("a/b", 0o644, "22");
    let tar = tar.symlink("c", "a").file("c", 0o644, "c").hard_link("e", "a/b").tar();
    let mut unpacked = Unpack::new(&tar);
    assert!(unpacked.done.replaced);
    unpacked.list_again();
    assert_eq!(unpacked.verified(), []);
    assert_eq!(length(unpacked.items()).unwrap(), None, "its archive is not known any more");
    fs::write(unpacked.at("e"), "23").unwrap();
    assert_eq!(unpacked.verified().len(), 1, "one file, with two names");
    assert!(Path::new(&unpacked.at("a/b")).is_file());
}

#[test]
fn directories_that_are_listed_again_wear_what_the_last_line_says_and_others_are_found() {
    if !can_run("directories_that_are_listed_again_wear_what_the_last_line_says") {
        return;
    }
    let mut layer = Layer::new();
    for mode in [0o700, 0o755] {
        for number in 0..2000 {
            layer = layer.dir(&format!("d{number}"), mode);
        }
    }
    let unpacked = Unpack::new(&layer.tar());
    assert_eq!(unpacked.verified(), []);
    fs::set_permissions(unpacked.at("d1999"), Permissions::from_mode(0o711)).unwrap();
    let found = unpacked.verified();
    assert_eq!(found.len(), 1);
    assert!(found[0].0 == "d1999" && found[0].1.contains("755"), "{found:?}");
}

#[test]
fn holes_are_not_read_and_bytes_beside_them_are_compared() {
    if !can_run("holes_are_not_read_and_bytes_beside_them_are_compared") {
        return;
    }
    let mut unpacked = Unpack::new(&Layer::new().file("file", 0o644, "x").tar());
    let file = File::options().write(true).open(unpacked.at("file")).unwrap();
    // Reading all of it would take an hour.
    file.set_len(4 << 40).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"far away", 3 << 40).unwrap();
    unpacked.list_again();
    assert_eq!(unpacked.verified(), []);
    std::os::unix::fs::FileExt::write_all_at(&file, b"F", 3 << 40).unwrap();
    assert_eq!(unpacked.verified(), [("file".into(), "its content was altered".into())]);
}

#[test]
fn comparing_ends_with_who_wants_it_and_finds_nothing_wrong_then() {
    if !can_run("comparing_ends_with_who_wants_it_and_finds_nothing_wrong_then") {
        return;
    }
    let unpacked = Unpack::new(&everything());
    let (work, guard) = Work::guarded();
    drop(guard);
    assert!(verify(unpacked.root().as_fd(), unpacked.items(), &work).is_err());
    let mut notes = Writer::new(tempfile::tempfile().unwrap()).unwrap();
    assert!(walk(unpacked.root().as_fd(), &mut notes, &work, 60).is_err());
}

#[test]
fn headers_of_any_length_are_read_back() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut notes = Writer::new(file.reopen().unwrap()).unwrap();
    let long = vec![b'a'; 9 << 20];
    notes.raw(&long).unwrap();
    let digest = notes.finish().unwrap();
    let items = Reader::open(file.reopen().unwrap(), &digest).unwrap();
    assert_eq!(length(items).unwrap(), Some(long.len() as u64));
}
