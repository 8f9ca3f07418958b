// SPDX-License-Identifier: Apache-2.0
//! Images in the shapes that builders give them. Each has what is particular of its builder: media types, documents beside the image, which
//! directories a layer lists, how entries and layers are written.
//!
//! The base of all of them is the busybox layer of the fixtures; nix, umoci, ko and apko have theirs in one piece.

use crate::expect::ExpectExt as _;
use crate::fixture::busybox_layer;
use crate::image::{Blob, INDEX, MANIFEST, digest, this_arch};
use crate::layer::{Compression, Layer};
use flate2::{Compression as Level, GzBuilder, write::GzEncoder};
use serde_json::{Value, json};
use std::io::Write as _;

/// An image as its builder makes it.
#[derive(Debug)]
pub struct Shape {
    /// The builder's name.
    pub builder: &'static str,
    /// The digest of the config.
    pub id: String,
    /// The digests of the layers' archives, lowest first.
    pub diff_ids: Vec<String>,
    /// The config, then the layers.
    pub blobs: Vec<Blob>,
    /// How it gets to a node.
    pub travels: Travels,
    /// A script for its shell.
    pub script: String,
    /// The output of the script.
    pub says: &'static str,
}

/// How an image gets to a node.
#[derive(Debug)]
pub enum Travels {
    /// Through a registry.
    Registry {
        /// The document under the tag.
        top: Blob,
        /// Those that it names.
        manifests: Vec<Blob>,
    },
    /// As a file.
    Archive {
        /// The bytes of the archive.
        bytes: Vec<u8>,
        /// The name that the import gives.
        reference: String,
    },
}

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// A layer: the archive, and how it travels.
struct Made {
    tar: Vec<u8>,
    blob: Blob,
}

fn gzip(media_type: &str, tar: Vec<u8>) -> Made {
    let bytes = Compression::Gzip.pack(&tar);
    Made { tar, blob: Blob { media_type: media_type.to_owned(), bytes } }
}

fn document(media_type: &str, value: &Value) -> Blob {
    Blob { media_type: media_type.to_owned(), bytes: value.to_string().into_bytes() }
}

/// The documents of an image. `config` is completed by the diff ids.
fn packed(
    builder: &'static str,
    types: (&str, &str),
    layers: Vec<Made>,
    mut config: Value,
) -> (Shape, Blob) {
    let diff_ids: Vec<String> = layers.iter().map(|of| digest(&of.tar)).collect();
    config["architecture"] = json!(this_arch());
    config["os"] = json!("linux");
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    let config = document(types.0, &config);
    let mut blobs = vec![config];
    blobs.extend(layers.into_iter().map(|of| of.blob));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": types.1, "config": blobs[0].descriptor(),
        "layers": blobs[1..].iter().map(Blob::descriptor).collect::<Vec<_>>(),
    });
    let manifest = document(types.1, &manifest);
    let shape = Shape {
        builder,
        id: blobs[0].digest(),
        diff_ids,
        blobs,
        travels: Travels::Registry { top: manifest.clone(), manifests: Vec::new() },
        script: String::new(),
        says: "",
    };
    (shape, manifest)
}

impl Shape {
    /// The same with annotations at its topmost layer.
    fn annotated(mut self, manifest: &Blob, annotations: Value) -> Self {
        let mut value: Value = serde_json::from_slice(&manifest.bytes).or_fail("make a shape");
        let layers = value["layers"].as_array_mut().or_fail("make a shape");
        layers.last_mut().or_fail("make a shape")["annotations"] = annotations;
        let top = document(&manifest.media_type, &value);
        self.travels = Travels::Registry { top, manifests: Vec::new() };
        self
    }

    fn says(mut self, script: &str, says: &'static str) -> Self {
        (self.script, self.says) = (script.to_owned(), says);
        self
    }
}

/// The shapes of all builders.
#[must_use]
pub fn all() -> Vec<Shape> {
    vec![
        docker_build(),
        buildkit(),
        buildah(),
        kaniko(),
        jib(),
        ko(),
        rules_oci(),
        apko(),
        nix(),
        s2i(),
        umoci(),
        estargz(),
        zstd_chunked(),
    ]
}

