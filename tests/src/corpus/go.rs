// SPDX-License-Identifier: Apache-2.0
//! Images by kaniko, ko and apko: all three use the library go-containerregistry, whose configs have no empty values,
//! and a year 1 for times that are not set..

use super::archive::{Tar, file_capability};
use super::shape::{DOCKER_GZIP, Draft, Made, OCI_GZIP, Shape, described, platform};
use crate::expect::ExpectExt as _;
use crate::fixture::{PASSWD, busybox_layer};
use flate2::Compression as Level;
use serde_json::{Value, json};

/// Go's time that is not set.
const UNSET: &str = "0001-01-01T00:00:00Z";
const MTIME: u64 = 1_704_067_200;
/// `CAP_NET_BIND_SERVICE` of capabilities(7).
const NET_BIND_SERVICE: u32 = 10;

/// kaniko: each layer lists `/` and all parents, whiteouts first and without mode and time, all three times of each
/// file with fractions, and hard links to absolute paths.
pub(super) fn kaniko() -> Shape {
    let times: [(&str, &[u8]); 3] = [
        ("atime", b"1704067201.5"),
        ("ctime", b"1704067200.123456789"),
        ("mtime", b"1704067200.123456789"),
    ];
    let upper = Tar::ustar()
        .at(MTIME)
        .records(&times)
        .dir("/", 0o755)
        .records(&times)
        .dir("etc/", 0o755)
        .bare_whiteout("etc/.wh.group")
        .records(&times)
        .file("etc/made-by", 0o644, "kaniko\n")
        .records(&times)
        .hard_link("etc/second", 0o644, "/etc/made-by")
        .end();
    let layers = vec![Made::base(DOCKER_GZIP), Made::gzip(DOCKER_GZIP, upper, Level::fast())];
    let config = json!({"config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Image": "sha256:0"},
        "created": "2024-01-01T00:00:00.123456789Z",
        "history": [{"created": "2023-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:0 in / "},
            {"author": "kaniko", "created": UNSET, "created_by": "RUN rm /etc/group"}]});
    let (shape, _) = Draft::docker("kaniko", layers, config).pack();
    shape.says(
        "cat /etc/second; ls /etc/group 2> /dev/null; stat -c '%h %Y' /etc/made-by",
        "kaniko\n2 1704067200",
    )
}

/// ko: data and program in layers of their own, no time, no owner. Names are absolute, but one; directories have no
/// `/` at their end and nobody may write in them.
pub(super) fn ko() -> Shape {
    let data = Tar::ustar()
        .dir("/var", 0o555)
        .dir("/var/run", 0o555)
        .dir("/var/run/ko", 0o555)
        .file("/var/run/ko/data", 0o555, "data\n")
        .end();
    let program =
        Tar::ustar().dir("ko-app", 0o555).file("/ko-app/app", 0o555, "#!/bin/sh\necho ko\n").end();
    let fast = |tar| Made::gzip(OCI_GZIP, tar, Level::fast());
    let layers = vec![Made::base(OCI_GZIP), fast(data), fast(program)];
    let by = |comment: &str| {
        json!({"author": "ko", "created": UNSET, "comment": comment,
            "created_by": "ko build ko://example.org/app"})
    };
    let config = json!({"author": "github.com/ko-build/ko", "created": "1970-01-01T00:00:00Z",
        "config": {"Entrypoint": ["/ko-app/app"], "Env": ["PATH=/bin:/ko-app", "KO_DATA_PATH=/var/run/ko"],
            "User": "65532"},
        "history": [{"author": "apko", "created": "1970-01-01T00:00:00Z", "created_by": "apko"},
            by("kodata contents, at $KO_DATA_PATH"), by("go build output, at /ko-app/app")]});
    let annotations = json!({"annotations": {"org.opencontainers.image.base.digest": "sha256:0",
        "org.opencontainers.image.base.name": "example.org/static:latest"}});
    let (shape, _) = Draft::oci("ko", layers, config).manifest(annotations).pack();
    shape.says("app; cat $KO_DATA_PATH/data; id -u; stat -c '%a %Y' /var", "ko\ndata\n65532\n555 0")
}

/// apko: a layer of packages, with attributes and the names of owners; a layer above with devices, the same
/// directories and the database of packages again; no root, no `/` at the end of directories; an index over the
/// images of all platforms.
pub(super) fn apko() -> Shape {
    let base = busybox_layer().tar();
    let packages = Tar::ustar()
        .after(base.strip_suffix([0_u8; 1024].as_slice()).or_fail("make a shape"))
        .named("root")
        .dir("usr", 0o755)
        .dir("usr/bin", 0o755)
        .records(&[("SCHILY.xattr.security.capability", &file_capability(NET_BIND_SERVICE))])
        .file("usr/bin/server", 0o755, "#!/bin/sh\n")
        .dir("usr/lib", 0o755)
        .dir("usr/lib/apk", 0o755)
        .dir("usr/lib/apk/db", 0o755)
        .file("usr/lib/apk/db/installed", 0o644, "C:Q1\nP:busybox\n")
        .end();
    let top = Tar::ustar()
        .named("root")
        .dir("dev", 0o755)
        .char_device("dev/console", 0o620, (5, 1))
        .char_device("dev/null", 0o666, (1, 3))
        .dir("etc", 0o755)
        .file("etc/apko.json", 0o644, "{}")
        .file("etc/passwd", 0o644, PASSWD)
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .dir("usr/lib/apk", 0o755)
        .dir("usr/lib/apk/db", 0o755)
        .file("usr/lib/apk/db/installed", 0o644, "C:Q1\nP:busybox\nP:apko\n")
        .symlink("usr/lib/os-release", "apk/db/installed")
        .end();
    let gzip = |tar| Made::gzip(OCI_GZIP, tar, Level::default());
    let created = "1970-01-01T00:00:00Z";
    let annotations = json!({"org.opencontainers.image.created": created, "org.opencontainers.image.title": "app"});
    let by = json!({"author": "apko", "created": created, "created_by": "apko"});
    let config = json!({"author": "github.com/chainguard-dev/apko", "created": created, "history": [by, by],
        "config": {"Cmd": ["/bin/sh", "-l"], "User": "65532", "Labels": annotations,
            "Env": ["PATH=/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"]}});
    let (shape, manifest) = Draft::oci("apko", vec![gzip(packages), gzip(top)], config)
        .manifest(json!({"annotations": annotations}))
        .pack();
    let entry: Value = described(&manifest, json!({"platform": platform()}));
    let shape = shape.indexed(&[entry], json!({"annotations": annotations}), vec![manifest]);
    shape.says("grep P: /usr/lib/os-release; id -u", "P:busybox\nP:apko\n65532")
}
