// SPDX-License-Identifier: Apache-2.0
//! Pulls from Debian's real `docker-registry`, and what the store makes of them.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{TestStore, can_run, told};
use hull_image::{Auth, ErrorKind, Progress, ProgressState, Reference, read_inside, view};
use hull_tests::fixture::{busybox_image, busybox_layer};
use hull_tests::image::{Image, digest, this_arch};
use hull_tests::layer::{Compression, Layer};
use hull_tests::registry::{PASSWORD, Registry, USER};
use serde_json::json;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;

fn text(image: &hull_image::Image, path: &str) -> Option<String> {
    let view = view(&image.layers).unwrap();
    let bytes = read_inside(view.as_fd(), path, 1 << 20).unwrap()?;
    Some(String::from_utf8(bytes).unwrap())
}

fn small(content: &str) -> Image {
    Image::new(vec![Layer::new().file("file", 0o644, content).tar()], json!({"Cmd": ["/file"]}))
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_digest_and_found_by_every_name() {
    if !can_run("an_image_is_pulled_by_tag_and_digest_and_found_by_every_name") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let packed = busybox_image().pack();
    let tagged = registry.push("tests/busybox", "1", &packed);
    let image = store.pull(&tagged).await.unwrap();
    assert_eq!(image.id, packed.id());
    let digested = format!("{}/tests/busybox@{}", registry.host, packed.manifest.digest());
    assert_eq!(
        (&image.repo_tags, &image.repo_digests),
        (&vec![tagged.clone()], &vec![digested.clone()])
    );
    assert!(image.size > 500_000, "{}", image.size);
    assert_eq!(image.config.config().as_ref().unwrap().cmd().as_ref().unwrap(), &["sh"]);
    let hex = &image.id[7..];
    for name in [&tagged, &digested, &image.id, hex, &hex[..12], &image.id[..20]] {
        assert_eq!(
            store.store.find(name).map(|of| of.id.clone()),
            Some(image.id.clone()),
            "{name}"
        );
    }
    for name in ["busybox", &format!("{}/tests/busybox:2", registry.host), "sha256:", "zz"] {
        assert!(store.store.find(name).is_none(), "{name}");
    }
    let again = store.pull(&digested).await.unwrap();
    assert_eq!((&again.id, store.store.list().len()), (&image.id, 1));
    let store = store.again();
    let known = store.store.find(&tagged).unwrap();
    assert_eq!((&known.id, &known.layers, known.size), (&image.id, &image.layers, image.size));
    assert_eq!(store.store.usage().unwrap().bytes, image.size);
}

#[tokio::test]
async fn layers_of_every_compression_are_unpacked_and_told_of() {
    if !can_run("layers_of_every_compression_are_unpacked_and_told_of") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let mut image = busybox_image();
    image.layers = vec![
        (busybox_layer().tar(), Compression::Zstd),
        (Layer::new().file("plain", 0o644, "plain").tar(), Compression::Plain),
        (Layer::new().file("gzip", 0o644, "gzip").tar(), Compression::Gzip),
    ];
    let name = registry.push("tests/kinds", "1", &image.pack());
    let reference = Reference::parse(&name).unwrap();
    let (sender, mut steps) = tokio::sync::mpsc::channel::<Progress>(100);
    let pulled = store.store.pull(&reference, None, Some(sender)).await.unwrap();
    assert_eq!(text(&pulled, "plain").as_deref(), Some("plain"));
    assert_eq!(text(&pulled, "/gzip").as_deref(), Some("gzip"));
    let mut unpacked = Vec::new();
    while let Some(step) = steps.recv().await {
        if step.state == ProgressState::Unpacked {
            assert_eq!(step.received, step.total);
            unpacked.push(step.digest);
        }
    }
    assert_eq!(unpacked.len(), 3);
    let (sender, mut steps) = tokio::sync::mpsc::channel(100);
    store.store.pull(&reference, None, Some(sender)).await.unwrap();
    let mut present = 0;
    while let Some(step) = steps.recv().await {
        assert_ne!(step.state, ProgressState::Receiving, "a layer that is there was fetched again");
        present += usize::from(step.state == ProgressState::Present);
    }
    assert_eq!(present, 3);
}

#[tokio::test]
async fn a_hundred_layers_stack_in_their_order() {
    if !can_run("a_hundred_layers_stack_in_their_order") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let layers = (0..100).map(|number| {
        Layer::new()
            .file("top", 0o644, number.to_string())
            .file(&format!("f{number}"), 0o644, "x")
            .tar()
    });
    let image = Image::new(layers.collect(), json!({}));
    let pulled = store.pull(&registry.push("tests/many", "1", &image.pack())).await.unwrap();
    assert_eq!(pulled.layers.len(), 100);
    assert_eq!(text(&pulled, "top").as_deref(), Some("99"));
    assert_eq!(text(&pulled, "f0").as_deref(), Some("x"));
}

#[tokio::test]
async fn a_layer_that_comes_twice_is_stacked_once() {
    if !can_run("a_layer_that_comes_twice_is_stacked_once") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let same = Layer::new().file("same", 0o644, "same").tar();
    let layers = vec![same.clone(), Layer::new().file("same", 0o644, "other").tar(), same];
    let pulled = store
        .pull(&registry.push("tests/twice", "1", &Image::new(layers, json!({})).pack()))
        .await
        .unwrap();
    assert_eq!(pulled.layers.len(), 2);
    assert_eq!(text(&pulled, "same").as_deref(), Some("same"));
}

#[tokio::test]
async fn hard_links_to_lower_layers_are_there() {
    if !can_run("hard_links_to_lower_layers_are_there") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let layers = vec![
        Layer::new().file("a", 0o644, "from below").tar(),
        Layer::new().hard_link("b", "a").tar(),
        Layer::new().hard_link("c", "b").whiteout("a").tar(),
    ];
    let name = registry.push("tests/links", "1", &Image::new(layers, json!({})).pack());
    let pulled = store.pull(&name).await.unwrap();
    assert_eq!(text(&pulled, "b").as_deref(), Some("from below"));
    assert_eq!(text(&pulled, "c").as_deref(), Some("from below"));
    assert_eq!(text(&pulled, "a"), None);
    let store = store.again();
    assert_eq!(text(&store.store.find(&name).unwrap(), "c").as_deref(), Some("from below"));
    store.store.remove(&name, &|_| false).unwrap();
    assert!(store.names("layers").is_empty() && store.names("tmp").is_empty());
}

#[tokio::test]
async fn of_an_index_this_machine_is_taken_or_all_others_are_named() {
    if !can_run("of_an_index_this_machine_is_taken_or_all_others_are_named") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let mut foreign = small("foreign");
    foreign.arch = "s390x".into();
    let (ours, foreign) = (small("ours").pack(), foreign.pack());
    let name = registry.push_index("tests/index", "1", &[&foreign, &ours]);
    assert_eq!(store.pull(&name).await.unwrap().id, ours.id());
    for name in [
        registry.push_index("tests/foreign", "1", &[&foreign]),
        registry.push("tests/foreign", "2", &foreign),
    ] {
        let err = store.pull(&name).await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::NotFound);
        let text = told(&err);
        assert!(text.contains("linux/s390x") && text.contains(this_arch()), "{text}");
    }
}

