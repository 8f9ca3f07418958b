// SPDX-License-Identifier: Apache-2.0
//! The fixtures themselves, without a daemon: a broken one would look like a broken runtime.

use hull_tests::image::{self, Image, digest};
use hull_tests::layer::{Compression, Layer};
use hull_tests::registry::{PASSWORD, Registry, USER};
use hull_tests::{fixture, shell};
use serde_json::json;

#[test]
fn the_registry_serves_what_was_pushed() {
    for reference in [fixture::busybox(), fixture::coreutils(), fixture::nginx()] {
        let (host, path) = reference.split_once('/').unwrap();
        let (name, tag) = path.rsplit_once(':').unwrap();
        let url = format!("http://{host}/v2/{name}/manifests/{tag}");
        let accept = format!("Accept: {}", image::MANIFEST);
        let manifest = shell::run("curl", ["-fsS", "-H", &accept, &url]).good();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert!(!layers.is_empty(), "{reference}: {manifest}");
        let first = layers[0]["digest"].as_str().unwrap();
        let file = fixture::registry().blob_file(first);
        assert_eq!(digest(&std::fs::read(file).unwrap()), first);
    }
}

#[test]
fn the_private_registry_wants_the_account() {
    let registry = Registry::start_private();
    let packed = Image::new(vec![Layer::new().file("a", 0o644, "a").tar()], json!({})).pack();
    let reference = registry.push("private/a", "1", &packed);
    let url = format!("http://{}/v2/private/a/manifests/1", registry.host);
    let accept = format!("Accept: {}", image::MANIFEST);
    let code = |args: &[&str]| {
        let mut all = vec!["-sS", "-o", "/dev/null", "-w", "%{http_code}"];
        all.extend(["-H", &accept]);
        all.extend(args);
        all.push(&url);
        shell::run("curl", all).good()
    };
    assert_eq!(code(&[]), "401", "{reference}");
    assert_eq!(code(&["-u", &format!("{USER}:wrong")]), "401");
    assert_eq!(code(&["-u", &format!("{USER}:{PASSWORD}")]), "200");
}

#[test]
fn the_same_layer_has_the_same_digest_each_time() {
    let make =
        || digest(&Layer::new().dirs(&["etc"]).file("etc/a", 0o600, "x").whiteout("b").tar());
    assert_eq!(make(), make());
    let tar = Layer::new().file("a", 0o644, "x").tar();
    for compression in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
        assert_eq!(compression.pack(&tar), compression.pack(&tar));
    }
}

#[test]
fn programs_in_images_have_all_their_libraries() {
    for image in [fixture::coreutils_image(), fixture::nginx_image()] {
        let root = hull_tests::paths::fixtures().join(format!("closure-{}", std::process::id()));
        for (tar, _) in &image.layers {
            tar::Archive::new(&tar[..]).unpack(&root).unwrap();
        }
        let is_nginx = root.join("usr/sbin/nginx").is_file();
        let command: &[&str] =
            if is_nginx { &["/usr/sbin/nginx", "-v"] } else { &["/bin/echo", "runs"] };
        let mut chroot = vec![root.to_str().unwrap()];
        chroot.extend(command);
        let ran = shell::run("chroot", chroot);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(ran.code, 0, "{command:?}: {}{}", ran.stdout, ran.stderr);
    }
}
