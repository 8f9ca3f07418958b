// SPDX-License-Identifier: Apache-2.0
//! Imports images from an archive: an OCI layout, or the output of `docker save`.
//!
//! The archive is read twice: once to see what is where, then from place to place. So it must be a
//! file; a compressed one is inflated into another first. Nothing of it is unpacked but layers, which
//! go the same way as those of a pull.
//!
//! The rule: everything that grows with the archive has a limit: its uncompressed size on disk, and the
//! entries and documents in memory.

mod archive_index;

use super::commit::{CompleteImage, commit};
use super::index::record;
use super::layers::{Layers, NewLayer};
use crate::digest::Digest;
use crate::error::Cause;
use crate::layer::progress::LayerProgress;
use crate::layer::{Expected, decoder};
use crate::limits::Work;
use crate::manifest::platform::Machine;
use crate::manifest::{self, CONFIG_BYTES_MAX, Descriptor, Document, MANIFEST_BYTES_MAX};
use crate::policy::Policy;
use crate::reference::Reference;
use crate::types::Imported;
use crate::unpack::clean;
use archive_index::{ArchiveIndex, blob_path, no_archive};
use hull_sys as sys;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

const BUFFER_BYTES: usize = 128 << 10;

/// A layer's blob, if the archive says, and its path.
type LayerAt = (Option<(Digest, u64)>, Vec<u8>);

/// An image in an archive.
struct Found {
    config: Vec<u8>,
    layers: Vec<LayerAt>,
    names: Vec<Reference>,
    digest: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn spooled(source: sys::Error) -> Cause {
    Cause::Keep { what: "the archive".into(), source }
}

/// Imports images from archives.
#[derive(Debug)]
pub(super) struct Importer {
    pub(super) layers: Arc<Layers>,
    pub(super) machine: Machine,
    pub(super) policy: Option<Arc<Policy>>,
    pub(super) archive_bytes_max: u64,
}

impl Importer {
    /// Imports all images of an archive that are for this machine. `name` is given to an image that
    /// has none in the archive, and replaces the names of the only one. Blocks.
    pub(super) fn import(
        &self,
        archive: File,
        name: Option<&Reference>,
        work: &Work,
    ) -> Result<Vec<Imported>, Cause> {
        let contents = ArchiveIndex::read(self.plain(archive, work)?, work)?;
        let mut found = if contents.has(b"index.json") {
            self.of_layout(&contents)?
        } else if contents.has(b"manifest.json") {
            of_saved(&contents)?
        } else {
            return Err(no_archive("it has neither index.json nor manifest.json"));
        };
        if found.is_empty() {
            return Err(no_archive("it contains no image"));
        }
        let is_only = found.len() == 1;
        let mut ready = Vec::new();
        for of in &mut found {
            match name {
                Some(name) if is_only || of.names.is_empty() => of.names = vec![name.clone()],
                _ => {}
            }
            ready.push(self.take(&contents, of, work)?);
        }
        let names: Vec<Vec<String>> = ready.iter().map(|of| of.tags.clone()).collect();
        // All at once: one wait for the disk, and all of the archive or nothing.
        let images = commit(&self.layers, ready, work)?;
        let imported = |(image, names)| Imported { image, names };
        Ok(images.into_iter().zip(names).map(imported).collect())
    }

    /// The archive without compression.
    fn plain(&self, archive: File, work: &Work) -> Result<File, Cause> {
        let failed = |err: io::Error| no_archive(err.to_string());
        let mut start = [0; 4];
        let got = archive.read_at(&mut start, 0).map_err(failed)?;
        let is_compressed =
            start[..got].starts_with(&[0x1f, 0x8b]) || start[..got] == [0x28, 0xb5, 0x2f, 0xfd];
        if !is_compressed {
            return Ok(archive);
        }
        let mut spool = self.layers.layout.unnamed_file().map_err(spooled)?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, archive);
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut plain = decoder(&mut reader).map_err(failed)?;
        let max = self.archive_bytes_max;
        let (mut buffer, mut written) = (vec![0; BUFFER_BYTES], 0);
        loop {
            work.check().map_err(failed)?;
            let got = plain.read(&mut buffer).map_err(failed)?;
            if got == 0 {
                return Ok(spool);
            }
            written += got as u64;
            if written > max {
                return Err(Cause::ArchiveTooLarge { what: "bytes", max });
            }
            spool
                .write_all(&buffer[..got])
                .map_err(sys::Error::of_io(|| "write(the inflated archive)"))
                .map_err(spooled)?;
        }
    }

