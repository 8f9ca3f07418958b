// SPDX-License-Identifier: Apache-2.0
//! The record of an image on disk.
//!
//! A record is written as a whole. The version increases when a field changes its meaning; new fields
//! have a default, so older records stay readable. The config is stored byte for byte, so its digest,
//! which is the image's id, can be checked at any time.

use crate::digest::Digest;
use crate::fs::files;
use crate::manifest;
use crate::reference::Reference;
use crate::store::scratch::Scratch;
use crate::types::Platform;
use hull_records::{Location, PRIVATE, Unusable};
use hull_sys as sys;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The version of the records that this build writes, and the newest that it reads.
const VERSION: u32 = 1;
/// Many times the size of a config and five hundred layers.
const BYTES_MAX: u64 = 32 << 20;

/// The stored form of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) tags: BTreeSet<String>,
    #[serde(default)]
    pub(crate) digests: BTreeSet<String>,
    config: String,
    /// The layers, lowest first.
    pub(crate) layers: Vec<Layer>,
    /// On top of them: directories that they imply, with the metadata from below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) directories: Option<Layer>,
    /// Why this image was chosen for this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// The name of its directory.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// The compressed layer, which can be pulled again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<Blob>,
    /// The digest of its file list. Layers of older records have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) inventory: Option<String>,
    /// Whether its archive does not list its root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) implies_root: bool,
    /// Whether its archive has entries in directories that it does not list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) implies_directories: bool,
    /// Whether these two were written. Layers of older records are unpacked again when they are pulled again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_implied_known: bool,
    /// Whether it hides all layers below: its archive has an opaque mark at the root, which overlayfs does not look at.
    /// Read from the layer itself when the store is opened.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) hides_below: bool,
}

/// A compressed layer in a registry or an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) bytes: u64,
}

impl Layer {
    /// The digest of the uncompressed archive. It is the directory's name, or a prefix of it.
    pub(crate) fn diff_id(&self) -> Option<Digest> {
        let hex = self.name.split('-').next().unwrap_or_default();
        let kind = if hex.len() == 128 { "sha512" } else { "sha256" };
        Digest::parse(&format!("{kind}:{hex}"))
    }
}

impl Record {
    pub(crate) fn new(
        id: &Digest,
        config: String,
        layers: Vec<Layer>,
        directories: Option<Layer>,
        platform: Platform,
    ) -> Self {
        let (tags, digests) = Default::default();
        let (id, platform) = (id.to_string(), Some(platform));
        Self { version: VERSION, id, tags, digests, config, layers, directories, platform }
    }

    /// All its layers, lowest first, with the one of directories that Hull adds.
    pub(crate) fn all_layers(&self) -> impl DoubleEndedIterator<Item = &Layer> {
        self.layers.iter().chain(&self.directories)
    }

    /// Puts a layer in the place of the one with its name.
    pub(crate) fn replace(&mut self, layer: &Layer) {
        let all = self.layers.iter_mut().chain(&mut self.directories);
        all.filter(|of| of.name == layer.name).for_each(|of| of.clone_from(layer));
    }

    /// Reads and validates a record.
    pub(crate) fn read(path: &Path) -> Result<Self, Unusable> {
        let bytes = Location::at(path).read(BYTES_MAX)?;
        let record: Self = hull_records::decode(&bytes, VERSION)?;
        match record.check(path) {
            Ok(()) => Ok(record),
            Err(why) => Err(Unusable::Content { why: why.into() }),
        }
    }

    fn check(&self, path: &Path) -> Result<(), &'static str> {
        let id = Digest::parse(&self.id).ok_or("its id is not a digest")?;
        if id.same_kind_of(self.config.as_bytes()) != id {
            return Err("its config does not match its id");
        }
        if path.file_name() != Some(file_name(&id).as_ref()) {
            return Err("its file name belongs to another image");
        }
        let is_name = |layer: &Layer| {
            let good = |b: u8| b.is_ascii_hexdigit() || b == b'-';
            !layer.name.is_empty() && layer.name.bytes().all(good)
        };
        if !self.all_layers().all(is_name) {
            return Err("it has an invalid layer name");
        }
        Ok(())
    }

    /// The path of the record.
    pub(crate) fn path(&self, root: &Path) -> PathBuf {
        let name = Digest::parse(&self.id).map(|id| file_name(&id)).unwrap_or_default();
        root.join("images").join(name)
    }

    /// The image's config. Its platform was checked when the image was added.
    pub(crate) fn config(&self) -> Result<ImageConfiguration, String> {
        manifest::configuration(self.config.as_bytes())
    }

    /// The image's config, byte for byte.
    pub(crate) fn text(&self) -> &str {
        &self.config
    }

    /// Whether the image has neither a tag nor a digest.
    pub(crate) fn is_nameless(&self) -> bool {
        self.tags.is_empty() && self.digests.is_empty()
    }
}

/// Normalizes names that an older hull stored as they were given. If two images then have the same tag,
/// it stays with the image that had the normalized form, or else with the first.
pub(crate) fn respell(records: &mut [Record]) {
    let mut owners: HashMap<String, (String, bool)> = HashMap::new();
    for record in &*records {
        for tag in &record.tags {
            let name = spelled(tag);
            let is_same = name == *tag;
            let owner = owners.entry(name).or_insert_with(|| (record.id.clone(), is_same));
            if is_same && !owner.1 {
                *owner = (record.id.clone(), is_same);
            }
        }
    }
    for record in records {
        let is_own = |name: &String| owners.get(name).is_some_and(|(id, _)| *id == record.id);
        record.tags = record.tags.iter().map(|tag| spelled(tag)).filter(is_own).collect();
        record.digests = record.digests.iter().map(|name| spelled(name)).collect();
    }
}

/// A name that cannot be parsed stays unchanged.
fn spelled(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |of| of.to_string())
}

/// Writes records to scratch files and makes them durable: one with `fsync`, several with one `syncfs`,
/// which waits for the disk only once.
pub(crate) fn stage<'a>(
    root: &Path,
    records: impl IntoIterator<Item = &'a Record>,
) -> sys::Result<Vec<Scratch>> {
    let mut staged = Vec::new();
    let mut last = None;
    for record in records {
        let failed =
            |_| sys::Error::new(rustix::io::Errno::INVAL, format!("encode({})", record.id));
        let bytes = serde_json::to_vec(record).map_err(failed)?;
        let scratch = Scratch::new(root, "record");
        last = Some(hull_records::write_new(Location::at(scratch.path()), &bytes, PRIVATE)?);
        staged.push(scratch);
    }
    match last {
        Some(file) if staged.len() == 1 => {
            hull_records::sync(&file, Location::at(staged[0].path()))?
        }
        Some(file) => files::sync_all(&file, root)?,
        None => {}
    }
    Ok(staged)
}

fn file_name(id: &Digest) -> String {
    format!("{}.json", id.hex())
}