fn base(media_type: &str) -> Made {
    gzip(media_type, busybox_layer().tar())
}

/// The classic builder of Docker: schema 2, nulls for empty maps and lists, the history of empty layers, whiteouts.
fn docker_build() -> Shape {
    let upper = Layer::new()
        .dir("etc", 0o755)
        .file("etc/made-by", 0o644, "docker\n")
        .whiteout("etc/group")
        .dir("opt", 0o755)
        .opaque("opt");
    let config = json!({
        "config": {"Hostname": "", "User": "", "AttachStdin": false, "ExposedPorts": {"80/tcp": {}},
            "Env": ["PATH=/bin"], "Cmd": ["sh"], "Image": "sha256:0", "Volumes": null, "WorkingDir": "",
            "Entrypoint": null, "OnBuild": null, "Labels": null},
        "container": "f00", "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) ", "CMD [\"sh\"]"]},
        "created": "2024-01-01T00:00:00.000000001Z", "docker_version": "20.10.24",
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file"},
            {"created": "2024-01-01T00:00:00Z", "created_by": "CMD", "empty_layer": true}],
    });
    let layers = vec![base(DOCKER_LAYER), gzip(DOCKER_LAYER, upper.tar())];
    let (shape, _) = packed("docker-build", (DOCKER_CONFIG, DOCKER_MANIFEST), layers, config);
    shape.says("cat /etc/made-by; ls /etc/group 2> /dev/null", "docker")
}

/// BuildKit: an index over the image and its attestation, zstd layers, a config without nulls.
fn buildkit() -> Shape {
    let upper = Layer::new().dir("etc", 0o755).file("etc/made-by", 0o644, "buildkit\n").tar();
    let bytes = Compression::Zstd.pack(&upper);
    let upper = Made { tar: upper, blob: Blob { media_type: OCI_ZSTD.into(), bytes } };
    let config = json!({"config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "ArgsEscaped": true},
        "history": [{"created_by": "COPY / / # buildkit", "comment": "buildkit.dockerfile.v0"}]});
    let types = (OCI_CONFIG, MANIFEST);
    let (mut shape, manifest) = packed("buildkit", types, vec![base(OCI_GZIP), upper], config);
    let statement = document("application/vnd.in-toto+json", &json!({"_type": "statement"}));
    let unknown = json!({"architecture": "unknown", "os": "unknown", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [statement.digest()]}});
    let unknown = document(OCI_CONFIG, &unknown);
    let mut annotated_statement = statement.descriptor();
    annotated_statement["annotations"] =
        json!({"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"});
    let attestation = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": unknown.descriptor(),
        "layers": [annotated_statement]});
    let attestation = document(MANIFEST, &attestation);
    let mut image = manifest.descriptor();
    image["platform"] = json!({"architecture": this_arch(), "os": "linux"});
    let mut beside = attestation.descriptor();
    beside["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": manifest.digest()});
    beside["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [beside, image]});
    shape.blobs.extend([statement, unknown]);
    let manifests = vec![manifest, attestation];
    shape.travels = Travels::Registry { top: document(INDEX, &index), manifests };
    shape.says("cat /etc/made-by", "buildkit")
}

/// Buildah: OCI types, annotations, a layer with extended headers for times with fractions, links of both kinds.
fn buildah() -> Shape {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in [("etc/made-by", "buildah\n"), ("etc/second", "second\n")] {
        let records: [(&str, &[u8]); 2] = [("mtime", b"1700000000.123456789"), ("atime", b"1.5")];
        tar.append_pax_extensions(records).or_fail("make a shape");
        tar.append(&plain(path, text.len()), text.as_bytes()).or_fail("make a shape");
    }
    let mut link = plain("etc/third", 0);
    link.set_entry_type(tar::EntryType::Link);
    link.set_link_name("etc/second").or_fail("make a shape");
    link.set_cksum();
    tar.append(&link, &[][..]).or_fail("make a shape");
    let layers = vec![base(OCI_GZIP), gzip(OCI_GZIP, tar.into_inner().or_fail("make a shape"))];
    let config = json!({"created": "2024-01-01T00:00:00.123456789Z", "author": "somebody",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"io.buildah.version": "1.33.7"}},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "/bin/sh", "empty_layer": true}]});
    let (shape, _) = packed("buildah", (OCI_CONFIG, MANIFEST), layers, config);
    shape.says("cat /etc/made-by; cat /etc/third; stat -c %h /etc/second", "buildah\nsecond\n2")
}

