// SPDX-License-Identifier: Apache-2.0
//! The image that is chosen from an index, and why.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Answer, Asked, Fake, TestStore, can_run, told};
use hull_tests::image::{Blob, INDEX, Image, Packed, this_arch};
use hull_tests::layer::Layer;
use serde_json::{Value, json};
use std::collections::HashMap;

/// An image that says it is for `arch`.
fn image(arch: &str) -> Packed {
    let layer = Layer::new().file("arch", 0o644, arch);
    let mut image = Image::new(vec![layer.tar()], json!({}));
    image.arch = arch.to_owned();
    image.pack()
}

fn entry(packed: &Packed, platform: Value) -> Value {
    let mut entry = packed.manifest.descriptor();
    entry["platform"] = platform;
    entry
}

fn index(manifests: Vec<Value>) -> Blob {
    let value = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    Blob { media_type: INDEX.into(), bytes: serde_json::to_vec(&value).unwrap() }
}

/// A registry with an index under the tag `1`, and other documents and images.
fn registry(top: &Blob, documents: &[&Blob], images: &[&Packed]) -> Fake {
    let mut all: HashMap<String, Blob> = HashMap::new();
    all.insert("/v2/a/b/manifests/1".into(), top.clone());
    for document in documents.iter().copied().chain(images.iter().map(|of| &of.manifest)) {
        all.insert(format!("/v2/a/b/manifests/{}", document.digest()), document.clone());
    }
    for blob in images.iter().flat_map(|of| &of.blobs) {
        all.insert(format!("/v2/a/b/blobs/{}", blob.digest()), blob.clone());
    }
    Fake::start(move |asked: &Asked| match all.get(asked.path.split('?').next().unwrap()) {
        Some(of) => Answer::of(200, of.bytes.clone()).with("Content-Type", of.media_type.clone()),
        None => Answer::of(404, "{}"),
    })
}

/// The id and the platform of the image that is pulled.
async fn pulled(fake: &Fake) -> Result<(String, hull_image::Platform), String> {
    let image = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await;
    let image = image.map_err(|err| told(&err))?;
    let found = (image.id.clone(), image.platform.clone().unwrap());
    Ok(found)
}

fn linux(arch: &str) -> Value {
    json!({"os": "linux", "architecture": arch})
}

/// Something that an index lists and that is not an image.
fn other(media_type: &str, text: &str) -> Blob {
    Blob { media_type: media_type.into(), bytes: text.as_bytes().to_vec() }
}

#[tokio::test]
async fn what_is_not_an_image_does_not_hide_one_of_the_same_platform() {
    if !can_run("what_is_not_an_image_does_not_hide_one_of_the_same_platform") {
        return;
    }
    let image = image(this_arch());
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let artifact = json!({"schemaVersion": 2, "mediaType": manifest, "artifactType": "x/y", "layers": [],
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
            "digest": hull_tests::image::digest(b"{}")}});
    for beside in [
        other("application/vnd.foo", r#"{"a":1}"#),
        other(
            "application/vnd.oci.artifact.manifest.v1+json",
            r#"{"artifactType":"x","blobs":[]}"#,
        ),
        other("text/plain", "hello"),
        other(manifest, &artifact.to_string()),
    ] {
        for platform in [Some(linux(this_arch())), None] {
            let with = |mut of: Value| {
                of.as_object_mut()
                    .unwrap()
                    .extend(platform.clone().map(|of| ("platform".to_owned(), of)));
                of
            };
            let (first, second) = (with(beside.descriptor()), with(image.manifest.descriptor()));
            for entries in [vec![first.clone(), second.clone()], vec![second, first]] {
                let fake = registry(&index(entries), &[&beside], &[&image]);
                let (id, _) = pulled(&fake).await.unwrap();
                assert_eq!(id, image.id(), "{} {platform:?}", beside.media_type);
            }
        }
        // Alone it is named; and an image with an unusual media type is one.
        let fake = registry(&index(vec![beside.descriptor()]), &[&beside], &[]);
        pulled(&fake).await.unwrap_err();
    }
    let mut entry = entry(&image, linux(this_arch()));
    entry["mediaType"] = json!("application/json");
    let fake = registry(&index(vec![entry]), &[], &[&image]);
    assert_eq!(pulled(&fake).await.unwrap().0, image.id());
}

#[tokio::test]
async fn an_index_is_believed_before_the_config() {
    if !can_run("an_index_is_believed_before_the_config") {
        return;
    }
    for config in ["s390x", "x86_64", "AMD64", "", "unheard-of"] {
        let image = image(config);
        let fake = registry(&index(vec![entry(&image, linux(this_arch()))]), &[], &[&image]);
        let (id, platform) = pulled(&fake).await.unwrap();
        assert_eq!((id, platform.name), (image.id(), format!("linux/{}", this_arch())));
        let is_own = hull_tests::image::this_arch() == "amd64" && !config.starts_with("unheard");
        let says_other = !config.is_empty() && (config == "s390x" || !is_own);
        assert_eq!(platform.why.contains("but the index decides"), says_other, "{}", platform.why);
    }
    // Without an index nobody says otherwise.
    let other = image("s390x");
    let fake = registry(&other.manifest, &[], &[&other]);
    let err = pulled(&fake).await.unwrap_err();
    assert!(err.contains("only for linux/s390x"), "{err}");
}