#[tokio::test]
async fn what_is_corrupt_is_refused_and_not_listed() {
    if !can_run("what_is_corrupt_is_refused_and_not_listed") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let packed = busybox_image().with(Layer::new().file("m", 0o644, "marker").tar()).pack();
    let name = registry.push("tests/corrupt", "1", &packed);
    let file = registry.blob_file(&packed.blobs[2].digest());
    let good = fs::read(&file).unwrap();
    for at in [good.len() - 1, good.len() / 2] {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        fs::write(&file, bytes).unwrap();
        let err = store.pull(&name).await.unwrap_err();
        let text = told(&err);
        assert_eq!(err.kind(), ErrorKind::Corrupt, "{text}");
        assert!(
            text.contains(&packed.blobs[2].digest()) && text.contains("should have digest"),
            "{text}"
        );
    }
    let mut lying = small("x");
    lying.claimed_diff_ids = Some(vec![digest(b"something else")]);
    let err = store.pull(&registry.push("tests/lying", "1", &lying.pack())).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Corrupt);
    assert!(told(&err).contains(&digest(b"something else")), "{}", told(&err));
    assert!(store.store.list().is_empty() && store.names("images").is_empty());
    assert!(
        store.names("layers").len() <= 1 && store.names("tmp").is_empty(),
        "{:?}",
        store.names("tmp")
    );
    fs::write(&file, good).unwrap();
    store.pull(&name).await.unwrap();
    assert!(store.again().names("layers").len() == 2);
}

