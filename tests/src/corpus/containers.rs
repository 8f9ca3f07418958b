// SPDX-License-Identifier: Apache-2.0
//! Images by buildah and by umoci: OCI media types, layers from a directory.

use super::archive::{Tar, file_capability};
use super::shape::{Draft, Made, OCI_GZIP, Shape, Travels, described, layout};
use crate::image::INDEX;
use flate2::Compression as Level;
use serde_json::json;

const CREATED: &str = "2024-01-01T00:00:00.123456789Z";
const MTIME: u64 = 1_704_067_200;
/// `CAP_NET_BIND_SERVICE` of capabilities(7).
const NET_BIND_SERVICE: u32 = 10;

/// Buildah: annotations of the manifest, an author, a layer of the overlay driver with whiteouts of mode 0, links of
/// both kinds, and file capabilities.
pub(super) fn buildah() -> Shape {
    let below = Tar::ustar().dir("home/", 0o755).file("home/old", 0o644, "old\n").end();
    let upper = Tar::ustar()
        .at(MTIME)
        .dir("etc/", 0o755)
        .file("etc/.wh.group", 0, "")
        .file("etc/made-by", 0o644, "buildah\n")
        .file("etc/second", 0o644, "second\n")
        .hard_link("etc/third", 0o644, "etc/second")
        .symlink("etc/fourth", "third")
        .dir("home/", 0o755)
        .at(0)
        .file("home/.wh..wh..opq", 0o755, "")
        .at(MTIME)
        .dir("usr/", 0o755)
        .dir("usr/bin/", 0o755)
        .records(&[
            ("SCHILY.xattr.security.capability", &file_capability(NET_BIND_SERVICE)),
            ("SCHILY.xattr.user.note", b"of a user"),
        ])
        .file("usr/bin/server", 0o755, "#!/bin/sh\n")
        .end();
    let config = json!({"created": CREATED, "author": "A <a@example.org>",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "WorkingDir": "/", "StopSignal": "SIGINT",
            "Labels": {"io.buildah.version": "1.41.0"}},
        "history": [{"created": CREATED, "created_by": "/bin/sh -c #(nop) ADD file:0 in / "},
            {"created": CREATED, "created_by": "/bin/sh -c #(nop) COPY file:0 in /home"},
            {"created": CREATED, "created_by": "/bin/sh -c #(nop) LABEL a=b", "author": "A <a@example.org>",
                "comment": "FROM docker.io/library/busybox:latest", "empty_layer": true},
            {"created": CREATED, "created_by": "/bin/sh", "author": "A <a@example.org>"}]});
    let gzip = |tar| Made::gzip(OCI_GZIP, tar, Level::default());
    let layers = vec![Made::base(OCI_GZIP), gzip(below), gzip(upper)];
    let annotations = json!({"annotations": {"org.opencontainers.image.base.name": "docker.io/library/busybox:latest",
        "org.opencontainers.image.base.digest": "sha256:0", "org.opencontainers.image.created": CREATED}});
    let (shape, _) = Draft::oci("buildah", layers, config).manifest(annotations).pack();
    shape.says(
        "cat /etc/made-by /etc/fourth; stat -c %h /etc/second; ls /etc/group 2> /dev/null; ls /home",
        "buildah\nsecond\n2",
    )
}

/// umoci: a layer of `repack`, with the root as `.` and whiteouts in the order of names, one of `insert`, which has no
/// parents and begins with an opaque mark, and an OCI layout that names its manifest by a tag alone.
pub(super) fn umoci() -> Shape {
    let below = Tar::ustar().dir("srv/", 0o755).file("srv/old", 0o644, "old\n").end();
    let repacked = Tar::ustar()
        .at(MTIME)
        .dir(".", 0o751)
        .dir("etc/", 0o755)
        .bare_whiteout("etc/.wh.group")
        .file("etc/made-by", 0o644, "umoci\n")
        .hard_link("etc/second", 0o644, "etc/made-by")
        .end();
    let inserted = Tar::ustar()
        .at(MTIME)
        .bare_whiteout("srv/.wh..wh..opq")
        .dir("srv/", 0o750)
        .file("srv/new", 0o644, "new\n")
        .end();
    let gzip = |tar: Vec<u8>| {
        let size = tar.len().to_string();
        Made::gzip(OCI_GZIP, tar, Level::default())
            .annotated(json!({"ci.umo.uncompressed_blob_size": size}))
    };
    let layers = vec![Made::base(OCI_GZIP), gzip(below), gzip(repacked), gzip(inserted)];
    let by = |what: &str| json!({"created": CREATED, "created_by": format!("umoci {what}")});
    let config = json!({"created": CREATED, "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "history": [by("new"), by("repack"), by("repack"), by("insert"),
            {"created": CREATED, "created_by": "umoci config", "empty_layer": true}]});
    let (mut shape, manifest) = Draft::oci("umoci", layers, config).pack();
    let named = json!({"annotations": {"org.opencontainers.image.ref.name": "latest"}});
    let index =
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [described(&manifest, named)]});
    let bytes = layout(&shape, &manifest, &index);
    shape.travels = Travels::Archive { bytes, reference: "example.org/corpus/umoci:1".into() };
    shape.says(
        "cat /etc/second; ls /etc/group 2> /dev/null; ls /srv; stat -c '%a %n' / /srv",
        "umoci\nnew\n751 /\n750 /srv",
    )
}
