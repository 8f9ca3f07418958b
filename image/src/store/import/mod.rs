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
mod compression;

use super::commit::{CompleteImage, commit};
use super::layers::{Layers, NewLayer};
use super::settings::LiveSettings;
use crate::digest::Digest;
use crate::error::{ArchiveFault, Cause};
use crate::layer::Expected;
use crate::layer::progress::LayerProgress;
use crate::limits::Work;
use crate::manifest::platform::Machine;
use crate::manifest::{
    self, CONFIG_BYTES_MAX, Descriptor, ImageConfig, MANIFEST_BYTES_MAX, Manifest, Search, Step,
    Way,
};
use crate::reference::Reference;
use crate::types::{Imported, Imports, Left, Platform};
use crate::unpack::clean;
use archive_index::{ArchiveIndex, bad_archive, blob_path};
use hull_sys as sys;
use serde::Deserialize;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

const BUFFER_BYTES: usize = 128 << 10;

/// A layer's blob, if the archive says, and its path.
type LayerAt = (Option<(Digest, u64)>, Vec<u8>);

/// An image in an archive.
struct Archived {
    text: String,
    config: ImageConfig,
    layers: Vec<LayerAt>,
    names: Vec<Reference>,
    digest: Option<Digest>,
    platform: Platform,
}

/// The images of an archive, and what else is in it.
#[derive(Default)]
struct Contents {
    images: Vec<Archived>,
    left: Vec<Left>,
    /// Why the most promising of what was left is not an image for this machine.
    refused: Option<Cause>,
}

