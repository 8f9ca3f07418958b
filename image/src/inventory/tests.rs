// SPDX-License-Identifier: Apache-2.0
//! Inventories of real layers: looked at, compared, mended, and their archives rebuilt. Needs root.

use super::{Finding, Reader, Rebuilt, Writer, length, look, mend, verify, walk};
use crate::digest::Digest;
use crate::files;
use crate::unpack::{Limits, Unpacked, unpack};
use hull_tests::layer::Layer;
use hull_tests::paths::cannot_run;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use tar::EntryType;

/// A layer that was unpacked, with its inventory.
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
        let (done, _) = unpack(tar, root, Limits::default(), &mut notes).unwrap();
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
        look(self.root().as_fd(), self.items()).unwrap()
    }

    fn verified(&self) -> Vec<(String, String)> {
        let findings = verify(self.root().as_fd(), self.items()).unwrap();
        let shown = |of: Finding| (String::from_utf8(of.path).unwrap(), of.why);
        findings.into_iter().map(shown).collect()
    }

    fn rebuilt(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        Rebuilt::new(self.root(), self.items()).read_to_end(&mut bytes).unwrap();
        bytes
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
    // A body where none belongs, a mark of aufs with one, and no padding at the end.
    let odd = Layer::new()
        .hostile(EntryType::Directory, "dir", "", b"nobody reads this")
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
fn an_inventory_that_was_altered_is_not_believed() {
    let unpacked = Unpack::new(&Layer::new().file("x", 0o644, "x").tar());
    let path = unpacked.dir.path().join("inventory");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(Reader::open(unpacked.file(), &unpacked.digest).is_err());
}

#[test]
fn a_broken_layer_is_mended_in_place() {
    if !can_run("a_broken_layer_is_mended_in_place") {
        return;
    }
    let (broken, good) = (Unpack::new(&everything()), Unpack::new(&everything()));
    let kept = fs::metadata(broken.at("d/file")).map(|of| inode(&of)).unwrap();
    fs::remove_dir_all(broken.at("long")).unwrap();
    fs::write(broken.at("d/empty"), "x").unwrap();
    fs::remove_file(broken.at("gone")).unwrap();
    fs::create_dir_all(broken.at("gone/with/things")).unwrap();
    mend(&broken.root(), &good.root(), &good.file(), &good.digest).unwrap();
    assert_eq!(broken.verified(), []);
    assert_eq!(fs::metadata(broken.at("d/file")).map(|of| inode(&of)).unwrap(), kept);
}

fn inode(of: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(of)
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
    let path = unpacked.dir.path().join("walked");
    let mut notes = Writer::new(files::create(&path).unwrap()).unwrap();
    walk(unpacked.root().as_fd(), &mut notes).unwrap();
    unpacked.digest = notes.finish().unwrap();
    fs::rename(&path, unpacked.dir.path().join("inventory")).unwrap();
    assert_eq!(unpacked.verified(), []);
    assert_eq!(length(unpacked.items()).unwrap(), None, "its archive is not known any more");
    fs::write(unpacked.at("e"), "23").unwrap();
    assert_eq!(unpacked.verified().len(), 1, "one file, with two names");
    assert!(Path::new(&unpacked.at("a/b")).is_file());
}
