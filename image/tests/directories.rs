// SPDX-License-Identifier: Apache-2.0
//! Directories that a layer implies but does not list keep owner and mode from below.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{TestStore, can_run, told};
use hull_image::{Image, view};
use hull_tests::image::{self, oci_archive};
use hull_tests::layer::Layer;
use serde_json::json;
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

const NAME: &str = "example.org/app:1";

/// `/home/app` 0700 of 1000, `/srv/g` 2775 of group 2000, `/tmp` 1777, `/to` a link to `/home`.
fn lower() -> Layer {
    Layer::new()
        .dir("./", 0o755)
        .dir("home", 0o755)
        .dir_of("home/app", 0o700, 1000, 1000)
        .file_of("home/app/a", 0o600, 1000, "a")
        .dir("srv", 0o755)
        .dir_of("srv/g", 0o2775, 0, 2000)
        .dir("tmp", 0o1777)
        .symlink("to", "/home")
}

async fn import(store: &TestStore, layers: Vec<Layer>) -> Arc<Image> {
    let layers = layers.into_iter().map(Layer::tar).collect();
    let archive = oci_archive(&image::Image::new(layers, json!({})).pack(), NAME);
    let mut spool = store.store.spool().unwrap();
    std::io::Write::write_all(&mut spool, &archive).unwrap();
    let imported = store.store.import(spool, None).await;
    let mut imported = imported.unwrap_or_else(|err| panic!("{}", told(&err)));
    imported.images.pop().unwrap().image
}

/// Mode, user and group of a directory in the merged layers.
fn shown(image: &Image, path: &str) -> (u32, u32, u32) {
    let view = view(&image.layers).unwrap();
    let stat = fs::metadata(format!("/proc/self/fd/{}/{path}", view.as_raw_fd())).unwrap();
    (stat.mode() & 0o7777, stat.uid(), stat.gid())
}

const APP: (u32, u32, u32) = (0o700, 1000, 1000);
const DEFAULT: (u32, u32, u32) = (0o755, 0, 0);

#[tokio::test]
async fn a_directory_that_a_layer_only_implies_stays_as_it_is_below() {
    if !can_run("a_directory_that_a_layer_only_implies_stays_as_it_is_below") {
        return;
    }
    for (what, upper) in [
        ("a file", Layer::new().file("home/app/n", 0o644, "n")),
        ("a whiteout", Layer::new().whiteout("home/app/a")),
        ("an opaque mark", Layer::new().opaque("home/app")),
        ("a symlink", Layer::new().symlink("home/app/s", "a")),
        ("a hard link to below", Layer::new().hard_link("home/app/l", "home/app/a")),
        ("a file that comes twice", {
            Layer::new().file("home/app/n", 0o644, "1").file("home/app/n", 0o644, "2")
        }),
        ("a file far beneath", Layer::new().file("home/app/x/y/z", 0o644, "n")),
    ] {
        let store = TestStore::new();
        let image = import(&store, vec![lower(), upper]).await;
        assert_eq!(shown(&image, "home/app"), APP, "{what}");
        assert_eq!(shown(&image, "home"), DEFAULT, "{what}");
        assert_eq!(image.layers.len(), 3, "{what}");
        // It is an image like others after a restart, and stays one.
        let store = store.again();
        let image = store.store.find(NAME).unwrap();
        assert_eq!(shown(&image, "home/app"), APP, "{what}");
        let verified = store.store.verify(None).await.unwrap();
        assert!(verified.len() == 3 && verified.iter().all(|of| of.is_whole()), "{verified:?}");
        store.store.remove(&image.id, &|_| false).unwrap();
        assert!(store.names("layers").is_empty(), "{what}: {:?}", store.names("layers"));
    }
}

#[tokio::test]
async fn what_lies_between_decides() {
    if !can_run("what_lies_between_decides") {
        return;
    }
    let file = || Layer::new().file("home/app/n", 0o644, "n");
    let listed = || Layer::new().dir("home", 0o711).dir_of("home/app", 0o750, 7, 8);
    for (what, layers, wanted) in [
        ("two that imply it", vec![file(), file().file("x", 0o644, "")], APP),
        ("one that lists it", vec![listed(), file()], (0o750, 7, 8)),
        ("listed above", vec![file(), listed()], (0o750, 7, 8)),
        ("a whiteout of it", vec![Layer::new().whiteout("home/app"), file()], DEFAULT),
        ("a whiteout above it", vec![Layer::new().whiteout("home"), file()], DEFAULT),
        ("an opaque parent", vec![Layer::new().opaque("home"), file()], DEFAULT),
        ("opaque itself", vec![Layer::new().opaque("home/app"), file()], APP),
        ("a file in its place", vec![Layer::new().file("home/app", 0o644, ""), file()], DEFAULT),
        ("listed after its file", vec![file().dir_of("home/app", 0o701, 5, 6)], (0o701, 5, 6)),
        (
            "listed beneath a link",
            vec![
                Layer::new()
                    .symlink("way", "home")
                    .file("home/app/n", 0o644, "")
                    .dir("way/app", 0o705),
            ],
            (0o705, 0, 0),
        ),
    ] {
        let store = TestStore::new();
        let all = std::iter::once(lower()).chain(layers).collect();
        let image = import(&store, all).await;
        assert_eq!(shown(&image, "home/app"), wanted, "{what}");
    }
}

