// SPDX-License-Identifier: Apache-2.0
//! Images as values: layers and a config in, blobs and a manifest out. What they are pushed to or
//! written as is for others.

use crate::expect::ExpectExt;
use crate::layer::Compression;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Media type of an OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// An image to be made.
#[derive(Debug, Clone)]
pub struct Image {
    /// Tar archives, lowest first, and how each travels.
    pub layers: Vec<(Vec<u8>, Compression)>,
    /// The `config` part of the image config: `Cmd`, `Env`, `User` …
    pub config: Value,
    /// GOARCH of the image.
    pub arch: String,
    /// Docker media types instead of OCI ones; layers must be gzip then.
    pub docker: bool,
    /// Diff ids to claim instead of the true ones: a corrupt image.
    pub claimed_diff_ids: Option<Vec<String>>,
}

/// Bytes with their media type.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The media type of the bytes.
    pub media_type: String,
    /// The bytes of the blob.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// `sha256:…` of the bytes.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.bytes)
    }

    /// The descriptor that refers to them.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len()})
    }
}

/// An image as it travels.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Config first, then the layers.
    pub blobs: Vec<Blob>,
    /// The image's manifest.
    pub manifest: Blob,
    /// GOARCH of the image.
    pub arch: String,
}

impl Packed {
    /// The image's id: the digest of its config.
    #[must_use]
    pub fn id(&self) -> String {
        self.blobs[0].digest()
    }
}

/// `sha256:…` of `bytes`.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// GOARCH of this machine.
#[must_use]
pub fn this_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Image {
    /// An image of gzip layers for this machine.
    #[must_use]
    pub fn new(layers: Vec<Vec<u8>>, config: Value) -> Self {
        let layers = layers.into_iter().map(|tar| (tar, Compression::Gzip)).collect();
        Self { layers, config, arch: this_arch().into(), docker: false, claimed_diff_ids: None }
    }

    /// One more gzip layer on top.
    #[must_use]
    pub fn with(mut self, tar: Vec<u8>) -> Self {
        self.layers.push((tar, Compression::Gzip));
        self
    }

    /// The same with another value in the config.
    #[must_use]
    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Blobs and manifest.
    #[must_use]
    pub fn pack(&self) -> Packed {
        let diff_ids = match &self.claimed_diff_ids {
            Some(claimed) => claimed.clone(),
            None => self.layers.iter().map(|(tar, _)| digest(tar)).collect(),
        };
        let config = json!({
            "architecture": self.arch, "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let (of_config, of_manifest) =
            if self.docker { (DOCKER_CONFIG, DOCKER_MANIFEST) } else { (CONFIG, MANIFEST) };
        let mut blobs = vec![blob(of_config, &config)];
        for (tar, compression) in &self.layers {
            let media_type = if self.docker { DOCKER_LAYER } else { compression.media_type() };
            blobs.push(Blob { media_type: media_type.into(), bytes: compression.pack(tar) });
        }
        let layers: Vec<Value> = blobs[1..].iter().map(Blob::descriptor).collect();
        let manifest = blob(
            of_manifest,
            &json!({
                "schemaVersion": 2, "mediaType": of_manifest,
                "config": blobs[0].descriptor(), "layers": layers,
            }),
        );
        Packed { blobs, manifest, arch: self.arch.clone() }
    }
}

/// An index over images of several platforms.
#[must_use]
pub fn index(of: &[&Packed]) -> Blob {
    let manifests: Vec<Value> = of
        .iter()
        .map(|packed| {
            let mut descriptor = packed.manifest.descriptor();
            descriptor["platform"] = json!({"os": "linux", "architecture": packed.arch});
            descriptor
        })
        .collect();
    blob(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))
}

/// An OCI layout in a tar archive, for `hull import`.
#[must_use]
pub fn oci_archive(packed: &Packed, name: &str) -> Vec<u8> {
    let mut descriptor = packed.manifest.descriptor();
    descriptor["annotations"] = json!({
        "org.opencontainers.image.ref.name": name.rsplit_once(':').map_or("latest", |(_, tag)| tag),
        "io.containerd.image.name": name,
    });
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]});
    let mut archive = crate::layer::Layer::new()
        .dirs(&["blobs", "blobs/sha256"])
        .file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", 0o644, index.to_string());
    for blob in packed.blobs.iter().chain([&packed.manifest]) {
        let name = blob.digest().replace(':', "/");
        archive = archive.file(&format!("blobs/{name}"), 0o644, &blob.bytes);
    }
    archive.tar()
}

/// The archive format that `docker save` wrote before it wrote OCI layouts.
#[must_use]
pub fn docker_archive(image: &Image, name: &str) -> Vec<u8> {
    let packed = image.pack();
    let config = format!("{}.json", packed.id().trim_start_matches("sha256:"));
    let mut layers = Vec::new();
    let mut archive = crate::layer::Layer::new().file(&config, 0o644, &packed.blobs[0].bytes);
    for (number, (tar, _)) in image.layers.iter().enumerate() {
        let path = format!("{number}/layer.tar");
        archive = archive.dir(&number.to_string(), 0o755).file(&path, 0o644, tar);
        layers.push(path);
    }
    let manifest = json!([{"Config": config, "RepoTags": [name], "Layers": layers}]);
    archive.file("manifest.json", 0o644, manifest.to_string()).tar()
}

fn blob(media_type: &str, value: &Value) -> Blob {
    let bytes = serde_json::to_vec(value).or_fail("encode a document of an image");
    Blob { media_type: media_type.into(), bytes }
}
