// SPDX-License-Identifier: Apache-2.0
//! Images by Nix's dockerTools: archives for `docker load`.

use super::archive::Tar;
use super::shape::{DOCKER_GZIP, Draft, Made, Shape, Travels};
use crate::expect::ExpectExt as _;
use crate::layer::{Compression, Layer};
use flate2::Compression as Level;
use serde_json::{Value, json};

const CREATED: &str = "1970-01-01T00:00:01+00:00";

fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

/// Gives a shape the form of an archive of `docker load`. `beside` adds more entries.
fn saved(
    (mut shape, tars): (Shape, Vec<Vec<u8>>),
    compression: Compression,
    beside: impl FnOnce(Layer, &str) -> Layer,
) -> Shape {
    let mut archive = Layer::new();
    let mut paths = Vec::new();
    let mut last = "";
    for (tar, diff_id) in tars.iter().zip(&shape.diff_ids) {
        last = hex(diff_id);
        let path = format!("{last}/layer.tar");
        archive = archive.file(&path, 0o644, tar);
        paths.push(path);
    }
    archive = beside(archive, last);
    let name = format!("{}.json", hex(&shape.id));
    let manifest: Value = json!([{"Config": name, "RepoTags": ["hello:abc"], "Layers": paths}]);
    let manifest = serde_json::to_string_pretty(&manifest).or_fail("make a shape");
    let archive =
        archive.file(&name, 0o644, &shape.blobs[0].bytes).file("manifest.json", 0o644, manifest);
    let reference = format!("example.org/corpus/{}:1", shape.builder);
    shape.travels = Travels::Archive { bytes: compression.pack(&archive.tar()), reference };
    shape
}

fn drafted(builder: &'static str, above: Vec<Vec<u8>>, config: Value) -> (Shape, Vec<Vec<u8>>) {
    let mut layers = vec![Made::base(DOCKER_GZIP)];
    layers.extend(above.into_iter().map(|tar| Made::gzip(DOCKER_GZIP, tar, Level::fast())));
    let tars = layers.iter().map(|of| of.tar.clone()).collect();
    (Draft::docker(builder, layers, config).indented().pack().0, tars)
}

/// `streamLayeredImage`: a layer for each store path, with absolute names, which can be longer than a header has
/// room for, and files that nobody may write; above them a layer by GNU tar; the archive is not compressed.
pub(super) fn nix() -> Shape {
    let path = "/nix/store/0c7c96gikmzv87i7lv3vq5s1cmfjd6zf-hello-2.12.1";
    let long = format!("{path}/share/doc/{}", "long-".repeat(20));
    let store = Tar::python()
        .at(1)
        .named("root")
        .dir("/nix/", 0o755)
        .dir("/nix/store/", 0o755)
        .dir(&format!("{path}/"), 0o555)
        .file(&format!("{path}/hello"), 0o444, "nix\n")
        .symlink(&format!("{path}/link"), &format!("{path}/hello"))
        .dir(&format!("{path}/share/"), 0o555)
        .dir(&format!("{path}/share/doc/"), 0o555)
        .dir(&format!("{long}/"), 0o555)
        .file(&format!("{long}/README"), 0o444, "long\n")
        .end_of_record();
    let top = Tar::gnu()
        .at(1)
        .named("root")
        .dir("./", 0o755)
        .dir("./bin/", 0o755)
        .symlink("./hello", &format!("{path}/link"))
        .end_of_record();
    let of =
        |paths: &str| json!({"created": CREATED, "comment": format!("store paths: ['{paths}']")});
    let config = json!({"created": CREATED, "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "history": [of("base"), of(path), of("/nix/store/0-hello-customisation-layer")]});
    let shape = saved(drafted("nix", vec![store, top], config), Compression::Plain, |of, _| of);
    let script = format!("cat /hello {long}/README; stat -c '%a %Y' {path}");
    shape.says(&script, "nix\nlong\n555 1")
}

/// `buildImage`: one layer by GNU tar, to which `tar -r` added the store, partly by names without `./`; files of
/// Docker's first format beside each layer; a config with a field of Nix's own; the archive is in gzip.
pub(super) fn nix_build_image() -> Shape {
    let first =
        Tar::gnu().at(1).named("root").dir("./", 0o755).symlink("./hi", "/nix/store/1-hi/hi");
    let layer = Tar::gnu()
        .after(first.open_end())
        .at(1)
        .named("root")
        .dir("./nix/", 0o555)
        .dir("./nix/store/", 0o555)
        .dir("nix/store/1-hi/", 0o555)
        .file("nix/store/1-hi/hi", 0o444, "hi\n")
        .end_of_record();
    let config = json!({"created": "1970-01-01T00:00:01Z", "preferLocalBuild": true,
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Volumes": null},
        "history": [{"created": "1970-01-01T00:00:01Z"}, {"created": "1970-01-01T00:00:01Z"}]});
    let beside = |archive: Layer, last: &str| {
        let old =
            json!({"created": "1970-01-01T00:00:01Z", "id": last, "Size": 10_240, "os": "linux"});
        archive
            .file(&format!("{last}/VERSION"), 0o644, "1.0")
            .file(&format!("{last}/json"), 0o644, old.to_string())
            .file("repositories", 0o644, json!({"hello": {"abc": last}}).to_string())
    };
    let draft = drafted("nix-build-image", vec![layer], config);
    saved(draft, Compression::Gzip, beside).says("cat /hi; stat -c %a /nix/store", "hi\n555")
}
