// SPDX-License-Identifier: Apache-2.0
//! Exporting: images into one archive that is an OCI layout and what `docker load` takes as well.
//!
//! ```text
//! oci-layout, index.json       OCI: who reads that finds manifests by name
//! manifest.json                docker save: who reads that finds configs and layers
//! blobs/sha256/…               configs, manifests, and layers as they were before compression
//! ```
//!
//! The rule: what is written has the digest that names it. No compressed copy of a layer needs to be kept: its
//! archive is rebuilt from its files to the byte; one whose files were altered ends the export. Of a layer
//! that replaces its own entries the files do not tell all. Its archive is inflated from the blob, if that is kept.
//! An image keeps its id that way; its manifest is another, since its layers are not compressed.

use super::index::record::Record;
use super::layers::{Layers, Lease};
use crate::digest::{Digest, Hashing};
use crate::error::Error;
use crate::file_list::{self, RebuiltArchive};
use crate::fs::files;
use crate::layer::decoder;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use tar::{Builder, Header};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image that is being exported.
struct Outgoing {
    record: Record,
    /// The names to be written.
    tags: Vec<String>,
    layers: Vec<Archived>,
}

/// A layer, and the length of its archive.
struct Archived {
    lease: Lease,
    diff_id: Digest,
    bytes: u64,
    /// The compressed layer, if the archive cannot be rebuilt from the files.
    blob: Option<PathBuf>,
}

/// Writes the images with these names, or ids, as an archive. Blocks.
pub(super) fn export(layers: &Layers, names: &[String], out: impl Write) -> Result<(), Error> {
    let images: Result<Vec<Outgoing>, Error> =
        names.iter().map(|name| outgoing(layers, name)).collect();
    let images = images?;
    let shown = || names.join(", ");
    let failed = |source: io::Error| Error::Export { image: shown(), why: source.to_string() };
    let mut archive = Builder::new(out);
    documents(&mut archive, &images).map_err(failed)?;
    let mut written = BTreeSet::new();
    for image in &images {
        for layer in &image.layers {
            if written.insert(layer.diff_id.clone()) {
                write_layer(layers, &mut archive, layer).map_err(failed)?;
            }
        }
    }
    archive.into_inner().and_then(|mut out| out.flush()).map_err(failed)
}

fn outgoing(layers: &Layers, name: &str) -> Result<Outgoing, Error> {
    let found = layers.index.lock().record(name);
    let (record, full) = found.ok_or_else(|| Error::NoImage { image: name.to_owned() })?;
    let failed = |why: String| Error::Export { image: name.to_owned(), why };
    let mut archived = Vec::new();
    for of in &record.layers {
        let gone = || failed(format!("its layer {} is gone", of.name));
        let lease = layers.lease(&of.name).ok_or_else(gone)?;
        let diff_id = of.diff_id().ok_or_else(gone)?;
        let items =
            layers.integrity.file_list(lease.layer()).map_err(|err| failed(err.to_string()))?;
        let bytes = items.map(file_list::length).transpose();
        let bytes = bytes.map_err(|err| failed(err.to_string()))?.flatten();
        let (bytes, blob) = match bytes {
            Some(bytes) => (bytes, None),
            None => {
                let blob = layers.index.lock().blob_path(of).filter(|path| path.is_file());
                let none =
                    || Error::NoArchive { image: name.to_owned(), layer: diff_id.to_string() };
                let blob = blob.ok_or_else(none)?;
                let bytes = inflated(&blob, |plain| io::copy(plain, &mut io::sink()));
                (bytes.map_err(|err| failed(err.to_string()))?, Some(blob))
            }
        };
        archived.push(Archived { lease, diff_id, bytes, blob });
    }
    let tags = match full {
        Some(full) if record.tags.contains(&full) => vec![full],
        _ => record.tags.iter().cloned().collect(),
    };
    Ok(Outgoing { record, tags, layers: archived })
}

fn write_layer(
    layers: &Layers,
    archive: &mut Builder<impl Write>,
    layer: &Archived,
) -> io::Result<()> {
    let altered = || {
        let why = format!("layer {} is not what was stored: `hull images verify`", layer.diff_id);
        io::Error::new(io::ErrorKind::InvalidData, why)
    };
    let mut write = |from: &mut dyn Read| {
        let mut bytes = Hashing::new(from, layer.diff_id.hasher());
        add(archive, &blob(&layer.diff_id), layer.bytes, &mut bytes)?;
        bytes.finish()
    };
    let (_, digest) = if let Some(blob) = &layer.blob {
        inflated(blob, write)?
    } else {
        let items = layers.integrity.file_list(layer.lease.layer())?.ok_or_else(altered)?;
        let root = layers.integrity.open_layer(layer.lease.layer())?;
        write(&mut RebuiltArchive::new(root, items))?
    };
    if digest == layer.diff_id { Ok(()) } else { Err(altered()) }
}

/// Reads a blob without its compression.
fn inflated<T>(blob: &Path, read: impl FnOnce(&mut dyn Read) -> io::Result<T>) -> io::Result<T> {
    let mut file = BufReader::new(files::open_file(blob).map_err(io::Error::other)?);
    read(&mut decoder(&mut file)?)
}

fn documents(archive: &mut Builder<impl Write>, images: &[Outgoing]) -> io::Result<()> {
    let (mut manifests, mut saved) = (Vec::new(), Vec::new());
    let mut written = BTreeSet::new();
    let mut whole = |archive: &mut Builder<_>, path: String, bytes: &[u8]| {
        if !written.insert(path.clone()) {
            return Ok(());
        }
        add(archive, &path, bytes.len() as u64, &mut &*bytes)
    };
    whole(archive, "oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    for image in images {
        let text = image.record.text().as_bytes();
        let config = Digest::of(text);
        let layers: Vec<Value> = image
            .layers
            .iter()
            .map(|of| json!({"mediaType": LAYER, "digest": of.diff_id.as_str(), "size": of.bytes}))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": {"mediaType": CONFIG, "digest": config.as_str(), "size": text.len()},
        })
        .to_string();
        let digest = Digest::of(manifest.as_bytes());
        whole(archive, blob(&config), text)?;
        whole(archive, blob(&digest), manifest.as_bytes())?;
        let descriptor =
            json!({"mediaType": MANIFEST, "digest": digest.as_str(), "size": manifest.len()});
        if image.tags.is_empty() {
            manifests.push(descriptor.clone());
        }
        for name in &image.tags {
            let mut named = descriptor.clone();
            let tag = name.rsplit(':').next().unwrap_or_default();
            named["annotations"] = json!({
                "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag,
            });
            manifests.push(named);
        }
        let paths: Vec<String> = image.layers.iter().map(|of| blob(&of.diff_id)).collect();
        saved.push(json!({"Config": blob(&config), "RepoTags": image.tags, "Layers": paths}));
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    whole(archive, "index.json".into(), index.to_string().as_bytes())?;
    whole(archive, "manifest.json".into(), Value::from(saved).to_string().as_bytes())
}

fn blob(digest: &Digest) -> String {
    format!("blobs/{}", digest.as_str().replacen(':', "/", 1))
}

/// Adds a file; the same images make the same archive.
fn add(
    archive: &mut Builder<impl Write>,
    path: &str,
    bytes: u64,
    from: &mut impl Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, path, from)
}
