// SPDX-License-Identifier: Apache-2.0
//! Layers that are not what was stored, archives that go out and come back, limits, and a full disk.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Answer, Fake, TestStore, can_run, serves, told};
use hull_image::{ErrorKind, Image as Stored, Limits};
use hull_tests::image::{Image, Packed};
use hull_tests::layer::Layer;
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

fn packed() -> Packed {
    let base = Layer::new()
        .dirs(&["etc", "bin"])
        .file("etc/motd", 0o644, "welcome")
        .file("bin/app", 0o755, vec![7; 100_000])
        .hard_link("bin/other", "bin/app")
        .symlink("app", "bin/app");
    let top = Layer::new().file("etc/motd", 0o644, "welcome here").whiteout("app");
    Image::new(vec![base.tar(), top.tar()], json!({"Cmd": ["/bin/app"]})).pack()
}

/// The directory of an image's lowest layer.
fn lowest(image: &Stored) -> PathBuf {
    image.layers.last().unwrap().clone()
}

#[tokio::test]
async fn what_was_altered_is_found_and_only_the_broken_layer_fetched_again() {
    if !can_run("what_was_altered_is_found_and_only_the_broken_layer_fetched_again") {
        return;
    }
    let packed = packed();
    let fake = Fake::start(serves(&packed, "a/b", "1"));
    let store = TestStore::new();
    let image = store.pull(&format!("{}/a/b:1", fake.host)).await.unwrap();
    let all = store.store.verify(None).await.unwrap();
    assert!(all.len() == 2 && all.iter().all(|of| of.is_whole()), "{all:?}");

    let file = lowest(&image).join("bin/app");
    let kept = std::os::unix::fs::MetadataExt::ino(&fs::metadata(lowest(&image)).unwrap());
    fs::write(&file, vec![8; 100_000]).unwrap();
    fs::write(lowest(&image).join("etc/motd"), "").unwrap();
    assert!(store.store.is_whole(&image), "nobody has looked");
    let found = store.store.verify(Some(&image.id)).await.unwrap();
    let broken: Vec<_> = found.iter().filter(|of| !of.is_whole()).collect();
    assert_eq!(broken.len(), 1);
    let paths: Vec<&str> = broken[0].findings.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["etc/motd", "bin/app"]);
    assert!(!store.store.is_whole(&image));
    let err = store.store.create_rootfs("c", &image, &|uid, gid| (uid, gid)).unwrap_err();
    assert!(told(&err).contains("verify --repair"), "{}", told(&err));

    let before = fake.log().len();
    store.store.repair(&image.id, None).await.unwrap();
    let asked: Vec<String> = fake.log()[before..].iter().map(|of| of.path.clone()).collect();
    assert_eq!(asked.len(), 3, "manifest, config, one layer: {asked:?}");
    assert!(asked[2].contains(&packed.blobs[1].digest()));
    assert!(store.store.verify(None).await.unwrap().iter().all(|of| of.is_whole()));
    assert_eq!(fs::read(file).unwrap(), vec![7; 100_000]);
    let now = std::os::unix::fs::MetadataExt::ino(&fs::metadata(lowest(&image)).unwrap());
    assert_eq!(now, kept, "containers may be running on the rest");
    store.store.create_rootfs("c", &image, &|uid, gid| (uid, gid)).unwrap();
    assert!(store.names("tmp").is_empty());
}

#[tokio::test]
async fn after_a_boot_layers_are_looked_through_before_they_are_used() {
    if !can_run("after_a_boot_layers_are_looked_through_before_they_are_used") {
        return;
    }
    let fake = Fake::start(serves(&packed(), "a/b", "1"));
    let store = TestStore::new();
    let name = format!("{}/a/b:1", fake.host);
    let image = store.pull(&name).await.unwrap();
    store.store.scan_layers();
    let owner = |uid, gid| (uid, gid);

    // What a power cut leaves.
    fs::write(lowest(&image).join("bin/app"), "").unwrap();
    let store = store.again();
    store.store.create_rootfs("one", &image, &owner).unwrap();
    fs::write(store.at("boot"), "another boot").unwrap();
    let store = store.again();
    let err = store.store.create_rootfs("two", &image, &owner).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Corrupt);
    assert!(
        told(&err).contains("bin/app: it should have 100000 bytes and has 0"),
        "{}",
        told(&err)
    );
    assert!(!store.store.is_whole(&image));

    // As a kubelet would: the image is not there, so it is pulled.
    store.pull(&name).await.unwrap();
    store.store.create_rootfs("two", &image, &owner).unwrap();
    store.store.scan_layers();
    assert_ne!(fs::read_to_string(store.at("boot")).unwrap(), "another boot");
}

