// SPDX-License-Identifier: Apache-2.0
//! Archives that have more in them than images, and every compression.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{TestStore, can_run, told};
use hull_image::Imports;
use hull_tests::image::{Blob, Image, Packed, digest, oci_archive, this_arch};
use hull_tests::layer::Layer;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};

fn image(arch: &str) -> Packed {
    let mut image = Image::new(vec![Layer::new().file("arch", 0o644, arch).tar()], json!({}));
    image.arch = arch.to_owned();
    image.pack()
}

async fn import(store: &TestStore, archive: &[u8]) -> Result<Imports, hull_image::Error> {
    let mut spool = store.store.spool().unwrap();
    spool.write_all(archive).unwrap();
    store.store.import(spool, None).await
}

/// A layout with these entries in its index, and these blobs.
fn layout(entries: Vec<Value>, blobs: &[&Blob]) -> Vec<u8> {
    let index = json!({"schemaVersion": 2, "manifests": entries});
    let mut archive = Layer::new()
        .file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", 0o644, index.to_string());
    for blob in blobs {
        let path = format!("blobs/{}", blob.digest().replace(':', "/"));
        archive = archive.file(&path, 0o644, &blob.bytes);
    }
    archive.tar()
}

fn named(packed: &Packed, name: &str) -> Value {
    let mut entry = packed.manifest.descriptor();
    entry["annotations"] = json!({"io.containerd.image.name": name});
    entry
}

fn manifest_of(config_type: &str) -> Blob {
    let value = json!({"schemaVersion": 2, "layers": [],
        "config": {"mediaType": config_type, "size": 2, "digest": digest(b"{}")}});
    Blob {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: value.to_string().into_bytes(),
    }
}

#[tokio::test]
async fn of_images_with_one_name_the_last_has_it() {
    if !can_run("of_images_with_one_name_the_last_has_it") {
        return;
    }
    const NAME: &str = "example.org/same:1";
    let make =
        |text: &str| Image::new(vec![Layer::new().file("x", 0o644, text).tar()], json!({})).pack();
    let (one, two) = (make("one"), make("two"));
    let blobs: Vec<&Blob> =
        [&one, &two].iter().flat_map(|of| of.blobs.iter().chain([&of.manifest])).collect();
    let archive = layout(vec![named(&one, NAME), named(&two, NAME)], &blobs);
    let store = TestStore::new();
    let imported = import(&store, &archive).await.unwrap().images;
    let names: Vec<&[String]> = imported.iter().map(|of| of.names.as_slice()).collect();
    assert_eq!(names, [&[][..], &[NAME.to_owned()][..]]);
    assert_eq!(store.store.find(NAME).unwrap().id, two.id());
    assert!(store.store.find(&one.id()).unwrap().repo_tags.is_empty());
}

#[tokio::test]
async fn what_is_an_image_is_imported_and_the_rest_is_named() {
    if !can_run("what_is_an_image_is_imported_and_the_rest_is_named") {
        return;
    }
    let (right, other, absent) = (image(this_arch()), image("s390x"), image("ppc64le"));
    let half = Image::new(vec![Layer::new().file("half", 0o644, "").tar()], json!({})).pack();
    let chart = manifest_of("application/vnd.cncf.helm.config.v1+json");
    let mut attestation = absent.manifest.descriptor();
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let mut signature = absent.manifest.descriptor();
    signature["artifactType"] = json!("application/vnd.dev.cosign.artifact.sig.v1+json");
    let unknown = json!({"mediaType": "application/x.thing", "size": 1, "digest": digest(b"x")});
    let strange = json!({"mediaType": right.manifest.media_type, "size": 1, "digest": "md5:1"});
    let entries = vec![
        attestation,
        unknown,
        strange,
        chart.descriptor(),
        named(&other, "example.org/other:1"),
        named(&absent, "example.org/absent:1"),
        named(&half, "example.org/half:1"),
        signature,
        named(&right, "example.org/right:1"),
    ];
    let mut blobs: Vec<&Blob> = right.blobs.iter().chain(&other.blobs).collect();
    blobs.extend([&right.manifest, &other.manifest, &chart, &half.manifest, &half.blobs[0]]);
    let store = TestStore::new();
    let imported = import(&store, &layout(entries.clone(), &blobs)).await.unwrap();
    assert_eq!(imported.images.len(), 1);
    assert_eq!(imported.images[0].image.id, right.id());
    let left: Vec<&str> = imported.left.iter().map(|left| left.why.as_str()).collect();
    for wanted in [
        "it is an attestation",
        "application/x.thing",
        "not a sha256 or sha512 digest",
        "application/vnd.cncf.helm.config.v1+json",
        "only for linux/s390x",
        "is not in it",
        "application/vnd.dev.cosign.artifact.sig.v1+json",
    ] {
        assert!(left.iter().any(|why| why.contains(wanted)), "{wanted}: {left:?}");
    }
    assert_eq!(left.len(), 8, "{left:?}");
    assert_eq!(store.store.list().len(), 1);

    // Alone, each is the reason of an error.
    let err = import(&store, &layout(entries[4..5].to_vec(), &blobs)).await.unwrap_err();
    assert!(told(&err).contains("only for linux/s390x"), "{}", told(&err));
    let err = import(&store, &layout(entries[3..4].to_vec(), &blobs)).await.unwrap_err();
    assert!(told(&err).contains("helm"), "{}", told(&err));
    let err = import(&store, &layout(entries[5..6].to_vec(), &blobs)).await.unwrap_err();
    assert!(told(&err).contains("is not in it"), "{}", told(&err));
    // Damage is not something beside an image.
    let damaged = Layer::new()
        .file("index.json", 0o644, json!({"manifests": entries[8..]}).to_string())
        .file(&format!("blobs/{}", right.manifest.digest().replace(':', "/")), 0o644, "{}");
    let err = import(&store, &damaged.tar()).await.unwrap_err();
    assert!(told(&err).contains("digest"), "{}", told(&err));
}

