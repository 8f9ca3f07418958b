// SPDX-License-Identifier: Apache-2.0
//! An image as a builder makes it, and what all builders share: media types, configs and manifests.

use crate::expect::ExpectExt as _;
use crate::fixture::busybox_layer;
use crate::image::{Blob, INDEX, MANIFEST, digest, this_arch};
use crate::layer::Layer;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::io::Write as _;

pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const OCI_PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(super) const OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(super) const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// An image as its builder makes it.
#[derive(Debug)]
pub struct Shape {
    /// The builder's name.
    pub builder: &'static str,
    /// The digest of the config.
    pub id: String,
    /// The digests of the layers' archives, lowest first.
    pub diff_ids: Vec<String>,
    /// The config, then the layers, then the blobs of what lies beside the image.
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
        /// The manifests that it names.
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

impl Shape {
    /// The same with a script for its shell, and the output of that.
    pub(super) fn says(mut self, script: &str, says: &'static str) -> Self {
        (self.script, self.says) = (script.to_owned(), says);
        self
    }

    /// The same with an index over its manifest as the document under the tag. `entries` are the index's, `more`
    /// its other fields, `manifests` those that it names.
    pub(super) fn indexed(mut self, entries: &[Value], more: Value, manifests: Vec<Blob>) -> Self {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        let top = document(INDEX, &merged(index, more));
        self.travels = Travels::Registry { top, manifests };
        self
    }
}

/// A layer: its archive, and how it travels.
pub(super) struct Made {
    pub(super) tar: Vec<u8>,
    pub(super) blob: Blob,
    /// The annotations of its descriptor; null for none.
    pub(super) annotations: Value,
}

impl Made {
    pub(super) fn new(media_type: &str, tar: Vec<u8>, bytes: Vec<u8>) -> Self {
        let blob = Blob { media_type: media_type.to_owned(), bytes };
        Self { tar, blob, annotations: Value::Null }
    }

    /// A layer in one member of gzip, at a level.
    pub(super) fn gzip(media_type: &str, tar: Vec<u8>, level: Compression) -> Self {
        let bytes = member(&tar, level);
        Self::new(media_type, tar, bytes)
    }

    /// The layer of all base images here, in gzip.
    pub(super) fn base(media_type: &str) -> Self {
        Self::gzip(media_type, busybox_layer().tar(), Compression::fast())
    }

    /// The same with annotations at its descriptor.
    pub(super) fn annotated(mut self, annotations: Value) -> Self {
        self.annotations = annotations;
        self
    }

    fn descriptor(&self) -> Value {
        let mut descriptor = self.blob.descriptor();
        if !self.annotations.is_null() {
            descriptor["annotations"] = self.annotations.clone();
        }
        descriptor
    }
}

/// One member of gzip.
pub(super) fn member(bytes: &[u8], level: Compression) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), level);
    out.write_all(bytes).or_fail("compress a layer");
    out.finish().or_fail("compress a layer")
}

pub(super) fn document(media_type: &str, value: &Value) -> Blob {
    Blob { media_type: media_type.to_owned(), bytes: value.to_string().into_bytes() }
}

/// A descriptor with more fields.
pub(super) fn described(blob: &Blob, more: Value) -> Value {
    merged(blob.descriptor(), more)
}

/// The platform of this machine.
pub(super) fn platform() -> Value {
    json!({"architecture": this_arch(), "os": "linux"})
}

fn merged(mut value: Value, more: Value) -> Value {
    for (key, of) in more.as_object().or_fail("make a shape") {
        value[key] = of.clone();
    }
    value
}

/// An image before its digests are known.
pub(super) struct Draft {
    builder: &'static str,
    types: (&'static str, &'static str),
    layers: Vec<Made>,
    config: Value,
    manifest: Value,
    is_indented: bool,
}

impl Draft {
    /// An image with OCI media types. `config` has the fields that do not follow from the layers.
    pub(super) fn oci(builder: &'static str, layers: Vec<Made>, config: Value) -> Self {
        let types = (OCI_CONFIG, MANIFEST);
        Self { builder, types, layers, config, manifest: json!({}), is_indented: false }
    }

    /// An image with Docker's media types.
    pub(super) fn docker(builder: &'static str, layers: Vec<Made>, config: Value) -> Self {
        Self { types: (DOCKER_CONFIG, DOCKER_MANIFEST), ..Self::oci(builder, layers, config) }
    }

    /// The same with more fields in its manifest.
    pub(super) fn manifest(self, manifest: Value) -> Self {
        Self { manifest, ..self }
    }

    /// The same with documents on many lines.
    pub(super) fn indented(self) -> Self {
        Self { is_indented: true, ..self }
    }

    /// The image, with its manifest under the tag, and that manifest.
    pub(super) fn pack(self) -> (Shape, Blob) {
        let diff_ids: Vec<String> = self.layers.iter().map(|of| digest(&of.tar)).collect();
        let rootfs = json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = merged(merged(platform(), rootfs), self.config);
        let config = written(self.types.0, &config, self.is_indented);
        let layers: Vec<Value> = self.layers.iter().map(Made::descriptor).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": self.types.1,
            "config": config.descriptor(), "layers": layers});
        let manifest = written(self.types.1, &merged(manifest, self.manifest), self.is_indented);
        let id = config.digest();
        let mut blobs = vec![config];
        blobs.extend(self.layers.into_iter().map(|of| of.blob));
        let travels = Travels::Registry { top: manifest.clone(), manifests: Vec::new() };
        let (script, says) = (String::new(), "");
        let shape = Shape { builder: self.builder, id, diff_ids, blobs, travels, script, says };
        (shape, manifest)
    }
}

fn written(media_type: &str, value: &Value, is_indented: bool) -> Blob {
    if is_indented {
        let bytes = serde_json::to_vec_pretty(value).or_fail("make a shape");
        return Blob { media_type: media_type.to_owned(), bytes };
    }
    document(media_type, value)
}

/// An OCI layout in an archive: its index names the manifest by a tag alone.
pub(super) fn layout(shape: &Shape, manifest: &Blob, index: &Value) -> Vec<u8> {
    let mut archive = Layer::new()
        .file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", 0o644, index.to_string());
    for blob in shape.blobs.iter().chain([manifest]) {
        let path = format!("blobs/{}", blob.digest().replace(':', "/"));
        archive = archive.file(&path, 0o644, &blob.bytes);
    }
    archive.tar()
}