#[tokio::test]
async fn other_modes_links_and_the_root_are_kept_too() {
    if !can_run("other_modes_links_and_the_root_are_kept_too") {
        return;
    }
    let store = TestStore::new();
    let base = Layer::new().dir_of("./", 0o711, 3, 4);
    let upper = Layer::new()
        .file("srv/g/x", 0o644, "")
        .file("tmp/app/cfg", 0o644, "")
        .file("to/app/n", 0o644, "");
    let image = import(&store, vec![lower(), base, upper]).await;
    assert_eq!(shown(&image, "srv/g"), (0o2775, 0, 2000));
    assert_eq!(shown(&image, "tmp"), (0o1777, 0, 0));
    assert_eq!(shown(&image, "tmp/app"), DEFAULT);
    // As in containerd the directory replaces the link, with what the link led to.
    assert_eq!(shown(&image, "to/app"), APP);
    assert_eq!(shown(&image, ""), (0o711, 3, 4));
    let rootfs = store.store.create_rootfs("c", &image, &|uid, gid| (uid, gid)).unwrap();
    let stat = fs::metadata(rootfs.upper).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o711, 3, 4));
}

#[tokio::test]
async fn an_image_whose_layers_list_everything_gets_no_layer_more() {
    if !can_run("an_image_whose_layers_list_everything_gets_no_layer_more") {
        return;
    }
    let store = TestStore::new();
    let upper = Layer::new().dir_of("home/app", 0o700, 1000, 1000).file("home/app/n", 0o644, "");
    let image = import(&store, vec![lower(), upper]).await;
    assert_eq!((image.layers.len(), shown(&image, "home/app")), (2, APP));
    // Nor one in which the defaults are right.
    let upper = Layer::new().file("srv/new/deep", 0o644, "").file("home/f", 0o644, "");
    assert_eq!(import(&store, vec![lower(), upper]).await.layers.len(), 2);
}

/// Layers are shared: what one image shows of a directory is not what another does.
#[tokio::test]
async fn images_that_share_a_layer_each_have_their_own_directories() {
    if !can_run("images_that_share_a_layer_each_have_their_own_directories") {
        return;
    }
    let store = TestStore::new();
    let upper = || Layer::new().file("home/app/n", 0o644, "n");
    let other = Layer::new().dir("home", 0o755).dir_of("home/app", 0o777, 9, 9);
    let one = import(&store, vec![lower(), upper()]).await;
    let two = import(&store, vec![other, upper()]).await;
    let alone = import(&store, vec![upper()]).await;
    assert_eq!(shown(&one, "home/app"), APP);
    assert_eq!(shown(&two, "home/app"), (0o777, 9, 9));
    assert_eq!(shown(&alone, "home/app"), DEFAULT);
    assert_eq!(one.layers[1], two.layers[1]);
    // The id and the export are those of the image, without the layer that Hull adds.
    let archive = tempfile::tempfile().unwrap();
    store.store.export(std::slice::from_ref(&one.id), &archive).unwrap();
    let elsewhere = TestStore::new();
    let again = elsewhere.store.import(archive, None).await.unwrap();
    assert_eq!(again.images[0].image.id, one.id);
    assert_eq!(shown(&again.images[0].image, "home/app"), APP);
}

#[tokio::test]
async fn an_image_of_as_many_layers_as_can_be_mounted_is_stacked_whole() {
    if !can_run("an_image_of_as_many_layers_as_can_be_mounted_is_stacked_whole") {
        return;
    }
    let file =
        |number: usize| Layer::new().file(&format!("l/f{number}"), 0o644, number.to_string());
    for count in [499, 500] {
        let store = TestStore::new();
        let image = import(&store, (0..count).map(file).collect()).await;
        let rootfs = store.store.rootfs("c", &image);
        assert_eq!(rootfs.lower.len(), 500);
        let mounted = view(&rootfs.lower).unwrap();
        let names = fs::read_dir(format!("/proc/self/fd/{}/l", mounted.as_raw_fd())).unwrap();
        assert_eq!(names.count(), count);
        assert!(store.store.volume_layers(&image).len() <= 500);
    }
    // With the layer of directories it would be one too many.
    let store = TestStore::new();
    let layers = std::iter::once(lower()).chain((0..499).map(file));
    let layers = layers.chain([]).enumerate().map(|(number, layer)| match number {
        1 => layer.file("home/app/n", 0o644, ""),
        _ => layer,
    });
    let packed = image::Image::new(layers.map(Layer::tar).collect(), json!({})).pack();
    let mut spool = store.store.spool().unwrap();
    std::io::Write::write_all(&mut spool, &oci_archive(&packed, NAME)).unwrap();
    let err = store.store.import(spool, None).await.unwrap_err();
    assert!(told(&err).contains("more than the 500"), "{}", told(&err));
    assert!(store.store.list().is_empty());
}
