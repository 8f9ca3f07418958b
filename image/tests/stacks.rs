// SPDX-License-Identifier: Apache-2.0
//! Layers whose meaning depends on the order of their entries and on the layers below.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{TestStore, can_run, told};
use hull_image::{Image, view};
use hull_tests::image::{self, oci_archive};
use hull_tests::layer::Layer;
use hull_tests::random::{self, Random};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

async fn import(store: &TestStore, layers: Vec<Layer>) -> Arc<Image> {
    let layers = layers.into_iter().map(Layer::tar).collect();
    let archive = oci_archive(&image::Image::new(layers, json!({})).pack(), "example.org/stack:1");
    let mut spool = store.store.spool().unwrap();
    std::io::Write::write_all(&mut spool, &archive).unwrap();
    let imported = store.store.import(spool, None).await;
    let mut imported = imported.unwrap_or_else(|err| panic!("{}", told(&err)));
    imported.images.pop().unwrap().image
}

/// The merged layers, and the path of one of their files.
struct View(OwnedFd);

impl View {
    fn of(image: &Image) -> Self {
        Self(view(&image.layers).unwrap())
    }

    fn at(&self, path: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{path}", self.0.as_raw_fd()).into()
    }
}

/// Checks that all layers of a store are as their lists say.
async fn verify(store: &TestStore) {
    for layer in store.store.verify(None).await.unwrap() {
        assert!(layer.is_whole(), "{layer:?}");
    }
}

/// A whiteout is about the layers below, wherever its own layer has it.
#[tokio::test]
async fn a_directory_that_a_layer_removes_and_has_is_the_layers_own() {
    if !can_run("a_directory_that_a_layer_removes_and_has_is_the_layers_own") {
        return;
    }
    let lower = || {
        let layer = Layer::new().dir_of("d", 0o700, 7, 7).file("d/low", 0o644, "");
        layer.dir("d/sub", 0o700).file("d/sub/low", 0o644, "")
    };
    let new = Layer::new;
    for (what, upper, mode) in [
        ("implied, behind", new().whiteout("d").file("d/x", 0o644, ""), 0o755),
        ("implied, before", new().file("d/x", 0o644, "").whiteout("d"), 0o755),
        ("listed, behind", new().whiteout("d").dir("d", 0o711).file("d/x", 0o644, ""), 0o711),
        ("listed, before", new().dir("d", 0o711).file("d/x", 0o644, "").whiteout("d"), 0o711),
        ("listed last", new().whiteout("d").file("d/x", 0o644, "").dir("d", 0o711), 0o711),
        ("removed twice", new().whiteout("d").file("d/x", 0o644, "").whiteout("d"), 0o755),
        ("opaque too", new().whiteout("d").opaque("d").file("d/x", 0o644, ""), 0o755),
        ("a link", new().file("y", 0o644, "").whiteout("d").hard_link("d/x", "y"), 0o755),
    ] {
        let store = TestStore::new();
        let image = import(&store, vec![lower(), upper]).await;
        let view = View::of(&image);
        assert_eq!(hull_tests::shell::names(&view.at("d")), ["x"], "{what}");
        let stat = fs::metadata(view.at("d")).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (mode, 0, 0), "{what}");
        verify(&store).await;
    }
    // Deeper, and in a directory that stays.
    let store = TestStore::new();
    let upper = new().whiteout("d/sub").file("d/sub/a/x", 0o644, "");
    let image = import(&store, vec![lower(), upper]).await;
    let view = View::of(&image);
    assert_eq!(hull_tests::shell::names(&view.at("d")), ["low", "sub"]);
    assert_eq!(hull_tests::shell::names(&view.at("d/sub")), ["a"]);
    assert_eq!(fs::metadata(view.at("d/sub")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(view.at("d")).unwrap().mode() & 0o7777, 0o700);
    verify(&store).await;
}