/// A header of a file as most builders write it.
fn plain(path: &str, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_path(path).or_fail("make a shape");
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    header
}

/// Kaniko: each layer lists `/` and all parents, from the root.
fn kaniko() -> Shape {
    let upper = Layer::new()
        .hostile(tar::EntryType::Directory, "/", "", b"")
        .hostile(tar::EntryType::Directory, "/etc/", "", b"")
        .hostile(tar::EntryType::Regular, "/etc/made-by", "", b"kaniko\n")
        .hostile(tar::EntryType::Regular, "/etc/.wh.group", "", b"");
    let layers = vec![base(DOCKER_LAYER), gzip(DOCKER_LAYER, upper.tar())];
    let config =
        json!({"config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]}, "created": "0001-01-01T00:00:00Z"});
    let (shape, _) = packed("kaniko", (DOCKER_CONFIG, DOCKER_MANIFEST), layers, config);
    shape.says("cat /etc/made-by; ls /etc/group 2> /dev/null", "kaniko")
}

/// Jib: layers of dependencies, classes, and arguments of the JVM. All files are of one second after the epoch.
fn jib() -> Shape {
    let layer = |parents: &[&str], path: &str, text: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        for of in parents.iter().chain([&path]) {
            let is_file = *of == path;
            let data = if is_file { text } else { "" };
            let mut header = plain(of, data.len());
            if !is_file {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
            }
            header.set_mtime(1);
            header.set_cksum();
            tar.append(&header, data.as_bytes()).or_fail("make a shape");
        }
        tar.into_inner().or_fail("make a shape")
    };
    let layers = vec![
        base(DOCKER_LAYER),
        gzip(DOCKER_LAYER, layer(&["app/", "app/libs/"], "app/libs/dependency.jar", "jar\n")),
        gzip(DOCKER_LAYER, layer(&["app/", "app/classes/"], "app/classes/Main.class", "class\n")),
        gzip(DOCKER_LAYER, layer(&["app/"], "app/jib-classpath-file", "/app/classes:/app/libs/*")),
    ];
    let config = json!({"created": "1970-01-01T00:00:00Z", "history": [{"created_by": "jib-maven-plugin:3.4.0",
        "author": "Jib", "comment": "classes"}], "config": {"Env": ["PATH=/bin"],
        "Entrypoint": ["java", "-cp", "@/app/jib-classpath-file"], "ExposedPorts": {}, "Labels": {}, "Volumes": {}}});
    let (shape, _) = packed("jib", (DOCKER_CONFIG, DOCKER_MANIFEST), layers, config);
    let script =
        "cat /app/libs/dependency.jar /app/classes/Main.class; stat -c %Y /app/jib-classpath-file";
    shape.says(script, "jar\nclass\n1")
}

/// ko: the program and its data in layers of one file each, with no time and no owner.
fn ko() -> Shape {
    let program =
        Layer::new().dir("ko-app", 0o555).file("ko-app/app", 0o555, "#!/bin/sh\necho ko\n");
    let data = Layer::new().dirs(&["var", "var/run", "var/run/ko"]).file(
        "var/run/ko/data",
        0o555,
        "data\n",
    );
    let layers = vec![base(OCI_GZIP), gzip(OCI_GZIP, data.tar()), gzip(OCI_GZIP, program.tar())];
    let config = json!({"author": "github.com/ko-build/ko", "created": "1970-01-01T00:00:00Z",
        "config": {"Entrypoint": ["/ko-app/app"], "Env": ["KO_DATA_PATH=/var/run/ko", "PATH=/ko-app:/bin"],
        "User": "65532:65532"}, "variant": ""});
    let (shape, _) = packed("ko", (OCI_CONFIG, MANIFEST), layers, config);
    shape.says("app; cat $KO_DATA_PATH/data; id -u", "ko\ndata\n65532")
}

/// Bazel's rules_oci: archives by bsdtar or pkg_tar, which list no parents, with `./` before each name, and sizes
/// on hard links.
fn rules_oci() -> Shape {
    let lower = Layer::new().dir("home", 0o755).dir_of("home/app", 0o700, 1000, 1000).tar();
    let upper = Layer::new()
        .hostile(tar::EntryType::Regular, "./home/app/one", "", b"bazel\n")
        .hostile(tar::EntryType::Regular, "./opt/tool/bin", "", b"tool\n");
    // It goes on where its end was.
    let mut bytes = upper.tar();
    bytes.truncate(bytes.len() - 1024);
    let mut link = plain("./home/app/two", 6);
    link.set_entry_type(tar::EntryType::Link);
    link.set_link_name("./home/app/one").or_fail("make a shape");
    link.set_cksum();
    bytes.extend_from_slice(link.as_bytes());
    let last = plain("./home/app/three", 6);
    bytes.extend_from_slice(last.as_bytes());
    let mut content = b"three\n".to_vec();
    content.resize(512, 0);
    bytes.extend(content);
    bytes.extend([0; 1024]);
    let layers = vec![base(OCI_GZIP), gzip(OCI_GZIP, lower), gzip(OCI_GZIP, bytes)];
    let config =
        json!({"config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]}, "created": "1970-01-01T00:00:00Z"});
    let (shape, manifest) = packed("rules-oci", (OCI_CONFIG, MANIFEST), layers, config);
    // An index without a platform, as `oci_image_index` makes of images that name none.
    let index =
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest.descriptor()]});
    let travels = Travels::Registry { top: document(INDEX, &index), manifests: vec![manifest] };
    Shape { travels, ..shape }.says(
        "cat /home/app/two /home/app/three; stat -c '%a %u:%g' /home/app",
        "bazel\nthree\n700 1000:1000",
    )
}