#[tokio::test]
async fn credentials_open_a_private_registry_to_their_owner_only() {
    if !can_run("credentials_open_a_private_registry_to_their_owner_only") {
        return;
    }
    let (registry, store) = (Registry::start_private(), TestStore::new());
    let reference =
        Reference::parse(&registry.push("private/app", "1", &small("x").pack())).unwrap();
    let good = Auth::from_parts(USER, PASSWORD, "", "", "").unwrap();
    let bad = Auth::from_parts(USER, "not-it", "", "", "").unwrap();
    for auth in [None, Some(&bad)] {
        let err = store.store.pull(&reference, auth, None).await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Denied, "{}", told(&err));
        assert!(!told(&err).contains("not-it"));
    }
    store.store.pull(&reference, Some(&good), None).await.unwrap();
    for auth in [None, Some(&bad)] {
        let err = store.store.pull(&reference, auth, None).await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Denied, "another's credentials were used");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_as_such() {
    let (registry, store) = (Registry::start(), TestStore::new());
    let err = store.pull(&format!("{}/no/such:1", registry.host)).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
    assert!(told(&err).contains("no/such:1"), "{}", told(&err));
    let err = store.pull("127.0.0.1:1/x").await.unwrap_err();
    assert!(
        err.kind() == ErrorKind::Unreachable && told(&err).contains("does not accept connections"),
        "{}",
        told(&err)
    );
}

#[tokio::test]
async fn untagging_takes_names_first_and_layers_that_nobody_needs() {
    if !can_run("untagging_takes_names_first_and_layers_that_nobody_needs") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let base = busybox_image();
    let with_more = base.clone().with(Layer::new().file("more", 0o644, "x").tar()).pack();
    let base = base.pack();
    let one = registry.push("tests/base", "1", &base);
    let two = registry.push("tests/base", "2", &base);
    let more = registry.push("tests/more", "1", &with_more);
    for name in [&one, &two, &more] {
        store.pull(name).await.unwrap();
    }
    assert_eq!(store.names("layers").len(), 2);
    let unused = |_: &str| false;
    store.store.untag(&one, &|_| true).unwrap();
    let left = store.store.find(&two).unwrap();
    assert_eq!((left.repo_tags.as_slice(), left.repo_digests.len()), ([two.clone()].as_slice(), 1));
    let err = store.store.untag(&two, &|id| id == left.id).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::InUse);
    assert!(store.store.find(&two).is_some(), "a used image keeps its last name");
    store.store.untag(&with_more.id(), &unused).unwrap();
    assert!(store.store.find(&more).is_none());
    assert_eq!(store.names("layers").len(), 1, "the shared layer is still needed");
    store.store.untag(&two, &unused).unwrap();
    store.store.untag(&two, &unused).unwrap();
    assert!(store.store.list().is_empty());
    for directory in ["images", "layers", "tmp"] {
        assert!(store.names(directory).is_empty(), "{directory}");
    }
    assert_eq!(store.store.usage().unwrap().bytes, 0);
}