/// The files that links to lower layers become, and marks of whiteouts, are those of the layer's list.
#[tokio::test]
async fn links_to_symlinks_of_lower_layers_and_stale_whiteouts_are_verified() {
    if !can_run("links_to_symlinks_of_lower_layers_and_stale_whiteouts_are_verified") {
        return;
    }
    let store = TestStore::new();
    let lower = Layer::new().dir("t", 0o755).symlink("t/link", "nowhere");
    let upper = Layer::new().hard_link("t/one", "t/link").hard_link("t/two", "t/link");
    let upper = upper.dir("new", 0o755).whiteout("new/nothing").file("new/file", 0o644, "");
    let image = import(&store, vec![lower, upper]).await;
    let view = View::of(&image);
    let inode = |path: &str| fs::symlink_metadata(view.at(path)).unwrap().ino();
    for path in ["t/one", "t/two"] {
        assert_eq!(fs::read_link(view.at(path)).unwrap(), PathBuf::from("nowhere"), "{path}");
    }
    assert_eq!(inode("t/one"), inode("t/two"));
    assert_eq!(hull_tests::shell::names(&view.at("new")), ["file"]);
    verify(&store).await;
}

/// Records of an earlier Hull do not say which directories a layer implies.
#[tokio::test]
async fn a_layer_of_an_older_record_is_completed_when_it_is_pulled_again() {
    if !can_run("a_layer_of_an_older_record_is_completed_when_it_is_pulled_again") {
        return;
    }
    let layers =
        || vec![Layer::new().dir_of("d", 0o700, 7, 7), Layer::new().file("d/x", 0o644, "x")];
    let store = TestStore::new();
    let image = import(&store, layers()).await;
    let record =
        store.at("images").join(format!("{}.json", image.id.trim_start_matches("sha256:")));
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("directories");
    for layer in value["layers"].as_array_mut().unwrap() {
        let layer = layer.as_object_mut().unwrap();
        layer.retain(|key, _| !key.contains("implie"));
        assert!(layer.contains_key("inventory"), "{layer:?}");
    }
    fs::write(&record, value.to_string()).unwrap();
    let store = store.again();
    let old = store.store.find("example.org/stack:1").unwrap();
    assert_eq!(fs::metadata(View::of(&old).at("d")).unwrap().mode() & 0o7777, 0o755);
    let image = import(&store, layers()).await;
    let stat = fs::metadata(View::of(&image).at("d")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid()), (0o700, 7));
    verify(&store).await;
    let image = store.again().store.find("example.org/stack:1").unwrap();
    assert_eq!(image.layers.len(), 3, "{image:?}");
}

/// An earlier Hull removes the layer of directories, which it does not know.
#[tokio::test]
async fn an_image_without_its_layer_of_directories_is_pulled_again() {
    if !can_run("an_image_without_its_layer_of_directories_is_pulled_again") {
        return;
    }
    let layers =
        || vec![Layer::new().dir_of("d", 0o700, 7, 7), Layer::new().file("d/x", 0o644, "x")];
    let store = TestStore::new();
    let image = import(&store, layers()).await;
    assert_eq!(image.layers.len(), 3, "{image:?}");
    fs::remove_dir_all(&image.layers[0]).unwrap();
    let store = store.again();
    let listed = store.store.find("example.org/stack:1").unwrap();
    assert!(!store.store.is_whole(&listed));
    let image = import(&store, layers()).await;
    assert!(store.store.is_whole(&image));
    let stat = fs::metadata(View::of(&image).at("d")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid()), (0o700, 7));
    verify(&store).await;
}

