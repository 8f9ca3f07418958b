// SPDX-License-Identifier: Apache-2.0
//! Layers over layers: links to what those below have, and what is removed from them. Needs root.

use super::tests::{can_run, temp, unpacked};
use super::{Error, copy_up};
use crate::fs::files;
use crate::limits::{Limits, Work};
use crate::view;
use hull_tests::layer::Layer;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use tar::EntryType;

/// The layer `above`, with its links to `below`.
fn stacked(below: Layer, above: Layer, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let layers = vec![dir.join("above"), dir.join("below")];
    unpacked(&below.tar(), &layers[1])?;
    let done = unpacked(&above.tar(), &layers[0])?;
    if let Some(links) = done.links {
        let root = files::open_dir(&layers[0]).unwrap();
        let view = view::view(&layers[1..]).unwrap();
        let shift = Work::default().shift(60);
        copy_up(root.as_fd(), Some(view.as_fd()), &links, Limits::default(), 0, &shift)?;
    }
    Ok(layers)
}

#[test]
fn a_hard_link_to_what_the_layer_below_removes_is_refused() {
    if !can_run("a_hard_link_to_what_the_layer_below_removes_is_refused") {
        return;
    }
    let dir = temp();
    let (below, above) = (Layer::new().whiteout("x"), Layer::new().hard_link("y", "x"));
    let error = stacked(below, above, dir.path()).unwrap_err();
    assert!(matches!(error, Error::LinkToNothing { .. }), "{error}");
}

#[test]
fn a_hard_link_to_a_file_without_content_is_such_a_file() {
    if !can_run("a_hard_link_to_a_file_without_content_is_such_a_file") {
        return;
    }
    let dir = temp();
    let below = Layer::new()
        .dir("t", 0o755)
        .symlink("t/dangling", "nowhere")
        .symlink("t/directory", "/t")
        .hostile(EntryType::Fifo, "t/fifo", "", b"")
        .char_device("t/null", 1, 3);
    let above = Layer::new()
        .dir("t", 0o755)
        .hard_link("t/one", "t/dangling")
        .hard_link("t/two", "t/dangling")
        .hard_link("t/three", "t/two")
        .hard_link("t/of-directory", "t/directory")
        .hard_link("t/of-fifo", "t/fifo")
        .hard_link("t/of-null", "t/null");
    let layers = stacked(below, above, dir.path()).unwrap();
    let at = |name: &str| layers[0].join("t").join(name);
    let stat = |name: &str| fs::symlink_metadata(at(name)).unwrap();
    for name in ["one", "two", "three"] {
        assert_eq!(fs::read_link(at(name)).unwrap(), Path::new("nowhere"), "{name}");
        assert_eq!((stat(name).ino(), stat(name).nlink()), (stat("one").ino(), 3), "{name}");
    }
    assert_eq!(fs::read_link(at("of-directory")).unwrap(), Path::new("/t"));
    assert!(stat("of-fifo").file_type().is_fifo());
    assert!(stat("of-null").file_type().is_char_device());
    assert_eq!(stat("of-null").rdev(), 0x103);
    let original = fs::symlink_metadata(layers[1].join("t/null")).unwrap();
    let shown = |of: &fs::Metadata| (of.uid(), of.gid(), of.mode(), of.mtime());
    assert_eq!(shown(&stat("of-null")), shown(&original));
    assert_eq!(stat("").mtime(), 1_000_000_000, "though entries were made in it");
}

#[test]
fn a_hard_link_that_no_file_system_could_have_is_refused_with_its_reason() {
    if !can_run("a_hard_link_that_no_file_system_could_have_is_refused_with_its_reason") {
        return;
    }
    let of = |name: &str, target: &str| {
        let own = Layer::new().file("file", 0o644, "x").dir("dir", 0o755);
        let above = own.hostile(EntryType::Link, name, target, b"");
        stacked(Layer::new().dir("lower", 0o755), above, temp().path()).unwrap_err()
    };
    for (name, target, why) in [
        ("file/below", "file", "below its own target `file`"),
        ("dir/below", "dir", "below its own target `dir`"),
        ("new/below", "new", "below its own target `new`"),
        ("link", "dir", "target `dir` is a directory"),
        ("link", "lower", "target `lower` is a directory"),
        ("link", "nothing", "neither this layer nor a lower one"),
    ] {
        let error = of(name, target);
        let text = error.to_string();
        assert!(text.contains(why) && text.contains(&format!("`{name}`")), "{text}");
        assert!(error.is_archives_fault() && error.hint().is_some(), "{text}");
    }
    // In a directory that the link names, which its target is not.
    let above = Layer::new()
        .dir("dir", 0o755)
        .hostile(EntryType::Symlink, "to-dir", "dir", b"")
        .hostile(EntryType::Link, "to-dir/link", "to-dir", b"");
    let dir = temp();
    let layers = stacked(Layer::new(), above, dir.path()).unwrap();
    assert_eq!(fs::read_link(layers[0].join("dir/link")).unwrap(), Path::new("dir"));
}

#[test]
fn a_directory_that_replaces_a_file_of_its_layer_shows_nothing_from_below() {
    if !can_run("a_directory_that_replaces_a_file_of_its_layer_shows_nothing_from_below") {
        return;
    }
    let kinds = [EntryType::Symlink, EntryType::Regular, EntryType::Link, EntryType::Fifo];
    for kind in kinds {
        let dir = temp();
        let below = Layer::new().dir("d", 0o755).file("d/old", 0o644, "old").file("f", 0o644, "");
        let above = Layer::new().hostile(kind, "d", "f", b"").dir("d", 0o755);
        let view = view::view(&stacked(below, above, dir.path()).unwrap()).unwrap();
        let read = |path: &str| view::read_inside(view.as_fd(), path, 100).unwrap();
        assert_eq!(read("d/old"), None, "{kind:?}");
    }
    let dir = temp();
    let below = Layer::new().dir("d", 0o755).file("d/old", 0o644, "old");
    let above = Layer::new().dir("d", 0o755).dir("d", 0o700);
    let view = view::view(&stacked(below, above, dir.path()).unwrap()).unwrap();
    let old = view::read_inside(view.as_fd(), "d/old", 100).unwrap();
    assert_eq!(old.as_deref(), Some(&b"old"[..]), "a directory that is listed twice is the same");
}

#[test]
fn a_whiteout_of_what_no_layer_has_is_not_listed() {
    if !can_run("a_whiteout_of_what_no_layer_has_is_not_listed") {
        return;
    }
    let dir = temp();
    let below = Layer::new().dir("merged", 0o755).file("merged/low", 0o644, "");
    let above = Layer::new()
        .dir("new", 0o755)
        .whiteout("new/nothing")
        .file("new/file", 0o644, "")
        .whiteout("new/deep/nothing")
        .file("new/deep/file", 0o644, "")
        .dir("merged", 0o755)
        .whiteout("merged/nothing");
    let layers = stacked(below, above, dir.path()).unwrap();
    let view = view::view(&layers).unwrap();
    let names = |path: &str| {
        let path = format!("/proc/self/fd/{}/{path}", view.as_raw_fd());
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("new"), ["deep", "file"]);
    assert_eq!(names("new/deep"), ["file"]);
    assert_eq!(names("merged"), ["low"]);
}