    fn of_layout(&self, contents: &ArchiveIndex) -> Result<Vec<Found>, Cause> {
        let index = contents.whole(b"index.json", MANIFEST_BYTES_MAX)?;
        let (mut found, mut refused) = (Vec::new(), None);
        for descriptor in manifest::parse_layout(&index)? {
            match self.of_descriptor(contents, &descriptor) {
                Ok(of) => found.push(of),
                // Others may be for this machine.
                Err(cause @ Cause::Platform { .. }) => refused = Some(cause),
                Err(cause) => return Err(cause),
            }
        }
        match refused {
            Some(cause) if found.is_empty() => Err(cause),
            _ => Ok(found),
        }
    }

    fn of_descriptor(
        &self,
        contents: &ArchiveIndex,
        descriptor: &Descriptor,
    ) -> Result<Found, Cause> {
        let mut at = descriptor.clone();
        for _ in 0..=manifest::INDEX_DEPTH_MAX {
            let bytes = contents.blob(&at, MANIFEST_BYTES_MAX)?;
            let what = format!("manifest {}", at.digest);
            match manifest::parse(&bytes, &what, &self.machine)? {
                Document::Index(chosen) => at = chosen,
                Document::Manifest(manifest) => {
                    let config = contents.blob(&manifest.config, CONFIG_BYTES_MAX)?;
                    // Tells early that it is for another machine.
                    manifest::parse_config(&config, &self.machine)?;
                    let layers = manifest.layers.iter().map(|layer| {
                        (Some((layer.digest.clone(), layer.size)), blob_path(&layer.digest))
                    });
                    return Ok(Found {
                        config,
                        layers: layers.collect(),
                        names: names_of(&descriptor.names),
                        digest: Some(descriptor.digest.clone()),
                    });
                }
            }
        }
        Err(no_archive("there are too many indexes in indexes"))
    }

    /// Makes the layers of an image that are not here yet.
    fn take(
        &self,
        contents: &ArchiveIndex,
        found: &Found,
        work: &Work,
    ) -> Result<CompleteImage, Cause> {
        if let Some(policy) = &self.policy {
            policy.check_import(&found.names)?;
        }
        let id = Digest::of(&found.config);
        let (text, config) = record::checked_config(&found.config, &self.machine)?;
        if config.diff_ids.len() != found.layers.len() {
            return Err(no_archive(
                "the image's config has another number of layers than its manifest",
            ));
        }
        let mut made = Vec::new();
        for ((blob, path), diff_id) in found.layers.iter().zip(config.diff_ids) {
            let layer = match self.layers.present(&diff_id) {
                Some(layer) => NewLayer::Stored(layer),
                None => {
                    let expected = Expected { blob: blob.clone(), diff_id: diff_id.clone() };
                    let watch = LayerProgress::default();
                    // A pull may be unpacking the same one.
                    let turn = self.layers.locks.lock(diff_id.hex());
                    let _turn = tokio::runtime::Handle::current().block_on(turn);
                    match self.layers.present(&diff_id) {
                        Some(layer) => NewLayer::Stored(layer),
                        None => {
                            self.layers.make_layer(contents.part(path)?, &expected, &watch, work)?
                        }
                    }
                }
            };
            made.push((Expected { blob: blob.clone(), diff_id }, layer));
        }
        let tags: Vec<String> = found.names.iter().filter_map(Reference::tagged).collect();
        // Without any name the image is still found by its id.
        let digest = found.digest.as_ref().zip(found.names.first());
        let digest = digest.map(|(digest, name)| name.digested(digest));
        Ok(CompleteImage { id, config: text, made, tags, digest })
    }
}

fn of_saved(contents: &ArchiveIndex) -> Result<Vec<Found>, Cause> {
    let bytes = contents.whole(b"manifest.json", MANIFEST_BYTES_MAX)?;
    manifest::few_values(&bytes, "manifest.json")?;
    let saved: Vec<Saved> = serde_json::from_slice(&bytes)
        .map_err(|err| Cause::Document { what: "manifest.json".into(), why: err.to_string() })?;
    let path = |text: &str| {
        clean(text.as_bytes()).map_err(|_| no_archive("a path in it climbs out of it"))
    };
    let mut found = Vec::new();
    for of in saved {
        let layers: Result<Vec<_>, Cause> =
            of.layers.iter().map(|layer| Ok((None, path(layer)?))).collect();
        found.push(Found {
            config: contents.whole(&path(&of.config)?, CONFIG_BYTES_MAX)?,
            layers: layers?,
            names: names_of(&of.repo_tags.unwrap_or_default()),
            digest: None,
        });
    }
    Ok(found)
}

/// The names of an image. Some tools write a tag alone, which is not a name.
fn names_of(texts: &[String]) -> Vec<Reference> {
    let is_name = |text: &&String| text.contains(['/', ':']);
    let mut names: Vec<Reference> = Vec::new();
    for name in texts.iter().filter(is_name).filter_map(|text| Reference::parse(text).ok()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