/// apko: one layer for all packages, its database in it, an index for each architecture.
fn apko() -> Shape {
    let layer = busybox_layer()
        .dirs(&["usr", "usr/lib", "lib", "lib/apk", "lib/apk/db"])
        .file("lib/apk/db/installed", 0o600, "C:Q1\nP:apko\n")
        .symlink("usr/lib/os-release", "../../lib/apk/db/installed");
    let config = json!({"author": "github.com/chainguard-dev/apko", "created": "1970-01-01T00:00:00Z",
        "config": {"Cmd": ["/bin/sh", "-l"], "Env": ["PATH=/bin", "SSL_CERT_FILE=/etc/ssl/ca.crt"]}});
    let (mut shape, manifest) =
        packed("apko", (OCI_CONFIG, MANIFEST), vec![gzip(OCI_GZIP, layer.tar())], config);
    let mut image = manifest.descriptor();
    image["platform"] = json!({"architecture": this_arch(), "os": "linux"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [image],
        "annotations": {"org.opencontainers.image.created": "1970-01-01T00:00:00Z"}});
    shape.travels = Travels::Registry { top: document(INDEX, &index), manifests: vec![manifest] };
    shape.says("grep P: /usr/lib/os-release", "P:apko")
}

/// Nix's dockerTools: an archive for `docker load` whose layers are store paths that nobody may write.
fn nix() -> Shape {
    let store = Layer::new()
        .dir("./", 0o755)
        .dirs(&["nix", "nix/store"])
        .dir("nix/store/abc-hello", 0o555)
        .file("nix/store/abc-hello/hello", 0o444, "nix\n");
    let top = Layer::new().symlink("hello", "/nix/store/abc-hello/hello");
    let layers =
        vec![base(DOCKER_LAYER), gzip(DOCKER_LAYER, store.tar()), gzip(DOCKER_LAYER, top.tar())];
    let tars: Vec<Vec<u8>> = layers.iter().map(|of| of.tar.clone()).collect();
    let config = json!({"created": "1970-01-01T00:00:01+00:00", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "history": [{"created": "1970-01-01T00:00:01+00:00", "comment": "store paths: ['/nix/store/abc-hello']"}]});
    let (mut shape, _) = packed("nix", (DOCKER_CONFIG, DOCKER_MANIFEST), layers, config);
    let mut archive = Layer::new();
    let mut paths = Vec::new();
    for (tar, diff_id) in tars.iter().zip(&shape.diff_ids) {
        let path = format!("{}/layer.tar", diff_id.trim_start_matches("sha256:"));
        archive = archive.file(&path, 0o644, tar);
        paths.push(path);
    }
    let name = format!("{}.json", shape.id.trim_start_matches("sha256:"));
    let manifest = json!([{"Config": name, "RepoTags": ["hello:abc"], "Layers": paths}]);
    let archive = archive.file(&name, 0o644, &shape.blobs[0].bytes).file(
        "manifest.json",
        0o644,
        manifest.to_string(),
    );
    let bytes = Compression::Gzip.pack(&archive.tar());
    shape.travels = Travels::Archive { bytes, reference: "example.org/corpus/nix:1".into() };
    shape.says("cat /hello; stat -c %a /nix/store/abc-hello", "nix\n555")
}