/// A whiteout hides a name, and not the file that another name of the layer has.
#[tokio::test]
async fn a_link_to_what_its_layer_removes_has_the_content_from_below() {
    if !can_run("a_link_to_what_its_layer_removes_has_the_content_from_below") {
        return;
    }
    let lower =
        || Layer::new().dirs(&["a", "a/b"]).file("a/b/f", 0o644, "low").file("a/b/g", 0o644, "");
    let new = Layer::new;
    for (what, upper) in [
        ("link, then whiteout", new().hard_link("new/h", "a/b/f").whiteout("a/b/f")),
        ("whiteout, then link", new().whiteout("a/b/f").hard_link("new/h", "a/b/f")),
        ("link, then opaque", new().hard_link("new/h", "a/b/f").opaque("a/b")),
        ("opaque, then link", new().opaque("a/b").hard_link("new/h", "a/b/f")),
        ("link, then whiteout above", new().hard_link("new/h", "a/b/f").whiteout("a/b")),
        ("whiteout above, then link", new().whiteout("a/b").hard_link("new/h", "a/b/f")),
        ("two links", new().whiteout("a/b/f").hard_link("new/h", "a/b/f").hard_link("x", "new/h")),
    ] {
        let store = TestStore::new();
        let image = import(&store, vec![lower(), upper]).await;
        let view = View::of(&image);
        assert_eq!(fs::read_to_string(view.at("new/h")).unwrap(), "low", "{what}");
        assert!(fs::symlink_metadata(view.at("a/b/f")).is_err(), "{what}");
        verify(&store).await;
    }
}

/// Such a link waits for the layers below, and takes the place of what the layer has there meanwhile.
#[tokio::test]
async fn a_link_into_a_layer_below_replaces_an_earlier_entry_of_its_name() {
    if !can_run("a_link_into_a_layer_below_replaces_an_earlier_entry_of_its_name") {
        return;
    }
    let lower = Layer::new().file("x", 0o644, "from below");
    let upper = Layer::new()
        .file("b", 0o600, "replaced")
        .dir("c", 0o755)
        .file("c/in", 0o644, "")
        .hard_link("a", "x")
        .hard_link("b", "x")
        .hard_link("c", "x");
    let store = TestStore::new();
    let image = import(&store, vec![lower, upper]).await;
    let view = View::of(&image);
    let first = fs::metadata(view.at("a")).unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(fs::read_to_string(view.at(name)).unwrap(), "from below", "{name}");
        assert_eq!(fs::metadata(view.at(name)).unwrap().ino(), first.ino(), "{name}");
    }
    verify(&store).await;
}

