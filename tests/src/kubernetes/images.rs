// SPDX-License-Identifier: Apache-2.0
//! The images that a cluster and Kubernetes' own tests run, made of Debian packages and of programs built from Go
//! modules. Names and tags are those of k8s.io/kubernetes/test/utils/image/manifest.go.
//!
//! | image | content |
//! |---|---|
//! | agnhost | the program, bash, curl, dig, nc, and a registry of one image that it serves |
//! | busybox | applets, with bash as `sh`: busybox's own shells drop environment names that are not identifiers |
//! | nginx | Debian's nginx; two versions that differ in a file |
//! | glibc-dns-testing | dig and getent of Debian |
//! | nonewprivs | a set-uid program that prints its effective user id |
//! | nonroot | runs as user 1234 |
//! | kitten, nautilus | agnhost with a page of data |
//! | sample-apiserver, etcd | for the aggregation of APIs |
//! | pause, coredns | as their names say |

use crate::expect::ExpectExt;
use crate::fixture::dynamic;
use crate::image::{Image, Packed};
use crate::layer::Layer;
use crate::registry::Registry;
use crate::suite::images::{self, set_uid, web_server};
use crate::{debian, paths, shell};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

const E2E: &str = "e2e-test-images";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n\
    www-data:x:33:33:www-data:/var/www:/bin/false\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\nwww-data:x:33:\nuser-defined-in-image:x:1000:\n\
    group-defined-in-image:x:50000:user-defined-in-image\n";
/// A spec mounts an image as a volume, and looks for the name of the distribution that agnhost is built on.
const OS_RELEASE: &str = "NAME=\"Alpine Linux\"\nPRETTY_NAME=\"applets and Debian packages\"\n";

/// The one applet that specs use and Debian's busybox lacks: `nmeter -d0 %3t` prints the time with milliseconds.
const NMETER: &str = "#!/bin/bash\nnow=$EPOCHREALTIME\nTZ=UTC printf '%(%T)T.%s\\n' \"${now%.*}\" \"${now:(-6):3}\"\n";

/// Programs of Debian beside the applets, and the packages of their libraries.
const PROGRAMS: [&str; 4] = ["usr/bin/curl", "usr/bin/dig", "usr/bin/getent", "bin/nc.openbsd"];
const PACKAGES: [&str; 46] = [
    "curl",
    "bind9-dnsutils",
    "bind9-libs",
    "netcat-openbsd",
    "libc-bin",
    "libc6",
    "libbrotli1",
    "libbsd0",
    "libcom-err2",
    "libcurl4",
    "libffi8",
    "libfstrm0",
    "libgcc-s1",
    "libgmp10",
    "libgnutls30",
    "libgssapi-krb5-2",
    "libhogweed6",
    "libicu72",
    "libidn2-0",
    "libjemalloc2",
    "libjson-c5",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "libldap-2.5-0",
    "liblmdb0",
    "liblzma5",
    "libmaxminddb0",
    "libmd0",
    "libnettle8",
    "libnghttp2-14",
    "libp11-kit0",
    "libprotobuf-c1",
    "libpsl5",
    "librtmp1",
    "libsasl2-2",
    "libssh2-1",
    "libssl3",
    "libstdc++6",
    "libtasn1-6",
    "libunistring2",
    "libuv1",
    "libxml2",
    "libzstd1",
    "zlib1g",
];

/// Makes all images and pushes them. `programs` is the folder of Kubernetes' programs, `source` that of its module.
pub fn push_all(registry: &Registry, programs: &Path, source: &Path) {
    let push = |name: &str, tags: &[&str], image: &Image| {
        let _digest = images::push(registry, name, tags, image);
    };
    let base = base().tar();
    let tools = dynamic(Layer::new(), &PROGRAMS, &PACKAGES).symlink("bin/nc", "nc.openbsd").tar();
    let pause = pause();
    push("pause", &["3.10.2", "3.10.1", "3.10", "3.9"], &pause);
    let busybox = Image::new(vec![base.clone()], json!({"Cmd": ["sh"], "Env": [PATH]}));
    push(&format!("{E2E}/busybox"), &["1.37.0-2", "1.36.1-1", "1.29-2"], &busybox);
    push("library/busybox", &["latest", "1"], &busybox);
    let with = |layer: Layer, config: Value| {
        Image::new(vec![base.clone(), tools.clone(), layer.tar()], config)
    };
    for (name, data) in
        [("agnhost", None), ("kitten", Some("kitten.jpg")), ("nautilus", Some("nautilus.jpg"))]
    {
        let mut layer = agnhost(programs, source, &pause.pack());
        let mut config = json!({
            "Entrypoint": ["/agnhost"], "Cmd": ["pause"], "Env": [PATH],
            "ExposedPorts": {"80/tcp": {}, "8080/tcp": {}, "8081/tcp": {}, "9376/tcp": {}, "5000/tcp": {}},
        });
        if let Some(data) = data {
            layer = layer.file("data.json", 0o644, json!({"image": data}).to_string());
            config["Cmd"] = json!(["test-webserver"]);
        }
        let tags: &[&str] = if data.is_some() { &["1.8"] } else { &["2.66.1", "2.55", "2.53"] };
        push(&format!("{E2E}/{name}"), tags, &with(layer, config));
    }
    let plain = json!({"Cmd": ["sh"], "Env": [PATH]});
    push(&format!("{E2E}/glibc-dns-testing"), &["2.1.1"], &with(Layer::new(), plain));
    for tag in ["1.27.0-2", "1.28.0-2"] {
        let version = Layer::new().file("version", 0o644, tag).tar();
        push(&format!("{E2E}/nginx"), &[tag], &web_server(&base, 80).with(version));
    }
    let nonroot =
        Image::new(vec![base.clone()], json!({"Cmd": ["sh"], "User": "1234", "Env": [PATH]}));
    push(&format!("{E2E}/nonroot"), &["1.5"], &nonroot);
    push(&format!("{E2E}/nonewprivs"), &["1.4"], &set_uid(&base).set("Env", json!([PATH])));
    let program = |name: &str, to: &str, config: Value| {
        let layer = Layer::new().dirs(&["usr", "usr/local", "usr/local/bin", "tmp"]);
        Image::new(vec![layer.copy(to, &programs.join(name)).tar()], config)
    };
    let coredns = program("coredns", "coredns", json!({"Entrypoint": ["/coredns"]}));
    push("coredns/coredns", &["project"], &coredns);
    let etcd = program(
        "etcd",
        "usr/local/bin/etcd",
        json!({"Entrypoint": ["/usr/local/bin/etcd"], "Env": [PATH]}),
    );
    push("etcd", &["3.7.0-0"], &etcd);
    let sample = program(
        "sample-apiserver",
        "sample-apiserver",
        json!({"Entrypoint": ["/sample-apiserver"]}),
    );
    push(&format!("{E2E}/sample-apiserver"), &["1.29.2"], &sample);
}

