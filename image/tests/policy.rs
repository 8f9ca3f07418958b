// SPDX-License-Identifier: Apache-2.0
//! The policy: what is accepted, rejected, or must be signed, with signatures as cosign makes them.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Answer, Fake, TestStore, can_run, serves, told};
use data_encoding::BASE64;
use hull_image::{ErrorKind, Store};
use hull_tests::image::{Blob, Image, Packed};
use hull_tests::layer::Layer;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;

fn packed() -> Packed {
    Image::new(vec![Layer::new().file("x", 0o644, "x").tar()], json!({})).pack()
}

fn openssl(dir: &Path, script: &str) {
    let made = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A key pair as `cosign generate-key-pair` makes it, without its password.
fn keys(dir: &Path, name: &str) {
    let script = format!(
        "openssl ecparam -name prime256v1 -genkey -noout -out {name}.key\n\
         openssl ec -in {name}.key -pubout -out {name}.pub"
    );
    openssl(dir, &script);
}

/// The signature that `cosign sign --key` pushes beside an image: payload, config, and their manifest.
fn signature(dir: &Path, key: &str, digest: &str) -> Packed {
    let payload = json!({"critical": {
        "identity": {"docker-reference": "registry.example.org/a/b"},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature"}, "optional": null});
    fs::write(dir.join("payload"), payload.to_string()).unwrap();
    openssl(dir, &format!("openssl dgst -sha256 -sign {key}.key -out signature payload"));
    let signature = BASE64.encode(&fs::read(dir.join("signature")).unwrap());
    let blob = |kind: &str, bytes: Vec<u8>| Blob { media_type: kind.into(), bytes };
    let payload =
        blob("application/vnd.dev.cosign.simplesigning.v1+json", payload.to_string().into_bytes());
    let config = blob("application/vnd.oci.image.config.v1+json", b"{}".to_vec());
    let mut layer = payload.descriptor();
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": hull_tests::image::MANIFEST,
        "config": config.descriptor(), "layers": [layer],
    });
    let manifest = blob(hull_tests::image::MANIFEST, manifest.to_string().into_bytes());
    Packed { blobs: vec![config, payload], manifest, arch: String::new() }
}

fn tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

/// A registry with an image and what lies beside it.
fn registry(image: &Packed, beside: Option<&Packed>) -> Fake {
    let of_image = serves(image, "a/b", "1");
    let tag = tag(&image.manifest.digest());
    let of_beside = beside.map(|of| serves(of, "a/b", &tag));
    Fake::start(move |asked| {
        let answer = of_image(asked);
        match &of_beside {
            Some(serve) if answer.status == 404 => serve(asked),
            _ => answer,
        }
    })
}

fn governed(dir: &Path, policy: &str) -> TestStore {
    let path = dir.join("policy.toml");
    fs::write(&path, policy).unwrap();
    TestStore::configured(|config| config.policy = Some(path))
}

#[tokio::test]
async fn only_what_a_key_has_signed_comes_here() {
    if !can_run("only_what_a_key_has_signed_comes_here") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    keys(dir.path(), "team");
    keys(dir.path(), "mallory");
    let image = packed();
    let digest = image.manifest.digest();
    let good = signature(dir.path(), "team", &digest);
    let forged = signature(dir.path(), "mallory", &digest);
    let lent = signature(dir.path(), "team", &hull_tests::image::digest(b"another image"));
    for (beside, said) in [
        (Some(&good), None),
        (None, Some("it has no signature")),
        (Some(&forged), Some("by none of the keys")),
        (Some(&lent), Some("of another image")),
    ] {
        let fake = registry(&image, beside);
        let policy = format!(
            "default = \"reject\"\n[[repository]]\nmatch = \"{}/*\"\nrule = \"signed\"\nkeys = [\"team.pub\"]",
            fake.host
        );
        let store = governed(dir.path(), &policy);
        let pulled = store.pull(&format!("{}/a/b:1", fake.host)).await;
        match said {
            None => drop(pulled.unwrap()),
            Some(said) => {
                let err = pulled.unwrap_err();
                assert_eq!(err.kind(), ErrorKind::Policy, "{}", told(&err));
                assert!(told(&err).contains(said), "{}", told(&err));
                assert!(store.store.list().is_empty() && store.names("layers").is_empty());
                let layer = image.blobs[1].digest();
                assert!(
                    fake.log().iter().all(|of| !of.path.contains(&layer)),
                    "layers were fetched"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_is_rejected_is_not_even_asked_for_and_archives_obey_too() {
    if !can_run("what_is_rejected_is_not_even_asked_for_and_archives_obey_too") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_| Answer::of(500, ""));
    let policy =
        "default = \"reject\"\n[[repository]]\nmatch = \"good.example.org/*\"\nrule = \"accept\"";
    let store = governed(dir.path(), policy);
    let err = store.pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
    assert!(told(&err).contains("policy.toml") && fake.log().is_empty(), "{}", told(&err));
    for (name, is_good) in [("good.example.org/a:1", true), ("bad.example.org/a:1", false)] {
        let archive = dir.path().join("archive");
        fs::write(&archive, hull_tests::image::oci_archive(&packed(), name)).unwrap();
        let imported = store.store.import(fs::File::open(&archive).unwrap(), None).await;
        assert_eq!(imported.is_ok(), is_good, "{name}");
    }
}

/// A rule that is written one way holds for pulls, imports and tags that are written another.
#[tokio::test]
async fn no_spelling_of_a_name_gets_round_a_rule() {
    if !can_run("no_spelling_of_a_name_gets_round_a_rule") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(serves(&packed(), "a/b", "1"));
    let port = fake.host.rsplit(':').next().unwrap();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "LocalHost",
        "127.1",
        "0x7f.1",
        "2130706433",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
    ];
    for rule in ["127.0.0.1", "localhost", "[0:0::1]"] {
        let policy = format!(
            "default = \"accept\"\n[[repository]]\nmatch = \"{rule}:{port}/*\"\nrule = \"reject\"\n\
             [[repository]]\nmatch = \"REG.invalid:443/*\"\nrule = \"reject\"\n\
             [[repository]]\nmatch = \"registry-1.docker.io/library/*\"\nrule = \"reject\""
        );
        let store = governed(dir.path(), &policy);
        for host in hosts {
            let err = store.pull(&format!("{host}:{port}/a/b:1")).await.unwrap_err();
            assert_eq!(err.kind(), ErrorKind::Policy, "{rule} {host}: {}", told(&err));
        }
        for name in [
            "reg.invalid/x",
            "reg.invalid:0443/x",
            "Reg.Invalid/x",
            "busybox",
            "index.docker.io/busybox",
            "docker.io:443/library/busybox",
        ] {
            let err = store.pull(name).await.unwrap_err();
            assert_eq!(err.kind(), ErrorKind::Policy, "{name}: {}", told(&err));
            let archive = dir.path().join("archive");
            fs::write(&archive, hull_tests::image::oci_archive(&packed(), &format!("{name}:1")))
                .unwrap();
            let err =
                store.store.import(fs::File::open(&archive).unwrap(), None).await.unwrap_err();
            assert_eq!(err.kind(), ErrorKind::Policy, "{name}: {}", told(&err));
            let err = store.store.tag("none", name, false).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::Policy, "{name}: {}", told(&err));
        }
    }
    assert!(fake.log().is_empty());
}

#[test]
fn a_policy_that_cannot_be_read_keeps_the_store_shut() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.toml");
    let open = || {
        let root = dir.path().join("store");
        Store::open(hull_image::Config { root, policy: Some(policy.clone()), ..Default::default() })
    };
    assert!(told(&open().unwrap_err()).contains("policy.toml"));
    fs::write(&policy, "default = \"accept\"\n[[repository]]\nmatch = \"x\"\nrule = \"signed\"\nkeys = [\"gone.pub\"]").unwrap();
    assert!(told(&open().unwrap_err()).contains("gone.pub"));
    fs::write(&policy, "default = \"accept\"").unwrap();
    assert!(open().is_ok());
}