#[tokio::test]
async fn what_goes_out_as_an_archive_comes_back_as_the_same_image() {
    if !can_run("what_goes_out_as_an_archive_comes_back_as_the_same_image") {
        return;
    }
    let (packed, own) = (packed(), Layer::new().file("own", 0o644, "own").tar());
    let fake = Fake::start(serves(&packed, "a/b", "1"));
    let other = Image::new(vec![own], json!({})).pack();
    let second = Fake::start(serves(&other, "c/d", "2"));
    let store = TestStore::new();
    let (one, two) = (format!("{}/a/b:1", fake.host), format!("{}/c/d:2", second.host));
    let image = store.pull(&one).await.unwrap();
    store.pull(&two).await.unwrap();
    let mut archive = tempfile::tempfile().unwrap();
    store.store.export(&[one.clone(), two.clone()], &archive).unwrap();
    std::io::Seek::rewind(&mut archive).unwrap();

    let elsewhere = TestStore::new();
    let imported = elsewhere.store.import(archive.try_clone().unwrap(), None).await.unwrap().images;
    let names: Vec<&String> = imported.iter().flat_map(|of| &of.names).collect();
    assert_eq!(names, [&one, &two]);
    assert_eq!(imported[0].image.id, image.id);
    let digest_of = |names: &[String]| names.first().cloned();
    assert!(digest_of(&imported[0].image.repo_digests).is_some());
    let findings = elsewhere.store.verify(None).await.unwrap();
    assert!(findings.len() == 3 && findings.iter().all(|of| of.is_whole()));

    // The same by what `docker load` reads.
    std::io::Seek::rewind(&mut archive).unwrap();
    let mut saved = tar::Builder::new(tempfile::tempfile().unwrap());
    let mut entries = tar::Archive::new(&archive);
    for entry in entries.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        if !path.ends_with("index.json") && !path.ends_with("oci-layout") {
            let mut header = entry.header().clone();
            saved.append_data(&mut header, path, &mut entry).unwrap();
        }
    }
    let loaded = TestStore::new();
    let imported = loaded.store.import(saved.into_inner().unwrap(), None).await.unwrap().images;
    assert_eq!(imported[0].image.id, image.id);

    fs::write(lowest(&image).join("bin/app"), vec![8; 100_000]).unwrap();
    let err = store.store.export(&[one], std::io::sink()).unwrap_err();
    assert!(told(&err).contains("not what was stored"), "{}", told(&err));
}

/// Of a layer that replaces its own entries the files do not tell what the archive was.
#[tokio::test]
async fn a_layer_that_replaces_its_own_is_exported_from_its_blob() {
    if !can_run("a_layer_that_replaces_its_own_is_exported_from_its_blob") {
        return;
    }
    let layer = Layer::new().file("f", 0o644, "first").file("f", 0o644, "last");
    let packed = Image::new(vec![layer.tar()], json!({})).pack();
    let fake = Fake::start(serves(&packed, "a/b", "1"));
    let name = format!("{}/a/b:1", fake.host);
    let store = TestStore::new();
    store.pull(&name).await.unwrap();
    let err = store.store.export(std::slice::from_ref(&name), std::io::sink()).unwrap_err();
    assert!(told(&err).contains("replaces entries of its own"), "{}", told(&err));
    assert!(err.hint().unwrap().contains("keep_blobs"));

    let store = TestStore::configured(|config| config.keep_blobs = true);
    let image = store.pull(&name).await.unwrap();
    let archive = tempfile::tempfile().unwrap();
    store.store.export(std::slice::from_ref(&name), &archive).unwrap();
    let elsewhere = TestStore::new();
    let imported = elsewhere.store.import(archive, None).await.unwrap().images;
    assert_eq!(imported[0].image.id, image.id);
    assert_eq!(fs::read(lowest(&imported[0].image).join("f")).unwrap(), b"last");
}

#[tokio::test]
async fn layers_as_they_travel_are_kept_when_that_is_wanted() {
    if !can_run("layers_as_they_travel_are_kept_when_that_is_wanted") {
        return;
    }
    let packed = packed();
    let fake = Fake::start(serves(&packed, "a/b", "1"));
    let store = TestStore::configured(|config| config.keep_blobs = true);
    let name = format!("{}/a/b:1", fake.host);
    store.pull(&name).await.unwrap();
    let mut want: Vec<String> =
        packed.blobs[1..].iter().map(|of| of.digest()["sha256:".len()..].to_owned()).collect();
    want.sort();
    assert_eq!(store.names("blobs"), want);
    let path = store.at("blobs").join(packed.blobs[1].digest().trim_start_matches("sha256:"));
    assert!(fs::read(path).unwrap() == packed.blobs[1].bytes);
    let store = store.again();
    assert_eq!(store.names("blobs"), want);
    store.store.remove(&name, &|_| false).unwrap();
    assert!(store.names("blobs").is_empty() && store.names("inventories").is_empty());
}

