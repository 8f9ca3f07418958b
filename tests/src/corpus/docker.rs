// SPDX-License-Identifier: Apache-2.0
//! Images by Docker: its classic builder, a commit of a container (as source-to-image makes its images), BuildKit.
//!
//! Docker's and BuildKit's layers are written in Go. Each directory on the way to a file is listed, without the root;
//! times have whole seconds.

use super::archive::Tar;
use super::shape::{
    DOCKER_GZIP, Draft, Made, OCI_CONFIG, OCI_GZIP, OCI_ZSTD, Shape, described, document, platform,
};
use crate::image::{Blob, MANIFEST};
use flate2::Compression as Level;
use serde_json::{Value, json};

const CREATED: &str = "2024-01-01T00:00:00.123456789Z";
const MTIME: u64 = 1_704_067_200;
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// The `config` of an image as Docker's engine writes it: empty values, and null for empty maps and lists.
fn container_config(more: Value) -> Value {
    let mut config = json!({"Hostname": "", "Domainname": "", "User": "", "AttachStdin": false,
        "AttachStdout": false, "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false,
        "Env": ["PATH=/bin"], "Cmd": ["sh"], "Image": "sha256:0", "Volumes": null, "WorkingDir": "",
        "Entrypoint": null, "OnBuild": null, "Labels": null});
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    config
}

/// The classic builder of Docker: nulls for empty maps and lists, the history of empty layers, whiteouts of mode
/// 0600, an opaque mark after its directory.
pub(super) fn docker_build() -> Shape {
    let below = Tar::ustar().dir("opt/", 0o755).file("opt/old", 0o644, "old\n").end();
    let upper = Tar::ustar()
        .at(MTIME)
        .dir("etc/", 0o755)
        .file("etc/.wh.group", 0o600, "")
        .file("etc/made-by", 0o644, "docker\n")
        .dir("opt/", 0o755)
        .at(0)
        .file("opt/.wh..wh..opq", 0o755, "")
        .end();
    let health =
        json!({"Test": ["CMD-SHELL", "true"], "Interval": 30_000_000_000_u64, "Retries": 3});
    let more = json!({"ExposedPorts": {"80/tcp": {}}, "Healthcheck": health, "StopSignal": "SIGQUIT",
        "Shell": ["/bin/sh", "-e", "-c"], "OnBuild": ["RUN true"], "ArgsEscaped": true});
    let config = json!({"config": container_config(more), "created": CREATED, "docker_version": "20.10.24",
        "container": "f00", "container_config": container_config(json!({"Hostname": "f00",
            "Cmd": ["/bin/sh", "-c", "#(nop) ", "CMD [\"sh\"]"]})),
        "history": [{"created": CREATED, "created_by": "/bin/sh -c #(nop) ADD file:0 in / "},
            {"created": CREATED, "created_by": "/bin/sh -c #(nop)  CMD [\"sh\"]", "empty_layer": true},
            {"created": CREATED, "created_by": "/bin/sh -c #(nop) COPY file:0 in /opt "},
            {"created": CREATED, "created_by": "/bin/sh -c rm /etc/group"}]});
    let gzip = |tar| Made::gzip(DOCKER_GZIP, tar, Level::default());
    let layers = vec![Made::base(DOCKER_GZIP), gzip(below), gzip(upper)];
    let (shape, _) = Draft::docker("docker-build", layers, config).pack();
    shape.says("cat /etc/made-by; ls /etc/group 2> /dev/null; ls /opt", "docker")
}