/// s2i: a commit of a container: a user by number, labels, no entry point.
fn s2i() -> Shape {
    let upper = Layer::new().dirs(&["opt"]).dir_of("opt/app-root", 0o775, 1001, 0).file_of(
        "opt/app-root/made-by",
        0o664,
        1001,
        "s2i\n",
    );
    let config = json!({"config": {"User": "1001", "Env": ["PATH=/bin", "STI_SCRIPTS_URL=image:///usr/libexec/s2i"],
        "Cmd": ["/usr/libexec/s2i/run"], "Entrypoint": null, "OnBuild": [], "WorkingDir": "/opt/app-root",
        "Labels": {"io.openshift.s2i.scripts-url": "image:///usr/libexec/s2i", "io.k8s.description": "\u{e9}"}},
        "docker_version": "", "os.version": null});
    let layers = vec![base(DOCKER_LAYER), gzip(DOCKER_LAYER, upper.tar())];
    let (shape, _) = packed("s2i", (DOCKER_CONFIG, DOCKER_MANIFEST), layers, config);
    shape.says("cat made-by; id -u; stat -c '%a %u:%g' .", "s2i\n1001\n775 1001:0")
}

/// umoci: an OCI layout, entries from `./`, its manifest named by a tag alone.
fn umoci() -> Shape {
    let upper = Layer::new()
        .dir_of("./", 0o751, 0, 0)
        .hostile(tar::EntryType::Directory, "./etc/", "", b"")
        .hostile(tar::EntryType::Regular, "./etc/made-by", "", b"umoci\n");
    let config = json!({"created": "2024-01-01T00:00:00Z", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "history": [{"created_by": "umoci repack", "empty_layer": false}]});
    let layers = vec![base(OCI_GZIP), gzip(OCI_GZIP, upper.tar())];
    let (mut shape, manifest) = packed("umoci", (OCI_CONFIG, MANIFEST), layers, config);
    let mut entry = manifest.descriptor();
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    let mut archive = Layer::new()
        .file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", 0o644, index.to_string());
    for blob in shape.blobs.iter().chain([&manifest]) {
        archive =
            archive.file(&format!("blobs/{}", blob.digest().replace(':', "/")), 0o644, &blob.bytes);
    }
    shape.travels =
        Travels::Archive { bytes: archive.tar(), reference: "example.org/corpus/umoci:1".into() };
    shape.says("cat /etc/made-by; stat -c %a /", "umoci\n751")
}