#[tokio::test]
async fn a_bomb_goes_off_at_its_limit_and_leaves_nothing() {
    if !can_run("a_bomb_goes_off_at_its_limit_and_leaves_nothing") {
        return;
    }
    let large = Layer::new().file("zeros", 0o644, vec![0; 4 << 20]).tar();
    let many =
        (0..500).fold(Layer::new(), |layer, number| layer.file(&format!("f{number}"), 0o644, ""));
    let bytes = Limits { bytes: 1 << 20, ..Limits::default() };
    let entries = Limits { entries: 100, ..Limits::default() };
    for (tar, limits, said) in
        [(large, bytes, "layer_bytes_max"), (many.tar(), entries, "layer_entries_max")]
    {
        let fake = Fake::start(serves(&Image::new(vec![tar], json!({})).pack(), "a/b", "1"));
        let store = TestStore::configured(|config| config.limits = limits);
        let name = format!("{}/a/b:1", fake.host);
        let err = store.pull(&name).await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Corrupt, "{}", told(&err));
        assert!(told(&err).contains(said), "{}", told(&err));
        assert!(store.names("tmp").is_empty() && store.names("layers").is_empty());
        assert!(store.names("inventories").is_empty());
    }
}

/// A small filesystem of a test's own, gone with it.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={bytes},mode=700")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, Some(options.as_c_str()))
            .unwrap();
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(self.0.path(), flags).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_leaves_the_store_sound_and_says_how_much_was_needed() {
    if !can_run("a_full_disk_leaves_the_store_sound_and_says_how_much_was_needed") {
        return;
    }
    let small = Small::mount(3 << 20);
    let store = TestStore::configured(|config| config.root = small.0.path().join("store"));
    let layer = |byte: u8, size: usize| Layer::new().file("f", 0o644, vec![byte; size]).tar();
    let fits = Fake::start(serves(&Image::new(vec![layer(1, 9)], json!({})).pack(), "a/b", "1"));
    store.pull(&format!("{}/a/b:1", fits.host)).await.unwrap();

    // Small on its way, large when unpacked.
    let large = Image::new(vec![layer(2, 9), layer(3, 8 << 20)], json!({})).pack();
    let fake = Fake::start(serves(&large, "a/b", "1"));
    let err = store.pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
    assert!(
        told(&err).contains("bytes or more") && told(&err).contains("are free"),
        "{}",
        told(&err)
    );
    let left = fs::read_dir(small.0.path().join("store/tmp")).unwrap().count();
    assert_eq!(left, 0);
    let store = store.again();
    assert_eq!(store.store.list().len(), 1);
    assert_eq!(fs::read_dir(small.0.path().join("store/layers")).unwrap().count(), 1);

    // What cannot fit as it travels is not begun.
    let mut manifest: serde_json::Value = serde_json::from_slice(&large.manifest.bytes).unwrap();
    manifest["layers"][1]["size"] = json!(1_u64 << 40);
    let mut claims = large;
    claims.manifest.bytes = manifest.to_string().into_bytes();
    let fake = Fake::start(serves(&claims, "a/b", "1"));
    let err = store.pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
    assert!(told(&err).contains("it takes 10995116"), "{}", told(&err));
    assert_eq!(fake.log().len(), 2, "manifest and config");
}

#[tokio::test]
async fn twenty_pulls_at_once_fetch_every_blob_once() {
    if !can_run("twenty_pulls_at_once_fetch_every_blob_once") {
        return;
    }
    let shared = Layer::new().file("shared", 0o644, vec![5; 1 << 20]).tar();
    let image = |name: &str| {
        Image::new(vec![shared.clone(), Layer::new().file(name, 0o644, name).tar()], json!({}))
    };
    let (one, two) = (image("one").pack(), image("two").pack());
    let (of_one, of_two) = (serves(&one, "a/b", "1"), serves(&two, "c/d", "1"));
    let fake = Fake::start(move |asked| {
        let first = of_one(asked);
        let answer = if first.status == 200 { first } else { of_two(asked) };
        Answer { hangs_after: None, ..answer }
    });
    let store = Arc::new(TestStore::new());
    let pulls = (0..20).map(|number| {
        let (store, host) = (Arc::clone(&store), fake.host.clone());
        let name = if number % 2 == 0 { "a/b" } else { "c/d" };
        tokio::spawn(async move { store.pull(&format!("{host}/{name}:1")).await.unwrap() })
    });
    for pull in pulls.collect::<Vec<_>>() {
        let _image = pull.await.unwrap();
    }
    let mut paths: Vec<String> = fake.log().iter().map(|of| of.path.clone()).collect();
    let blobs = |paths: &[String]| paths.iter().filter(|path| path.contains("/blobs/")).count();
    // Two configs, the layer of each, and the one that both have, from one of the two.
    assert_eq!(blobs(&paths), 5, "{paths:?}");
    let digest = |path: &String| path.rsplit('/').next().unwrap().to_owned();
    paths.sort();
    paths.dedup_by_key(|path| digest(path));
    assert_eq!(blobs(&paths), 5);
}
