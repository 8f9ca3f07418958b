// SPDX-License-Identifier: Apache-2.0
//! Archives that are imported, good ones and broken ones.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{TestStore, can_run, told};
use hull_image::{ErrorKind, Imported, read_inside, view};
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
    store.store.import(spool, name).await.map(|imported| imported.images)
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

/// A layer whose record was damaged has no image, but containers may run on it until the machine restarts.
#[tokio::test]
async fn a_layer_that_lost_its_record_stays_until_the_machine_restarts() {
    if !can_run("a_layer_that_lost_its_record_stays_until_the_machine_restarts") {
        return;
    }
    let store = TestStore::new();
    let archive = oci_archive(&image().pack(), "example.org/app:1");
    let imported = import(&store, &archive, None).await.unwrap();
    let record = store.at(&format!("images/{}", store.names("images")[0]));
    std::fs::write(&record, "").unwrap();
    let store = store.again_damaged();
    assert!(store.store.find("example.org/app:1").is_none());
    let again = import(&store, &archive, None).await.unwrap();
    assert_eq!(again[0].image.id, imported[0].image.id);
    let old = |store: &TestStore| {
        let names = store.names("layers").into_iter();
        names.filter(|name| name.starts_with("replaced-")).collect::<Vec<_>>()
    };
    let kept = old(&store);
    assert_eq!(kept.len(), 2, "{kept:?}");
    // As the log asks for.
    for name in store.names("images").iter().filter(|name| name.ends_with(".bad")) {
        std::fs::remove_file(store.at(&format!("images/{name}"))).unwrap();
    }
    let store = store.again();
    assert_eq!(old(&store), kept);
    // Those of another boot go.
    let layers = store.at("layers");
    std::fs::rename(layers.join(&kept[0]), layers.join("replaced-of-another-boot")).unwrap();
    let store = store.again();
    assert_eq!(old(&store), kept[1..]);
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

/// An archive whose two layers lie beside the names that the manifest has for them, and the image's id.
fn archive_without_layers() -> (Layer, String) {
    let of = image();
    let packed = of.pack();
    let manifest =
        json!([{"Config": "c.json", "RepoTags": null, "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    let archive = Layer::new()
        .file("c.json", 0o644, &packed.blobs[0].bytes)
        .file("shared/one.tar", 0o644, &of.layers[0].0)
        .file("2/real.tar", 0o644, &of.layers[1].0)
        .file("manifest.json", 0o644, manifest.to_string());
    (archive, packed.id())
}

#[tokio::test]
async fn links_in_an_archive_are_followed_within_it() {
    if !can_run("links_in_an_archive_are_followed_within_it") {
        return;
    }
    let (archive, id) = archive_without_layers();
    let archive =
        archive.symlink("1/layer.tar", "../shared/one.tar").hard_link("2/layer.tar", "2/real.tar");
    let store = TestStore::new();
    let imported = import(&store, &archive.tar(), None).await.unwrap();
    assert_eq!(imported[0].names.len(), 0);
    assert!(store.again().store.find(&id).is_some(), "without a name it has its id");
}

/// In an archive as in a root: what climbs above it is at it.
#[tokio::test]
async fn links_that_climb_out_of_an_archive_stop_at_its_root() {
    if !can_run("links_that_climb_out_of_an_archive_stop_at_its_root") {
        return;
    }
    let (archive, id) = archive_without_layers();
    let archive = archive
        .hostile(tar::EntryType::Symlink, "1/layer.tar", "../../../shared/one.tar", b"")
        .hostile(tar::EntryType::Link, "2/layer.tar", "../../2/real.tar", b"");
    let store = TestStore::new();
    import(&store, &archive.tar(), None).await.unwrap();
    assert!(store.store.find(&id).is_some());
}

#[tokio::test]
async fn an_archive_has_limits_that_its_error_names() {
    let small = TestStore::configured(|config| config.limits.archive_bytes = 1 << 20);
    let usual = TestStore::new();
    let zeros = Layer::new().file("zeros", 0o644, vec![0; 8 << 20]).tar();
    let many = (0..100_001).fold(Layer::new(), |layer, _| layer.file("x", 0o644, ""));
    let deep = format!("{}/", "d".repeat(200)).repeat(18);
    let names = (0..5000)
        .fold(Layer::new(), |layer, number| layer.file(&format!("{deep}{number}"), 0o644, ""));
    let saved = json!({"Config": "c", "Layers": []});
    let mut config = br#"{"rootfs": {}}"#.to_vec();
    config.resize(1 << 20, b' ');
    let documents = Layer::new().file("c", 0o644, config).file(
        "manifest.json",
        0o644,
        json!(vec![saved; 200]).to_string(),
    );
    for (store, archive, says) in [
        (
            &small,
            zeros,
            "1048576 bytes that are allowed (hint: if you trust the archive, raise `archive_bytes_max`",
        ),
        (&usual, many.tar(), "100000 entries that are allowed"),
        (&usual, names.tar(), "16777216 bytes of names that are allowed"),
        (&usual, documents.tar(), "134217728 bytes of documents that are allowed"),
    ] {
        for how in [Compression::Gzip, Compression::Zstd] {
            let err = import(store, &how.pack(&archive), None).await.unwrap_err();
            assert!(
                err.kind() == ErrorKind::Corrupt && told(&err).contains(says),
                "{}",
                told(&err)
            );
        }
    }
    assert!(small.names("tmp").is_empty() && usual.names("tmp").is_empty());
    // One that is not compressed takes its room as it comes.
    let mut spool = small.store.spool().unwrap();
    spool.write_all(&[0; 1 << 20]).unwrap();
    let err = spool.write_all(b"x").unwrap_err();
    assert!(err.to_string().contains("archive_bytes_max"), "{err}");
}

/// Records of an older hull, with names as their callers spelled them.
#[tokio::test]
async fn names_of_older_records_are_found_in_every_spelling() {
    if !can_run("names_of_older_records_are_found_in_every_spelling") {
        return;
    }
    let store = TestStore::new();
    let mut other = image();
    other.config = json!({"Cmd": ["/y"]});
    let mut ids = Vec::new();
    for (of, name) in [(image(), "reg.example.org/app:1"), (other, "reg.example.org/app:2")] {
        let imported = import(&store, &oci_archive(&of.pack(), name), None).await.unwrap();
        ids.push(imported[0].image.id.clone());
    }
    let respell = |id: &str, tags: serde_json::Value| {
        let path = store.at("images").join(format!("{}.json", &id[7..]));
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let digest = record["digests"][0].as_str().unwrap();
        record["digests"] = json!([digest.replace("reg.example.org", "Reg.Example.org:0443")]);
        record["tags"] = tags;
        std::fs::write(&path, record.to_string()).unwrap();
    };
    respell(
        &ids[0],
        json!(["REG.example.org:443/app:1", "registry-1.docker.io/library/app:1", "UPPER/app:1"]),
    );
    // A tag that the first has too, and here it is as it should be.
    respell(&ids[1], json!(["index.docker.io/library/app:2", "reg.example.org/app:1"]));
    let store = store.again();
    let at = |name: &str| store.store.find(name).map(|image| image.id.clone());
    for name in [
        "app:1",
        "docker.io/app:1",
        "registry-1.docker.io/library/app:1",
        "upper:443/app:1",
        "UPPER/app:1",
    ] {
        assert_eq!(at(name).as_ref(), Some(&ids[0]), "{name}");
    }
    for name in ["app:2", "reg.example.org/app:1", "REG.example.org:443/app:1"] {
        assert_eq!(at(name).as_ref(), Some(&ids[1]), "{name}");
    }
    let digest = store.store.find("app:2").unwrap().repo_digests[0].clone();
    assert!(digest.starts_with("reg.example.org/app@"), "{digest}");
    assert_eq!(
        at(&digest.replace("reg.example.org", "reg.EXAMPLE.org:443")).as_ref(),
        Some(&ids[1])
    );
    let tags = &store.store.find("app:1").unwrap().repo_tags;
    assert_eq!(*tags, ["docker.io/library/app:1", "upper:443/app:1"]);
    store.store.untag("index.docker.io/library/app:2", &|_| false).unwrap();
    assert_eq!(at("app:2"), None);
    let again = store.again();
    let left = again.store.find("reg.example.org/app:1").unwrap();
    assert_eq!((&left.id, left.repo_tags.len()), (&ids[1], 1));
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
    let saved = |layers: &[&str]| {
        let manifest = json!([{"Config": "c.json", "RepoTags": null, "Layers": layers}]);
        Layer::new().file("c.json", 0o644, &packed.blobs[0].bytes).file(
            "manifest.json",
            0o644,
            manifest.to_string(),
        )
    };
    let packed_short = Compression::Gzip.pack(&good);
    let corrupt = ErrorKind::Corrupt;
    for (archive, fault, says, hint) in [
        (b"this is not an archive".to_vec(), corrupt, "not an image archive", "give a tar archive"),
        (Vec::new(), corrupt, "not an image archive", "give a tar archive"),
        (Layer::new().file("x", 0o644, "y").tar(), corrupt, "manifest.json", "docker export"),
        (good[..good.len() / 2].to_vec(), corrupt, "archive", "copy"),
        (
            packed_short[..packed_short.len() / 2].to_vec(),
            corrupt,
            "damaged or cut short",
            "copy it",
        ),
        (damaged, corrupt, "should have digest", "copy the archive again"),
        (
            oci_archive(&foreign.pack(), "a/b:1"),
            ErrorKind::NotFound,
            "s390x",
            "docker pull --platform linux/",
        ),
        (
            Layer::new().hostile(tar::EntryType::Regular, "../manifest.json", "", b"").tar(),
            corrupt,
            "climbs",
            "another program",
        ),
        (saved(&["1.tar", "2.tar"]).tar(), corrupt, "1.tar is not in it", "with all of its layers"),
        (
            Layer::new().file("manifest.json", 0o644, "[{").tar(),
            corrupt,
            "manifest.json cannot be read",
            "save the image again",
        ),
    ] {
        let err = import(&store, &archive, None).await.unwrap_err();
        assert!(err.kind() == fault && told(&err).contains(says), "{}", told(&err));
        let given = err.hint().unwrap_or_default();
        assert!(given.contains(hint), "{}: {given}", told(&err));
        // Nothing is pulled or pushed here.
        assert!(!given.contains("push") && !given.contains("registr"), "{given}");
    }
    assert!(
        import(&store, &good, Some("No/Name")).await.unwrap_err().kind() == ErrorKind::BadReference
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
    assert_eq!(err.kind(), ErrorKind::Corrupt, "{}", told(&err));
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
    assert!(
        err.kind() == ErrorKind::Taken && told(&err).contains("another image"),
        "{}",
        told(&err)
    );
    store.store.tag(&other, "app:stable", true).unwrap();
    assert_eq!((at("app:stable"), at("example.org/app:1")), (Some(other), Some(one.clone())));

    assert_eq!(store.store.tag("nowhere:1", "x:1", true).unwrap_err().kind(), ErrorKind::NotFound);
    let digest = format!("x@{one}");
    let err = store.store.tag(&one, &digest, true).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::BadReference);
    assert!(store.again().store.find("app:stable").is_some());
}
