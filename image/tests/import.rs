// SPDX-License-Identifier: Apache-2.0
//! Archives that are imported, good ones and broken ones.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{TestStore, can_run, told};
use hull_image::{Fault, Imported, read_inside, view};
use hull_tests::image::{Image, docker_archive, oci_archive};
use hull_tests::layer::{Compression, Layer};
use serde_json::json;
use std::io::Write as _;
use std::os::fd::AsFd as _;

fn image() -> Image {
    let mut image = Image::new(Vec::new(), json!({"Cmd": ["/x"]}));
    image.layers = vec![
        (Layer::new().file("x", 0o755, "below").tar(), Compression::Gzip),
        (Layer::new().file("x", 0o755, "above").tar(), Compression::Zstd),
    ];
    image
}

async fn import(
    store: &TestStore,
    bytes: &[u8],
    name: Option<&str>,
) -> Result<Vec<Imported>, hull_image::Error> {
    let mut spool = store.store.spool().unwrap();
    spool.write_all(bytes).unwrap();
    // Not rewound: the store reads from the start in any case.
    store.store.import(spool, name).await
}

#[tokio::test]
async fn both_kinds_are_imported_compressed_or_not() {
    if !can_run("both_kinds_are_imported_compressed_or_not") {
        return;
    }
    let name = "example.org/app:1";
    let (oci, docker) = (oci_archive(&image().pack(), name), docker_archive(&image(), name));
    for archive in [&oci, &docker] {
        for how in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
            let store = TestStore::new();
            let imported = import(&store, &how.pack(archive), None).await.unwrap();
            assert_eq!(
                (imported.len(), imported[0].names.as_slice()),
                (1, [name.to_owned()].as_slice())
            );
            let store = store.again();
            let found = store.store.find(name).unwrap();
            assert_eq!(found.id, image().pack().id());
            let view = view(&found.layers).unwrap();
            assert_eq!(read_inside(view.as_fd(), "x", 100).unwrap().unwrap(), b"above");
            assert!(store.names("tmp").is_empty());
        }
    }
}

#[tokio::test]
async fn a_name_may_be_given_and_a_pinned_one_is_shown_so() {
    if !can_run("a_name_may_be_given_and_a_pinned_one_is_shown_so") {
        return;
    }
    let store = TestStore::new();
    let archive = oci_archive(&image().pack(), "example.org/app:1");
    let imported = import(&store, &archive, Some("busybox")).await.unwrap();
    assert_eq!(imported[0].names, ["docker.io/library/busybox:latest"]);
    assert!(
        store.store.find("busybox").is_some() && store.store.find("example.org/app:1").is_none()
    );
    assert!(!imported[0].image.pinned);
    import(&store, &archive, Some("pinned.example.org/one:1")).await.unwrap();
    assert!(store.store.find("busybox").unwrap().pinned);
}