impl Contents {
    /// Leaves something where it is, because others may be images for this machine. Damage ends the import.
    fn leave(&mut self, name: String, cause: Cause) -> Result<(), Cause> {
        let is_other = matches!(
            cause,
            Cause::Platform { .. } | Cause::NotAnImage { .. } | Cause::Archive { .. }
        );
        if !is_other {
            return Err(cause);
        }
        self.left.push(Left { name, why: cause.to_string() });
        if self.refused.is_none() || matches!(cause, Cause::Platform { .. }) {
            self.refused = Some(cause);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

fn spooled(source: sys::Error) -> Cause {
    Cause::Keep { what: "the archive".into(), source }
}

/// Imports images from archives.
#[derive(Debug)]
pub(super) struct Importer {
    pub(super) layers: Arc<Layers>,
    pub(super) machine: Machine,
    pub(super) settings: LiveSettings,
}

impl Importer {
    /// Imports all images of an archive that are for this machine. `name` is given to an image that
    /// has none in the archive, and replaces the names of the only one. Blocks.
    pub(super) fn import(
        &self,
        archive: File,
        name: Option<&Reference>,
        work: &Work,
    ) -> Result<Imports, Cause> {
        let contents = ArchiveIndex::read(self.plain(archive, work)?, work)?;
        let Contents { images: mut found, left, refused } = self.list(&contents)?;
        if found.is_empty() {
            return Err(refused
                .unwrap_or_else(|| bad_archive(ArchiveFault::NoImages, "it contains no image")));
        }
        let is_only = found.len() == 1;
        for of in &mut found {
            match name {
                Some(name) if is_only || of.names.is_empty() => of.names = vec![name.clone()],
                _ => {}
            }
        }
        last_has_name(&mut found);
        let ready: Result<Vec<_>, Cause> =
            found.iter().map(|of| self.take(&contents, of, work)).collect();
        let ready = ready?;
        let names: Vec<Vec<String>> = ready.iter().map(|of| of.tags.clone()).collect();
        // All at once: one wait for the disk, and all of the archive or nothing.
        let images = commit(&self.layers, ready, work)?;
        let imported = |(image, names)| Imported { image, names };
        Ok(Imports { images: images.into_iter().zip(names).map(imported).collect(), left })
    }

    /// The images of an archive that are for this machine.
    fn list(&self, contents: &ArchiveIndex) -> Result<Contents, Cause> {
        let (is_layout, is_saved) = (contents.has(b"index.json"), contents.has(b"manifest.json"));
        if !is_layout && !is_saved {
            let why = "it has neither index.json nor manifest.json";
            return Err(bad_archive(contents.without_images(), why));
        }
        let listed = if is_layout { self.of_layout(contents)? } else { Contents::default() };
        if is_saved && listed.images.is_empty() {
            let saved = self.of_saved(contents)?;
            if !is_layout || !saved.images.is_empty() {
                return Ok(saved);
            }
        }
        Ok(listed)
    }

    /// The archive without compression.
    fn plain(&self, archive: File, work: &Work) -> Result<File, Cause> {
        let failed = |err: io::Error| bad_archive(ArchiveFault::Damaged, err.to_string());
        let mut start = [0; compression::START_BYTES];
        let got = archive.read_at(&mut start, 0).map_err(failed)?;
        if !compression::is_compressed(&start[..got]) {
            return Ok(archive);
        }
        let mut spool = self.layers.layout.unnamed_file().map_err(spooled)?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, archive);
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut plain = compression::inflate(&mut reader).map_err(failed)?;
        let max = self.settings.current().limits.archive_bytes;
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

    fn of_layout(&self, contents: &ArchiveIndex) -> Result<Contents, Cause> {
        let index = contents.whole(b"index.json", MANIFEST_BYTES_MAX)?;
        let (descriptors, beside) = manifest::parse_layout(&index)?;
        let mut listed = Contents::default();
        for (name, why) in beside {
            listed.left.push(Left { name, why });
        }
        for descriptor in descriptors {
            match self.of_descriptor(contents, &descriptor) {
                Ok(of) => listed.images.push(of),
                Err(cause) => listed.leave(descriptor.digest.to_string(), cause)?,
            }
        }
        Ok(listed)
    }

    fn of_descriptor(
        &self,
        contents: &ArchiveIndex,
        descriptor: &Descriptor,
    ) -> Result<Archived, Cause> {
        let mut search = Search::new(&self.machine);
        let bytes = contents.blob(descriptor, MANIFEST_BYTES_MAX)?;
        search.document(&bytes, descriptor.digest.clone(), Way::default())?;
        loop {
            match search.next()? {
                Step::Document(of, way) => {
                    let bytes = contents.blob(&of, MANIFEST_BYTES_MAX)?;
                    search.document(&bytes, of.digest, way)?;
                }
                Step::Config(manifest, way) => {
                    let bytes = contents.blob(&manifest.config, CONFIG_BYTES_MAX)?;
                    let Some(found) = search.config(&bytes, manifest, way)? else { continue };
                    let layers = found.manifest.layers.iter().map(|layer| {
                        (Some((layer.digest.clone(), layer.size)), blob_path(&layer.digest))
                    });
                    let archived = Archived {
                        layers: layers.collect(),
                        text: found.text,
                        config: found.config,
                        names: names_of(&descriptor.names),
                        digest: Some(descriptor.digest.clone()),
                        platform: found.platform,
                    };
                    return self.complete(contents, archived);
                }
            }
        }
    }

    /// The image, if all its layers are in the archive or in the store.
    fn complete(&self, contents: &ArchiveIndex, of: Archived) -> Result<Archived, Cause> {
        for ((_, path), diff_id) in of.layers.iter().zip(&of.config.diff_ids) {
            if self.layers.present(diff_id).is_none() {
                contents.part(path)?;
            }
        }
        Ok(of)
    }

    fn of_saved(&self, contents: &ArchiveIndex) -> Result<Contents, Cause> {
        let bytes = contents.whole(b"manifest.json", MANIFEST_BYTES_MAX)?;
        let saved: Vec<Saved> = manifest::parse_saved(&bytes)?;
        let mut listed = Contents::default();
        for of in saved {
            let name = of.repo_tags.iter().flatten().next().unwrap_or(&of.config).clone();
            match self.of_one_saved(contents, of) {
                Ok(of) => listed.images.push(of),
                Err(cause) => listed.leave(name, cause)?,
            }
        }
        Ok(listed)
    }

    fn of_one_saved(&self, contents: &ArchiveIndex, of: Saved) -> Result<Archived, Cause> {
        let path = |text: &str| {
            let why = "a path in it climbs out of it";
            clean(text.as_bytes()).map_err(|_| bad_archive(ArchiveFault::Malformed, why))
        };
        let layers = of.layers.unwrap_or_default();
        let layers: Result<Vec<_>, Cause> =
            layers.iter().map(|layer| Ok((None, path(layer)?))).collect();
        let bytes = contents.whole(&path(&of.config)?, CONFIG_BYTES_MAX)?;
        let manifest = Manifest::of_saved(&bytes);
        let mut search = Search::new(&self.machine);
        let found = search.config(&bytes, manifest, Way::default())?;
        let found =
            found.ok_or_else(|| bad_archive(ArchiveFault::NoImages, "it contains no image"))?;
        let archived = Archived {
            layers: layers?,
            text: found.text,
            config: found.config,
            names: names_of(&of.repo_tags.unwrap_or_default()),
            digest: None,
            platform: found.platform,
        };
        self.complete(contents, archived)
    }

    /// Makes the layers of an image that are not here yet.
    fn take(
        &self,
        contents: &ArchiveIndex,
        found: &Archived,
        work: &Work,
    ) -> Result<CompleteImage, Cause> {
        if let Some(policy) = &self.settings.current().policy {
            policy.check_import(&found.names)?;
        }
        let (id, config) = (Digest::of(found.text.as_bytes()), &found.config);
        if config.diff_ids.len() != found.layers.len() {
            let why = "the image's config has another number of layers than its manifest";
            return Err(bad_archive(ArchiveFault::Malformed, why));
        }
        let mut made = Vec::new();
        for ((blob, path), diff_id) in found.layers.iter().zip(config.diff_ids.iter().cloned()) {
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
        let (config, platform) = (found.text.clone(), found.platform.clone());
        Ok(CompleteImage { id, config, made, tags, digest, platform })
    }
}

/// Of images with the same name the last one has it, as if they were imported one after the other.
fn last_has_name(images: &mut [Archived]) {
    let mut taken = HashSet::new();
    for image in images.iter_mut().rev() {
        image.names.retain(|name| taken.insert(name.to_string()));
    }
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
