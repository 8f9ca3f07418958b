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