#[tokio::test]
async fn entries_without_a_platform_are_tried_until_a_config_fits() {
    if !can_run("entries_without_a_platform_are_tried_until_a_config_fits") {
        return;
    }
    let (other, right) = (image("s390x"), image(this_arch()));
    let chart = Blob {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: json!({"schemaVersion": 2, "layers": [], "config": {
            "mediaType": "application/vnd.cncf.helm.config.v1+json", "size": 2,
            "digest": hull_tests::image::digest(b"{}")}})
        .to_string()
        .into_bytes(),
    };
    let bare = |packed: &Packed| packed.manifest.descriptor();
    let empty = entry(&other, json!({"os": "", "architecture": ""}));
    let all = vec![chart.descriptor(), empty, bare(&other), bare(&right)];
    let fake = registry(&index(all), &[&chart], &[&other, &right]);
    let (id, platform) = pulled(&fake).await.unwrap();
    assert_eq!(id, right.id());
    assert!(platform.why.contains("its config does"), "{}", platform.why);
    let fake = registry(&index(vec![bare(&other), chart.descriptor()]), &[&chart], &[&other]);
    let err = pulled(&fake).await.unwrap_err();
    assert!(err.contains("only for linux/s390x"), "{err}");
    // One that says its platform comes before those.
    let stated = entry(&right, linux(this_arch()));
    let fake = registry(&index(vec![bare(&other), stated]), &[], &[&other, &right]);
    assert_eq!(pulled(&fake).await.unwrap().0, right.id());
}

#[tokio::test]
async fn attestations_and_artifacts_beside_an_image_are_not_taken_for_it() {
    if !can_run("attestations_and_artifacts_beside_an_image_are_not_taken_for_it") {
        return;
    }
    let (right, beside) = (image(this_arch()), image("s390x"));
    let unknown = json!({"os": "unknown", "architecture": "unknown"});
    let mut marked = entry(&beside, unknown.clone());
    marked["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let mut artifact = beside.manifest.descriptor();
    artifact["artifactType"] = json!("application/spdx+json");
    let all = vec![marked, entry(&beside, unknown), artifact, right.manifest.descriptor()];
    let fake = registry(&index(all.clone()), &[], &[&right]);
    assert_eq!(pulled(&fake).await.unwrap().0, right.id());
    let fake = registry(&index(all[..3].to_vec()), &[], &[&right]);
    let err = pulled(&fake).await.unwrap_err();
    assert!(err.contains("the index lists no image (attestations"), "{err}");
    let fake = registry(&index(Vec::new()), &[], &[&right]);
    let err = pulled(&fake).await.unwrap_err();
    assert!(err.contains("the index lists no image"), "{err}");
}

#[tokio::test]
async fn indexes_in_indexes_are_followed_and_nulls_are_absent() {
    if !can_run("indexes_in_indexes_are_followed_and_nulls_are_absent") {
        return;
    }
    let (other, right) = (image("s390x"), image(this_arch()));
    let inner = index(vec![entry(&other, linux("s390x")), entry(&right, linux(this_arch()))]);
    let foreign = index(vec![entry(&other, linux("s390x"))]);
    let mut null = inner.descriptor();
    null["platform"] = json!(null);
    null["annotations"] = json!({"a": null});
    let top = index(vec![foreign.descriptor(), null]);
    let fake = registry(&top, &[&foreign, &inner], &[&other, &right]);
    let (id, platform) = pulled(&fake).await.unwrap();
    assert_eq!(id, right.id());
    assert!(platform.why.contains("of linux/"), "{}", platform.why);
    // No index is its own end.
    let mut deep = inner.clone();
    let mut documents = vec![deep.clone()];
    for _ in 0..5 {
        deep = index(vec![deep.descriptor()]);
        documents.push(deep.clone());
    }
    let fake = registry(&deep, &documents.iter().collect::<Vec<_>>(), &[&right]);
    assert!(pulled(&fake).await.unwrap_err().contains("too many indexes"));
}

#[tokio::test]
async fn an_image_without_layers_is_an_image() {
    if !can_run("an_image_without_layers_is_an_image") {
        return;
    }
    for (rootfs, layers) in [
        (json!({"type": "layers"}), json!([])),
        (json!({"type": "layers", "diff_ids": null}), json!(null)),
        (json!({"type": "layers", "diff_ids": []}), json!(null)),
    ] {
        let mut image = image(this_arch());
        let config = json!({"os": "linux", "architecture": this_arch(), "rootfs": rootfs,
            "config": {"Labels": {"a": "b"}, "Volumes": {"/d": null}}});
        image.blobs = vec![Blob {
            media_type: image.blobs[0].media_type.clone(),
            bytes: config.to_string().into_bytes(),
        }];
        let manifest = json!({"schemaVersion": 2, "mediaType": image.manifest.media_type,
            "config": image.blobs[0].descriptor(), "layers": layers});
        image.manifest.bytes = manifest.to_string().into_bytes();
        let fake = registry(&image.manifest, &[], &[&image]);
        assert_eq!(pulled(&fake).await.unwrap().0, image.id(), "{config}");
    }
}
