// SPDX-License-Identifier: Apache-2.0
//! Images in the shapes that builders give them, as documented by their projects: each is pulled or imported,
//! runs, and is exported to the same digests.

use hull_proto::admin;
use hull_tests::corpus::{Shape, Travels};
use hull_tests::cri::shell;
use hull_tests::image::digest;
use hull_tests::{ExpectExt as _, Node, fixture};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

#[tokio::test]
async fn images_of_every_builder_run_and_are_exported_to_the_same_digests() {
    let node = Node::start().await;
    for shape in hull_tests::corpus::all() {
        let reference = taken(&node, &shape).await;
        let (cri, name) = (node.cri(), shape.builder);
        let pod = cri.run_pod(name).await.or_fail(name);
        let said = cri.output(&pod, shell("main", &reference, &shape.script)).await;
        cri.remove_pod(&pod).await.or_fail(name);
        assert_eq!(said.stdout.trim_end(), shape.says, "{name}: {said:?}");
        exported(&node, &shape, &reference);
    }
    let mut admin = admin::hull_client::HullClient::new(hull_tests::cri::channel(&node.socket()));
    let verified = admin.verify(admin::VerifyRequest::default()).await.or_fail("verify");
    for layer in verified.into_inner().layers {
        assert!(layer.findings.is_empty() && layer.unknown.is_empty(), "{layer:?}");
    }
}

/// Pulls or imports an image, and gives its name.
async fn taken(node: &Node, shape: &Shape) -> String {
    let name = shape.builder;
    match &shape.travels {
        Travels::Registry { top, manifests } => {
            let reference = fixture::registry().push_all(
                &format!("corpus/{name}"),
                &shape.blobs,
                manifests,
                top,
            );
            let id = node.cri().pull(&reference).await.or_fail(name);
            assert_eq!(id, shape.id, "{name}");
            reference
        }
        Travels::Archive { bytes, reference } => {
            let path = node.host_dir().join(format!("{name}.tar"));
            fs::write(&path, bytes).or_fail(name);
            let said = node.hull(&["import", &path.display().to_string(), "--name", reference]);
            assert!(said.good().starts_with(&shape.id), "{name}");
            reference.clone()
        }
    }
}

/// Checks that an export has the config and the layers with the digests of the image.
fn exported(node: &Node, shape: &Shape, reference: &str) {
    let path = node.host_dir().join(format!("{}-export.tar", shape.builder));
    let _said = node.hull(&["export", "-o", &path.display().to_string(), reference]).good();
    let files = files(&path);
    let saved: Value = serde_json::from_slice(&files["manifest.json"]).or_fail(shape.builder);
    let config = saved[0]["Config"].as_str().or_fail(shape.builder);
    assert_eq!(digest(&files[config]), shape.id, "{}", shape.builder);
    let layers = saved[0]["Layers"].as_array().or_fail(shape.builder);
    let digests: Vec<String> =
        layers.iter().map(|path| digest(&files[path.as_str().or_fail("a path")])).collect();
    assert_eq!(digests, shape.diff_ids, "{}", shape.builder);
}

fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = fs::File::open(path).or_fail("open an export");
    let mut archive = tar::Archive::new(file);
    let mut files = BTreeMap::new();
    for entry in archive.entries().or_fail("read an export") {
        let mut entry = entry.or_fail("read an export");
        let path = entry.path().or_fail("read an export").display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).or_fail("read an export");
        files.insert(path, bytes);
    }
    files
}