/// The text of CRI 1.36: by one tag, whichever, the image goes with all of them.
#[tokio::test]
async fn an_image_is_removed_by_any_one_of_its_names() {
    if !can_run("an_image_is_removed_by_any_one_of_its_names") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let packed = busybox_image().pack();
    let names = [
        registry.push("tests/one", "1", &packed),
        registry.push("tests/one", "2", &packed),
        registry.push("tests/two", "1", &packed),
    ];
    let digested = format!("{}/tests/two@{}", registry.host, packed.manifest.digest());
    for by in [&names[0], &names[2], &digested, &packed.id()] {
        for name in &names {
            store.pull(name).await.unwrap();
        }
        let err = store.store.remove(by, &|id| id == packed.id()).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::InUse);
        assert_eq!(store.store.list()[0].repo_tags.len(), 3, "an image in use keeps every name");
        store.store.remove(by, &|_| false).unwrap();
        store.store.remove(by, &|_| false).unwrap();
        assert!(store.store.list().is_empty() && store.names("layers").is_empty(), "{by}");
    }
}

/// A removal that was cut short, between any two of its steps, is finished when the store is opened.
#[tokio::test]
async fn a_removal_that_was_cut_short_is_finished_at_the_next_start() {
    if !can_run("a_removal_that_was_cut_short_is_finished_at_the_next_start") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let image = busybox_image().pack();
    let name = registry.push("tests/cut", "1", &image);
    store.pull(&name).await.unwrap();
    let record = store.at("images").join(&store.names("images")[0]);
    let layer = store.names("layers").remove(0);
    // The record has gone; the layer is half gone, out of its place; its inventory is still there.
    fs::remove_file(record).unwrap();
    fs::rename(store.at("layers").join(&layer), store.at("tmp").join("layer-1")).unwrap();
    let store = store.again();
    for directory in ["images", "layers", "inventories", "tmp"] {
        assert!(store.names(directory).is_empty(), "{directory}");
    }
    // The record alone has gone.
    store.pull(&name).await.unwrap();
    fs::remove_file(store.at("images").join(&store.names("images")[0])).unwrap();
    let store = store.again();
    assert!(store.names("layers").is_empty() && store.names("inventories").is_empty());
    assert_eq!(store.store.usage().unwrap().bytes, 0);
    store.pull(&name).await.unwrap();
}

#[tokio::test]
async fn a_tag_that_moves_leaves_the_old_image_its_digest() {
    if !can_run("a_tag_that_moves_leaves_the_old_image_its_digest") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let name = registry.push("tests/moving", "1", &small("old").pack());
    let old = store.pull(&name).await.unwrap();
    registry.push("tests/moving", "1", &small("new").pack());
    let new = store.pull(&name).await.unwrap();
    assert_ne!(old.id, new.id);
    assert_eq!(store.store.find(&name).unwrap().id, new.id);
    let old = store.again().store.find(&old.id).unwrap();
    assert_eq!((old.repo_tags.len(), old.repo_digests.len()), (0, 1));
}

#[tokio::test]
async fn pulls_of_the_same_are_one_and_outlive_their_callers() {
    if !can_run("pulls_of_the_same_are_one_and_outlive_their_callers") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let packed = busybox_image().pack();
    let name = registry.push("tests/busybox", "1", &packed);
    let reference = Reference::parse(&name).unwrap();
    let (sender, mut steps) = tokio::sync::mpsc::channel::<Progress>(100);
    {
        // Polled until the pull runs, then dropped like a request whose deadline passed.
        let pull = store.store.pull(&reference, None, Some(sender));
        tokio::pin!(pull);
        tokio::select! {
            biased;
            step = steps.recv() => assert_eq!(step.unwrap().state, ProgressState::Waiting),
            done = &mut pull => panic!("it was done before it said anything: {done:?}"),
        }
    }
    let mut states = Vec::new();
    while let Some(step) = steps.recv().await {
        states.push(step.state);
    }
    assert_eq!(states.last(), Some(&ProgressState::Unpacked), "it went on without its caller");
    let pulls = (0..8).map(|_| store.store.pull(&reference, None, None));
    let images = futures_util::future::join_all(pulls).await;
    let first = images[0].as_ref().unwrap();
    assert!(
        images.iter().all(|image| Arc::ptr_eq(image.as_ref().unwrap(), first)),
        "all got the same answer"
    );
}