/// Layers with a link to `a` of the layer below and later entries: the names of that file, of which all but `a` are links
/// to one file, and those of files with other content.
type LaterEntries =
    (&'static str, Layer, &'static [&'static str], &'static [(&'static str, &'static str)]);

fn later_entries() -> [LaterEntries; 13] {
    let new = Layer::new;
    let begun = || new().hard_link("b", "a");
    [
        ("a file", begun().file("a", 0o644, "new"), &["b"], &[("a", "new")]),
        ("a file twice", begun().file("a", 0o644, "").file("a", 0o644, "x"), &["b"], &[("a", "x")]),
        ("a symlink", begun().symlink("a", "c").file("c", 0o644, "c"), &["b"], &[("a", "c")]),
        ("a directory", begun().dir("a", 0o755).file("a/x", 0o644, "x"), &["b"], &[("a/x", "x")]),
        ("a removal", begun().whiteout("a"), &["b"], &[]),
        (
            "a link to the new",
            begun().file("a", 0o644, "new").hard_link("c", "a"),
            &["b"],
            &[("a", "new"), ("c", "new")],
        ),
        (
            "the link itself",
            begun().hard_link("c", "b").hard_link("d", "a").file("b", 0o644, "own"),
            &["a", "c", "d"],
            &[("b", "own")],
        ),
        (
            "an old name of the link",
            new().file("b", 0o644, "old").hard_link("b", "a").hard_link("c", "b"),
            &["b", "c"],
            &[],
        ),
        (
            "its directory",
            new().dir("d", 0o755).hard_link("d/b", "a").hard_link("c", "d/b").file("d", 0o644, "d"),
            &["c"],
            &[("d", "d")],
        ),
        (
            "a symlink on its way",
            new().dir("r", 0o755).symlink("s", "r").hard_link("s/b", "a").dir("s", 0o755),
            &["r/b"],
            &[],
        ),
        (
            "the same link again",
            begun().hard_link("b", "a").hard_link("b", "b").hard_link("c", "./b"),
            &["b", "c"],
            &[],
        ),
        (
            "a link in the place of its directory",
            new().dir("d", 0o755).hard_link("d/b", "a").hard_link("d", "a"),
            &["d"],
            &[],
        ),
        (
            "another link",
            new().hard_link("b", "other").hard_link("b", "a").hard_link("c", "b"),
            &["b", "c"],
            &[],
        ),
    ]
}

/// A link names the file that has that name when its turn comes, as with tar. That file is in a layer below, so it is
/// looked up much later.
#[tokio::test]
async fn what_a_link_names_does_not_change_by_later_entries() {
    if !can_run("what_a_link_names_does_not_change_by_later_entries") {
        return;
    }
    for (what, upper, old, others) in later_entries() {
        let lowest = Layer::new().file("a", 0o644, "hidden").file("other", 0o644, "other");
        let store = TestStore::new();
        let image =
            import(&store, vec![lowest, Layer::new().file_of("a", 0o4750, 7, "low"), upper]).await;
        let view = View::of(&image);
        let first = old.iter().find(|name| **name != "a").unwrap();
        let inode = fs::metadata(view.at(first)).unwrap().ino();
        for name in old {
            let stat = fs::metadata(view.at(name)).unwrap();
            assert_eq!(fs::read_to_string(view.at(name)).unwrap(), "low", "{what}: {name}");
            assert_eq!((stat.mode() & 0o7777, stat.uid()), (0o4750, 7), "{what}: {name}");
            assert!(*name == "a" || stat.ino() == inode, "{what}: {name} is another file");
            let mut names = [0; 4096];
            let length = rustix::fs::listxattr(view.at(name), names.as_mut_slice()).unwrap();
            assert_eq!(length, 0, "{what}: {name} has a mark");
        }
        for (name, content) in others {
            assert_eq!(fs::read_to_string(view.at(name)).unwrap(), *content, "{what}: {name}");
        }
        verify(&store).await;
    }
}

/// A link to a file by another way to it is that file.
#[tokio::test]
async fn a_link_to_its_own_file_through_a_symlink_changes_nothing() {
    if !can_run("a_link_to_its_own_file_through_a_symlink_changes_nothing") {
        return;
    }
    let layer = Layer::new().dir("r", 0o755).file("r/f", 0o644, "x").symlink("s", "r");
    let store = TestStore::new();
    let image = import(&store, vec![layer.hard_link("s/f", "r/f")]).await;
    assert_eq!(fs::read_to_string(View::of(&image).at("r/f")).unwrap(), "x");
    verify(&store).await;
}

/// An opaque mark of the root hides all layers below, which overlayfs does not do by itself.
#[tokio::test]
async fn an_opaque_root_hides_all_layers_below() {
    if !can_run("an_opaque_root_hides_all_layers_below") {
        return;
    }
    let new = Layer::new;
    let lower = || new().dir_of("./", 0o711, 7, 7).dir("d", 0o700).file("d/low", 0o644, "");
    for (what, middle) in [
        ("first", new().opaque("").file("d/mid", 0o644, "")),
        ("last", new().file("d/mid", 0o644, "").opaque("")),
        (
            "by another name",
            new().file("d/mid", 0o644, "").hostile(
                tar::EntryType::Regular,
                "d/../.wh..wh..opq",
                "",
                b"",
            ),
        ),
        (
            "through a symlink",
            new().symlink("l", "/").opaque("l").whiteout("l").file("d/mid", 0o644, ""),
        ),
    ] {
        let store = TestStore::new();
        let upper = new().file("top", 0o644, "");
        let image =
            import(&store, vec![new().file("lowest", 0o644, ""), lower(), middle, upper]).await;
        let view = View::of(&image);
        let names: Vec<_> =
            hull_tests::shell::names(&view.at("")).into_iter().filter(|name| name != "l").collect();
        assert_eq!(names, ["d", "top"], "{what}");
        assert_eq!(hull_tests::shell::names(&view.at("d")), ["mid"], "{what}");
        let stat = fs::metadata(view.at(".")).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.uid()), (0o711, 7), "{what}: the root is the same");
        let mode = fs::metadata(view.at("d")).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o755, "{what}: and not the directories in it");
        verify(&store).await;
        // Records of an earlier Hull do not say so.
        let record = format!("{}.json", image.id.trim_start_matches("sha256:"));
        let record = store.at("images").join(record);
        let text = fs::read_to_string(&record).unwrap();
        assert!(text.contains("\"hides_below\":true"), "{text}");
        fs::write(&record, text.replace(",\"hides_below\":true", "")).unwrap();
        let store = store.again();
        let image = store.store.find("example.org/stack:1").unwrap();
        assert_eq!(hull_tests::shell::names(&View::of(&image).at("d")), ["mid"], "{what}: again");
    }
    // A hard link finds nothing there.
    let store = TestStore::new();
    let layers = vec![lower(), new().opaque(""), new().hard_link("x", "d/low")];
    let archive = layers.into_iter().map(Layer::tar).collect();
    let archive = oci_archive(&image::Image::new(archive, json!({})).pack(), "example.org/stack:1");
    let mut spool = store.store.spool().unwrap();
    std::io::Write::write_all(&mut spool, &archive).unwrap();
    let err = store.store.import(spool, None).await.unwrap_err();
    assert!(told(&err).contains("hard link to `d/low`"), "{}", told(&err));
}

