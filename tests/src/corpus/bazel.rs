// SPDX-License-Identifier: Apache-2.0
//! Images by Bazel's rules_oci, whose layers are archives of other rules: tar.bzl (bsdtar from a specification) and
//! rules_pkg (Python).

use super::archive::Tar;
use super::shape::{
    DOCKER_GZIP, Draft, Made, OCI_GZIP, OCI_PLAIN, OCI_ZSTD, Shape, described, platform,
};
use crate::layer::Compression;
use flate2::Compression as Level;
use serde_json::{Value, json};

const CREATED: &str = "1970-01-01T00:00:00Z";
/// The time that tar.bzl gives by default.
const BY_TAR_BZL: u64 = 1_672_560_000;
/// The portable time of rules_pkg.
const BY_RULES_PKG: u64 = 946_684_800;

/// Adds one entry of history for each layer.
fn config(layers: &[Made]) -> Value {
    let by = json!({"created": CREATED, "created_by": "bazel build @@//app:layer"});
    json!({"config": {"Env": ["PATH=/bin"], "Entrypoint": ["/app/tool"]}, "created": CREATED,
        "history": vec![by; layers.len()]})
}

/// An archive of bsdtar with all parents, which gives directories of layers below another owner and mode.
fn with_parents() -> Vec<u8> {
    Tar::ustar()
        .at(BY_TAR_BZL)
        .dir("app/", 0o755)
        .file("app/tool", 0o755, "#!/bin/sh\necho bazel\n")
        .dir("home/", 0o755)
        .dir("home/other/", 0o755)
        .file("home/other/one", 0o755, "one\n")
        .end()
}

/// rules_oci over a base of its own: layers that are not compressed, in gzip and zstd, one of them twice; a
/// specification by hand, without parents and with a directory of mode 0; directories listed twice by rules_pkg;
/// documents of many lines; an index with the platform of the config.
pub(super) fn rules_oci() -> Shape {
    let below = Tar::ustar()
        .dir("home/", 0o755)
        .of(1000, 1000)
        .dir("home/app/", 0o700)
        .dir("home/other/", 0o700)
        .end();
    let by_hand = Tar::ustar()
        .at(BY_TAR_BZL)
        .of(1000, 1000)
        .file("home/app/two", 0o644, "two\n")
        .of(0, 0)
        .at(0)
        .dir("./empty/", 0)
        .end();
    let packaged = Tar::gnu()
        .at(BY_RULES_PKG)
        .dir("opt/", 0o755)
        .dir("opt/tool/", 0o755)
        .dir("opt/", 0o755)
        .dir("opt/tool/", 0o755)
        .file("opt/tool/data", 0o555, "data\n")
        .symlink("opt/tool/link", "data")
        .end_of_record();
    let packed = Compression::Zstd.pack(&packaged);
    let plain = |tar: Vec<u8>| Made::new(OCI_PLAIN, tar.clone(), tar);
    let layers = vec![
        Made::base(OCI_GZIP),
        plain(below),
        plain(with_parents()),
        Made::gzip(OCI_GZIP, by_hand.clone(), Level::default()),
        Made::new(OCI_ZSTD, packaged, packed),
        Made::gzip(OCI_GZIP, by_hand, Level::default()),
    ];
    let config = config(&layers);
    let (shape, manifest) = Draft::oci("rules-oci", layers, config).indented().pack();
    let entry = described(&manifest, json!({"platform": platform()}));
    let script = "/app/tool; cat /home/app/two /opt/tool/link; stat -c '%a %u:%g' /home/app /home/other /empty";
    shape
        .indexed(&[entry], json!({}), vec![manifest])
        .says(script, "bazel\ntwo\ndata\n700 1000:1000\n755 0:0\n0 0:0")
}

/// rules_oci over a base with Docker's media types: its layers get media types of that form, for zstd and for
/// none as well.
pub(super) fn rules_oci_over_docker() -> Shape {
    const PLAIN: &str = "application/vnd.docker.image.rootfs.diff.tar";
    const ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    let tool = with_parents();
    let data =
        Tar::ustar().at(BY_TAR_BZL).dir("app/", 0o755).file("app/data", 0o644, "data\n").end();
    let packed = Compression::Zstd.pack(&data);
    let layers = vec![
        Made::base(DOCKER_GZIP),
        Made::new(PLAIN, tool.clone(), tool),
        Made::new(ZSTD, data, packed),
    ];
    let config = config(&layers);
    let (shape, _) = Draft::docker("rules-oci-docker", layers, config).indented().pack();
    shape.says("/app/tool; cat /app/data", "bazel\ndata")
}