/// Directories, accounts and applets, with bash as the shell.
pub(super) fn base() -> Layer {
    let busybox = debian::unpacked("busybox-static").join("bin/busybox");
    let bash = debian::unpacked("bash-static").join("bin/bash-static");
    let applets = shell::run(&busybox, ["--list"]).good();
    let mut layer = Layer::new()
        .dirs(&[
            "bin",
            "dev",
            "etc",
            "home",
            "lib",
            "lib64",
            "mnt",
            "proc",
            "root",
            "run",
            "sbin",
            "sys",
            "usr",
            "usr/bin",
            "usr/sbin",
            "usr/local",
            "usr/local/bin",
            "var",
            "var/log",
            "var/run",
            "var/www",
        ])
        .dir("tmp", 0o1777)
        .file("etc/passwd", 0o644, PASSWD)
        .file("etc/group", 0o644, GROUP)
        .file("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n")
        .file("etc/os-release", 0o644, OS_RELEASE)
        .copy("bin/busybox", &busybox)
        .copy("bin/bash", &bash)
        .file("bin/nmeter", 0o755, NMETER)
        .symlink("bin/sh", "bash");
    for applet in applets.lines().filter(|name| !["busybox", "sh", "bash"].contains(name)) {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer
}

/// A process that waits for SIGTERM, and reaps.
fn pause() -> Image {
    let dir = paths::fixtures().join("pause");
    fs::create_dir_all(&dir).or_fail(format!("make {}", dir.display()));
    let program = dir.join("pause");
    let source = paths::root().join("tests/kubernetes/pause.c");
    let mut compiler = Command::new("musl-gcc");
    compiler.args(["-static", "-Os", "-s", "-o"]).arg(&program).arg(&source);
    let _output = shell::finish(&mut compiler).good();
    let layer = Layer::new().copy("pause", &program);
    Image::new(vec![layer.tar()], json!({"Entrypoint": ["/pause"], "User": "65535:65535"}))
}

fn agnhost(programs: &Path, source: &Path, image: &Packed) -> Layer {
    let porter = source.join("test/images/agnhost/porter");
    let layer = Layer::new()
        .dirs(&["uploads"])
        .copy("agnhost", &programs.join("agnhost"))
        .symlink("agnhost-2", "agnhost")
        .copy("localhost.crt", &porter.join("localhost.crt"))
        .copy("localhost.key", &porter.join("localhost.key"));
    served(layer, image)
}

/// The files from which `agnhost fake-registry-server` serves `pause:testing`.
fn served(mut layer: Layer, image: &Packed) -> Layer {
    layer = layer.dirs(&["var/registry", "var/registry/pause"]);
    let manifest = [("manifests", &image.manifest)];
    let blobs = image.blobs.iter().map(|blob| ("blobs", blob));
    let mut made = Vec::new();
    for (kind, blob) in manifest.into_iter().chain(blobs) {
        let digest = blob.digest();
        let (algorithm, hex) = digest.split_once(':').or_fail("read a digest");
        let mut dir = format!("var/registry/pause/{kind}");
        for part in ["", algorithm, &hex[..2], hex] {
            if !part.is_empty() {
                dir = format!("{dir}/{part}");
            }
            if !made.contains(&dir) {
                layer = layer.dir(&dir, 0o755);
                made.push(dir.clone());
            }
        }
        layer = layer.file(&format!("{dir}/data"), 0o644, &blob.bytes);
    }
    let tag = format!("{}\n", image.manifest.digest());
    layer.file("var/registry/pause/manifests/testing", 0o644, tag)
}