#[tokio::test]
async fn links_in_an_archive_are_followed_within_it() {
    if !can_run("links_in_an_archive_are_followed_within_it") {
        return;
    }
    let of = image();
    let packed = of.pack();
    let manifest =
        json!([{"Config": "c.json", "RepoTags": null, "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    let archive = Layer::new()
        .file("c.json", 0o644, &packed.blobs[0].bytes)
        .file("shared/one.tar", 0o644, &of.layers[0].0)
        .symlink("1/layer.tar", "../shared/one.tar")
        .file("2/real.tar", 0o644, &of.layers[1].0)
        .hard_link("2/layer.tar", "2/real.tar")
        .file("manifest.json", 0o644, manifest.to_string());
    let store = TestStore::new();
    let imported = import(&store, &archive.tar(), None).await.unwrap();
    assert_eq!(imported[0].names.len(), 0);
    assert!(store.again().store.find(&packed.id()).is_some(), "without a name it has its id");
}

#[tokio::test]
async fn what_is_no_image_archive_is_told_so() {
    if !can_run("what_is_no_image_archive_is_told_so") {
        return;
    }
    let store = TestStore::new();
    let packed = image().pack();
    let good = oci_archive(&packed, "example.org/app:1");
    let mut damaged = good.clone();
    let needle = &packed.blobs[1].bytes[20..60];
    let at = damaged.windows(needle.len()).position(|window| window == needle).unwrap();
    damaged[at] ^= 0xff;
    let mut foreign = image();
    foreign.arch = "s390x".into();
    for (archive, fault, says) in [
        (b"this is no archive".to_vec(), Fault::Corrupt, "not an image archive"),
        (Vec::new(), Fault::Corrupt, "not an image archive"),
        (Layer::new().file("x", 0o644, "y").tar(), Fault::Corrupt, "manifest.json"),
        (good[..good.len() / 2].to_vec(), Fault::Corrupt, "archive"),
        (damaged, Fault::Corrupt, "should have digest"),
        (oci_archive(&foreign.pack(), "a/b:1"), Fault::NotFound, "s390x"),
        (
            Layer::new().hostile(tar::EntryType::Regular, "../manifest.json", "", b"").tar(),
            Fault::Corrupt,
            "climbs",
        ),
    ] {
        let err = import(&store, &archive, None).await.unwrap_err();
        assert!(err.fault() == fault && told(&err).contains(says), "{}", told(&err));
    }
    assert!(
        import(&store, &good, Some("No/Name")).await.unwrap_err().fault() == Fault::BadReference
    );
    assert!(store.store.list().is_empty() && store.names("tmp").is_empty());
}

/// An archive of several images, of which one is broken, leaves nothing; a good one has them all, and the
/// tag that two of them claim is the last one's.
#[tokio::test]
async fn of_several_images_all_are_imported_or_none() {
    if !can_run("of_several_images_all_are_imported_or_none") {
        return;
    }
    let layer = Layer::new().file("same", 0o644, "in all").tar();
    let archive = |last: &[u8], is_own: bool| {
        let mut archive =
            Layer::new().file("good.tar", 0o644, &layer).file("last.tar", 0o644, last);
        let mut manifest = Vec::new();
        for number in 0..5 {
            let mut image =
                Image::new(vec![layer.clone()], json!({"Env": [format!("N={number}")]}));
            if number == 4 && is_own {
                // A layer that is here already is not looked at again.
                image.claimed_diff_ids = Some(vec![hull_tests::image::digest(b"another")]);
            }
            let config = format!("{number}.json");
            archive = archive.file(&config, 0o644, &image.pack().blobs[0].bytes);
            let layers = [if number == 4 { "last.tar" } else { "good.tar" }];
            let tags = [format!("example.org/app:{number}"), "example.org/app:newest".into()];
            manifest.push(json!({"Config": config, "RepoTags": tags, "Layers": layers}));
        }
        archive.file("manifest.json", 0o644, json!(manifest).to_string()).tar()
    };
    let store = TestStore::new();
    let bad = Layer::new().file("other", 0o644, "than the config says").tar();
    let err = import(&store, &archive(&bad, true), None).await.unwrap_err();
    assert_eq!(err.fault(), Fault::Corrupt, "{}", told(&err));
    assert!(store.store.list().is_empty() && store.names("images").is_empty());

    let store = TestStore::new();
    let imported = import(&store, &archive(&layer, false), None).await.unwrap();
    assert_eq!(imported.len(), 5);
    let store = store.again();
    let names: Vec<usize> = store.store.list().iter().map(|of| of.repo_tags.len()).collect();
    assert_eq!((names.len(), names.iter().sum::<usize>()), (5, 6), "{names:?}");
    let newest = store.store.find("example.org/app:newest").unwrap();
    assert_eq!(newest.id, store.store.find("example.org/app:4").unwrap().id);
}

#[tokio::test]
async fn an_image_is_given_another_name_that_nobody_has() {
    if !can_run("an_image_is_given_another_name_that_nobody_has") {
        return;
    }
    let store = TestStore::new();
    let one = import(&store, &oci_archive(&image().pack(), "example.org/app:1"), None).await;
    let one = one.unwrap()[0].image.id.clone();
    let mut other = image();
    other.config = json!({"Cmd": ["/y"]});
    let other = import(&store, &oci_archive(&other.pack(), "example.org/app:2"), None).await;
    let other = other.unwrap()[0].image.id.clone();
    let at = |name: &str| store.store.find(name).map(|image| image.id.clone());

    store.store.tag(&one, "app:stable", false).unwrap();
    store.store.tag("example.org/app:1", "app:stable", false).unwrap();
    assert_eq!(at("docker.io/library/app:stable"), Some(one.clone()));
    let err = store.store.tag(&other, "app:stable", false).unwrap_err();
    assert!(err.fault() == Fault::Taken && told(&err).contains("another image"), "{}", told(&err));
    store.store.tag(&other, "app:stable", true).unwrap();
    assert_eq!((at("app:stable"), at("example.org/app:1")), (Some(other), Some(one.clone())));

    assert_eq!(store.store.tag("nowhere:1", "x:1", true).unwrap_err().fault(), Fault::NotFound);
    let digest = format!("x@{one}");
    let err = store.store.tag(&one, &digest, true).unwrap_err();
    assert_eq!(err.fault(), Fault::BadReference);
    assert!(store.again().store.find("app:stable").is_some());
}