/// Source-to-image: a commit of the container of the builder image, with its user, the run script, and an entry
/// point that is an empty list.
pub(super) fn s2i() -> Shape {
    let upper = Tar::ustar()
        .at(MTIME)
        .dir("opt/", 0o755)
        .of(1001, 0)
        .dir("opt/app-root/", 0o775)
        .dir("opt/app-root/src/", 0o775)
        .file("opt/app-root/src/made-by", 0o664, "s2i\n")
        .of(0, 0)
        .dir("tmp/", 0o1777)
        .of(1001, 0)
        .dir("tmp/src/", 0o755)
        .end();
    let labels = json!({"io.k8s.display-name": "app", "io.openshift.s2i.build.image": "builder:latest",
        "io.openshift.s2i.scripts-url": "image:///usr/libexec/s2i", "io.openshift.build.commit.author": "A \u{e9}"});
    let more = json!({"User": "1001", "Cmd": ["/usr/libexec/s2i/run"], "Entrypoint": [],
        "Env": ["PATH=/bin", "STI_SCRIPTS_URL=image:///usr/libexec/s2i"], "WorkingDir": "/opt/app-root/src",
        "Labels": labels});
    let assembling = json!({"Hostname": "f00", "Entrypoint": ["/usr/bin/env"], "OpenStdin": true, "StdinOnce": true,
        "Cmd": ["/bin/sh", "-c", "tar -C /tmp -xf - && /usr/libexec/s2i/assemble"]});
    let config = json!({"config": container_config(more), "created": CREATED, "docker_version": "20.10.24",
        "container": "f00", "container_config": container_config(assembling), "comment": "",
        "history": [{"created": CREATED, "created_by": "/bin/sh -c #(nop) ADD file:0 in / "},
            {"created": CREATED, "created_by": "/bin/sh -c tar -C /tmp -xf - && /usr/libexec/s2i/assemble"}]});
    let layers = vec![Made::base(DOCKER_GZIP), Made::gzip(DOCKER_GZIP, upper, Level::default())];
    let (shape, _) = Draft::docker("s2i", layers, config).pack();
    shape.says("cat made-by; id -u; stat -c '%a %u:%g' .", "s2i\n1001\n775 1001:0")
}

/// BuildKit: an index over the image and its attestations, zstd layers, a config without nulls. The attestations
/// are after the image, in both forms: with a config of no platform, and as an artifact with the image as its subject.
pub(super) fn buildkit() -> Shape {
    let upper = Tar::ustar()
        .at(MTIME)
        .dir("etc/", 0o755)
        .at(0)
        .file("etc/.wh.group", 0, "")
        .at(MTIME)
        .file("etc/made-by", 0o644, "buildkit\n")
        .end();
    let bytes = crate::layer::Compression::Zstd.pack(&upper);
    let layers = vec![Made::base(OCI_GZIP), Made::new(OCI_ZSTD, upper, bytes)];
    let by = |command: &str, is_empty: bool| {
        let mut by =
            json!({"created": CREATED, "created_by": command, "comment": "buildkit.dockerfile.v0"});
        if is_empty {
            by["empty_layer"] = json!(true);
        }
        by
    };
    let config = json!({"config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "ArgsEscaped": true}, "created": CREATED,
        "history": [by("ADD rootfs.tar / # buildkit", false), by("COPY / / # buildkit", false),
            by("CMD [\"sh\"]", true)]});
    let (mut shape, manifest) = Draft::oci("buildkit", layers, config).pack();
    let statement = json!({"_type": "https://in-toto.io/Statement/v0.1", "subject": [],
        "predicateType": "https://slsa.dev/provenance/v0.2", "predicate": {}});
    let statement = document(IN_TOTO, &statement);
    let of_statement = described(
        &statement,
        json!({"annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}}),
    );
    let unknown = json!({"architecture": "unknown", "os": "unknown", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [statement.digest()]}});
    let unknown = document(OCI_CONFIG, &unknown);
    let with_config = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": unknown.descriptor(),
        "layers": [of_statement]});
    let empty = document("application/vnd.oci.empty.v1+json", &json!({}));
    let artifact = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "artifactType": "application/vnd.docker.attestation.manifest.v1+json",
        "config": described(&empty, json!({"data": "e30="})), "layers": [of_statement],
        "subject": manifest.descriptor()});
    let attestations = [document(MANIFEST, &with_config), document(MANIFEST, &artifact)];
    let beside = |of: &Blob| {
        described(
            of,
            json!({"annotations": {"vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": manifest.digest()},
            "platform": {"architecture": "unknown", "os": "unknown"}}),
        )
    };
    let mut entries = vec![described(&manifest, json!({"platform": platform()}))];
    entries.extend(attestations.iter().map(beside));
    shape.blobs.extend([statement, unknown, empty]);
    let mut manifests = vec![manifest];
    manifests.extend(attestations);
    let shape = shape.indexed(&entries, json!({}), manifests);
    shape.says("cat /etc/made-by; ls /etc/group 2> /dev/null", "buildkit")
}