#[tokio::test]
async fn an_index_whose_other_platforms_are_absent_is_imported() {
    if !can_run("an_index_whose_other_platforms_are_absent_is_imported") {
        return;
    }
    let (right, other) = (image(this_arch()), image("s390x"));
    let index = hull_tests::image::index(&[&other, &right]);
    let mut entry = index.descriptor();
    entry["annotations"] = json!({"io.containerd.image.name": "example.org/both:1"});
    let blobs: Vec<&Blob> = right.blobs.iter().chain([&right.manifest, &index]).collect();
    let store = TestStore::new();
    let imported = import(&store, &layout(vec![entry], &blobs)).await.unwrap();
    assert_eq!(imported.images[0].names, ["example.org/both:1"]);
    assert!(imported.left.is_empty(), "{:?}", imported.left);
    let platform = imported.images[0].image.platform.clone().unwrap();
    assert!(platform.why.contains("linux/s390x"), "{platform:?}");
    // Stored by now: an archive need not have the layers again.
    let blobs = [&right.blobs[0], &right.manifest];
    let archive = layout(vec![named(&right, "example.org/again:1")], &blobs);
    assert_eq!(import(&store, &archive).await.unwrap().images.len(), 1);
}

#[tokio::test]
async fn of_docker_archives_too_only_what_is_whole_is_imported() {
    if !can_run("of_docker_archives_too_only_what_is_whole_is_imported") {
        return;
    }
    let (right, other) = (image(this_arch()), image("s390x"));
    let manifest = json!([
        {"Config": "gone.json", "RepoTags": ["example.org/gone:1"], "Layers": null},
        {"Config": "other.json", "RepoTags": ["example.org/other:1"], "Layers": ["layer"]},
        {"Config": "right.json", "RepoTags": ["example.org/right:1"], "Layers": ["layer"]},
    ]);
    let archive = Layer::new()
        .file("right.json", 0o644, &right.blobs[0].bytes)
        .file("other.json", 0o644, &other.blobs[0].bytes)
        .file("layer", 0o644, &right.blobs[1].bytes)
        .file("manifest.json", 0o644, manifest.to_string());
    let store = TestStore::new();
    let imported = import(&store, &archive.tar()).await.unwrap();
    assert_eq!(imported.images[0].names, ["example.org/right:1"]);
    let left: Vec<&str> = imported.left.iter().map(|left| left.name.as_str()).collect();
    assert_eq!(left, ["example.org/gone:1", "example.org/other:1"]);
}

/// Compresses with the program of that name.
fn packed_by(program: &str, options: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|err| panic!("{program}: {err}"));
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writing = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let out = child.wait_with_output().unwrap();
    writing.join().unwrap();
    out.stdout
}

#[tokio::test]
async fn archives_by_xz_and_bzip2_are_imported_also_in_several_streams() {
    if !can_run("archives_by_xz_and_bzip2_are_imported_also_in_several_streams") {
        return;
    }
    let archive = oci_archive(&image(this_arch()), "example.org/app:1");
    let (first, second) = archive.split_at(archive.len() / 2);
    for (program, options) in
        [("xz", &["-9"][..]), ("xz", &["-0", "--check=crc32"]), ("bzip2", &["-9"])]
    {
        let whole = packed_by(program, options, &archive);
        let parts = [packed_by(program, options, first), packed_by(program, options, second)];
        for packed in [whole.clone(), parts.concat()] {
            let store = TestStore::new();
            let imported = import(&store, &packed).await.unwrap_or_else(|err| {
                panic!("{program} {options:?}: {}", told(&err));
            });
            assert_eq!(imported.images.len(), 1);
        }
        let store = TestStore::new();
        assert!(import(&store, &whole[..whole.len() / 2]).await.is_err(), "{program}: cut");
        assert!(store.names("tmp").is_empty());
    }
    // A dictionary of more memory than is allowed.
    let large = packed_by("xz", &["--lzma2=dict=512MiB"], &archive);
    let err = import(&TestStore::new(), &large).await.unwrap_err();
    assert!(told(&err).contains("memory"), "{}", told(&err));
}