#[tokio::test]
async fn an_unreadable_record_is_set_aside_and_its_layers_stay() {
    if !can_run("an_unreadable_record_is_set_aside_and_its_layers_stay") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    store.pull(&registry.push("tests/a", "1", &small("a").pack())).await.unwrap();
    let name = registry.push("tests/b", "1", &small("b").pack());
    let b = store.pull(&name).await.unwrap();
    let root = store.dir.path().join("store");
    let record = root.join("images").join(format!("{}.json", &b.id[7..]));
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("/file", "/evil")).unwrap();
    fs::create_dir(root.join("tmp/half-made")).unwrap();
    let config = hull_image::Config { root: root.clone(), ..Default::default() };
    let (again, problems) = hull_image::Store::open(config.clone()).unwrap();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().contains("does not match its id"), "{}", problems[0]);
    assert_eq!((again.list().len(), store.names("layers").len()), (1, 2));
    assert!(store.names("tmp").is_empty());
    let open = fs::File::open(&b.layers[0]).unwrap();
    let pulled = again.pull(&Reference::parse(&name).unwrap(), None, None).await.unwrap();
    assert_eq!(pulled.layers, b.layers);
    let inside = std::path::PathBuf::from(format!("/proc/self/fd/{}/file", open.as_raw_fd()));
    assert_eq!(fs::read(inside).unwrap(), b"b", "a container that runs on the old one keeps it");
    drop(again);
    fs::remove_file(&problems[0].path).unwrap();
    fs::remove_file(&record).unwrap();
    let (_, problems) = hull_image::Store::open(config).unwrap();
    assert!(problems.is_empty());
    let left = store.names("layers");
    let (replaced, others): (Vec<_>, Vec<_>) =
        left.iter().partition(|name| name.starts_with("replaced-"));
    assert_eq!(others.len(), 1, "what no record names is swept: {left:?}");
    assert_eq!(replaced.len(), 1, "a container may run on it until the machine restarts");
}

#[tokio::test]
async fn writable_layers_come_and_go_by_the_containers_id() {
    if !can_run("writable_layers_come_and_go_by_the_containers_id") {
        return;
    }
    let (registry, store) = (Registry::start(), TestStore::new());
    let image =
        Image::new(vec![Layer::new().dir(".", 0o711).file("f", 0o644, "x").tar()], json!({}));
    let image = store.pull(&registry.push("tests/rw", "1", &image.pack())).await.unwrap();
    let store = &store.store;
    let rootfs = store.create_rootfs("c1", &image, &|uid, gid| (uid, gid)).unwrap();
    assert_eq!(rootfs, store.create_rootfs("c1", &image, &|uid, gid| (uid, gid)).unwrap());
    assert_eq!(rootfs, store.rootfs("c1", &image));
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&rootfs.upper).unwrap().permissions().mode() & 0o7777, 0o711);
    let before = store.rootfs_usage("c1").unwrap();
    fs::write(rootfs.upper.join("written"), vec![1; 100_000]).unwrap();
    let after = store.rootfs_usage("c1").unwrap();
    assert!(
        after.bytes >= before.bytes + 100_000 && after.inodes == before.inodes + 1,
        "{before:?} {after:?}"
    );
    fs::create_dir(rootfs.work.join("work")).unwrap();
    fs::set_permissions(rootfs.work.join("work"), fs::Permissions::from_mode(0o0)).unwrap();
    assert_eq!(store.rootfs_ids(), ["c1"]);
    store.remove_rootfs("c1").unwrap();
    store.remove_rootfs("c1").unwrap();
    assert!(store.rootfs_ids().is_empty());
    for bad in ["", "..", "../images", "a/b"] {
        assert!(
            store.create_rootfs(bad, &image, &|uid, gid| (uid, gid)).is_err()
                && store.remove_rootfs(bad).is_err(),
            "{bad}"
        );
    }
}