/// The paths that a stack of layers shows: the content of each file, or `None` for a directory.
type Model = BTreeMap<String, Option<String>>;

/// A layer of random files, hard links and directories, whose entries change `model` in their order.
fn random_layer(random: &mut Random, model: &mut Model, number: usize) -> Layer {
    const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "d/a", "d/b", "e/a", "e/b"];
    let (mut layer, mut gone) = (Layer::new(), BTreeSet::new());
    for turn in 0..2 + random.below(8) {
        let name = *random.pick(&NAMES);
        let parent = name.split_once('/').map(|(parent, _)| parent);
        let has_no_parent = |of| matches!(model.get(of), Some(Some(_)));
        // A directory that comes again shows what is below, unlike with tar.
        if parent.is_some_and(|of| has_no_parent(of) || gone.contains(of)) {
            continue;
        }
        let files: Vec<String> =
            model.iter().filter(|(_, of)| of.is_some()).map(|(name, _)| name.clone()).collect();
        let (next, content) = match random.below(5) {
            0 if parent.is_none() && !gone.contains(name) => (layer.dir(name, 0o755), None),
            1 | 2 if !files.is_empty() => {
                let target = random.pick(&files);
                let content = model[target].clone();
                if target == name || target.starts_with(&format!("{name}/")) {
                    continue;
                }
                (layer.hard_link(name, target), content)
            }
            _ => {
                let text = format!("{number}.{turn}");
                (layer.file(name, 0o644, &text), Some(text))
            }
        };
        layer = next;
        if content.is_some() {
            if model.get(name) == Some(&None) {
                gone.insert(name);
            }
            model.retain(|path, _| !path.starts_with(&format!("{name}/")));
        }
        model.insert(name.to_owned(), content);
        if let Some(parent) = parent {
            model.insert(parent.to_owned(), None);
        }
    }
    layer
}

#[tokio::test]
async fn a_stack_shows_what_its_entries_make_in_their_order() {
    let test = "a_stack_shows_what_its_entries_make_in_their_order";
    if !can_run(test) {
        return;
    }
    let (store, random) = (TestStore::new(), Random::new(random::seed(test)));
    for round in 0..50 {
        let (mut random, mut model) = (random.fork(round), Model::new());
        let layers: Vec<Layer> =
            (0..3).map(|number| random_layer(&mut random, &mut model, number)).collect();
        let image = import(&store, layers).await;
        let view = View::of(&image);
        for (name, content) in &model {
            let is_directory = fs::symlink_metadata(view.at(name)).unwrap().is_dir();
            assert_eq!(is_directory, content.is_none(), "round {round}: {name}");
            let found = fs::read_to_string(view.at(name)).ok();
            assert_eq!(&found, content, "round {round}: {name}");
        }
        let top = hull_tests::shell::names(&view.at("."));
        let known: Vec<_> = model.keys().filter(|name| !name.contains('/')).collect();
        assert_eq!(top.iter().collect::<Vec<_>>(), known, "round {round}");
    }
}