/// eStargz: a member of gzip for each entry, the table of contents as the last entry, its place in the footer, its
/// digest in an annotation.
fn estargz() -> Shape {
    let toc = r#"{"version":1,"entries":[]}"#;
    let whole = Layer::new()
        .file(".no.prefetch.landmark", 0o644, "\x0f")
        .dir("etc", 0o755)
        .file("etc/made-by", 0o644, "estargz\n")
        .file("stargz.index.json", 0o444, toc)
        .tar();
    let mut bytes = Vec::new();
    for part in whole.chunks(1024) {
        let mut member = GzEncoder::new(Vec::new(), Level::fast());
        member.write_all(part).or_fail("make a shape");
        bytes.extend(member.finish().or_fail("make a shape"));
    }
    // An empty member, whose extra field has the offset of the table.
    let footer = GzBuilder::new().extra(b"SG\x16\x000000000000000400STARGZ".to_vec());
    bytes.extend(footer.write(Vec::new(), Level::none()).finish().or_fail("make a shape"));
    let upper = Made { tar: whole, blob: Blob { media_type: OCI_GZIP.into(), bytes } };
    let config = json!({"config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}});
    let size = upper.tar.len().to_string();
    let layers = vec![base(OCI_GZIP), upper];
    let (shape, manifest) = packed("estargz", (OCI_CONFIG, MANIFEST), layers, config);
    let annotations = json!({"containerd.io/snapshot/stargz/toc.digest": digest(toc.as_bytes()),
        "io.containers.estargz.uncompressed-size": size});
    shape.annotated(&manifest, annotations).says("cat /etc/made-by", "estargz")
}

/// zstd:chunked: a frame for each entry; the table of contents, what is not content of the archive (tar-split), and the
/// footer with their places, in frames that decoders skip.
fn zstd_chunked() -> Shape {
    let whole = Layer::new()
        .dir("etc", 0o755)
        .file("etc/made-by", 0o644, "zstd:chunked\n")
        .file("etc/other", 0o644, vec![7; 100_000])
        .tar();
    let mut bytes = Vec::new();
    for part in whole.chunks(20_000) {
        bytes.extend(zstd::encode_all(part, 3).or_fail("make a shape"));
    }
    let skip = |bytes: &mut Vec<u8>, skipped: &[u8]| {
        bytes.extend([0x50, 0x2a, 0x4d, 0x18]);
        bytes.extend(u32::try_from(skipped.len()).or_fail("make a shape").to_le_bytes());
        let place = bytes.len();
        bytes.extend_from_slice(skipped);
        place
    };
    let toc = br#"{"version":1,"entries":[]}"#;
    let packed_toc = zstd::encode_all(&toc[..], 3).or_fail("make a shape");
    let toc_at = skip(&mut bytes, &packed_toc);
    let split = br#"{"type":2,"payload":"","position":0}"#;
    let packed_split = zstd::encode_all(&split[..], 3).or_fail("make a shape");
    let split_at = skip(&mut bytes, &packed_split);
    let places =
        [toc_at, packed_toc.len(), toc.len(), 1, split_at, packed_split.len(), split.len()];
    let mut footer: Vec<u8> = places.iter().flat_map(|of| (*of as u64).to_le_bytes()).collect();
    footer.extend(b"GNUlInUx");
    skip(&mut bytes, &footer);
    let upper = Made { tar: whole, blob: Blob { media_type: OCI_ZSTD.into(), bytes } };
    let config = json!({"config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}});
    let types = (OCI_CONFIG, MANIFEST);
    let layers = vec![base(OCI_GZIP), upper];
    let (shape, manifest) = packed("zstd-chunked", types, layers, config);
    let of = |at: usize, packed: &[u8], all: &[u8]| format!("{at}:{}:{}", packed.len(), all.len());
    let annotations = json!({
        "io.github.containers.zstd-chunked.manifest-checksum": digest(&packed_toc),
        "io.github.containers.zstd-chunked.manifest-position": of(toc_at, &packed_toc, toc) + ":1",
        "io.github.containers.zstd-chunked.tarsplit-position": of(split_at, &packed_split, split),
    });
    shape
        .annotated(&manifest, annotations)
        .says("cat /etc/made-by; wc -c < /etc/other", "zstd:chunked\n100000")
}
