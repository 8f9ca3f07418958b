// SPDX-License-Identifier: Apache-2.0
//! The record of an image, as it is on disk.
//!
//! Written whole. The version grows when a field changes its meaning; fields that are added have a
//! default, so that older records stay readable. The config is kept to the byte, so its digest, which
//! is the image's id, can be checked at any time.

use crate::digest::Digest;
use crate::fs::files;
use crate::manifest;
use crate::manifest::platform::Machine;
use crate::reference::Reference;
use crate::store::scratch::Scratch;
use hull_sys as sys;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Version of records that this build writes, and the newest it reads.
const VERSION: u32 = 1;
/// A config and five hundred layers fit many times.
const BYTES_MAX: u64 = 32 << 20;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) tags: BTreeSet<String>,
    #[serde(default)]
    pub(crate) digests: BTreeSet<String>,
    config: String,
    /// Lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// Name of its directory.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// What it came as: it can be fetched again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<Blob>,
    /// The digest of its inventory. Layers of older records have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) inventory: Option<String>,
}

/// What a layer travels as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) bytes: u64,
}

impl Layer {
    /// The digest of what it inflates to. Its directory has the same name, or one that begins so.
    pub(crate) fn diff_id(&self) -> Option<Digest> {
        let hex = self.name.split('-').next().unwrap_or_default();
        let kind = if hex.len() == 128 { "sha512" } else { "sha256" };
        Digest::parse(&format!("{kind}:{hex}"))
    }
}

impl Record {
    pub(crate) fn new(id: &Digest, config: String, layers: Vec<Layer>) -> Self {
        let (tags, digests) = Default::default();
        Self { version: VERSION, id: id.to_string(), tags, digests, config, layers }
    }

    /// Reads and checks a record: what is wrong with it is said in words.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let bytes = files::read(path, BYTES_MAX).map_err(|err| err.to_string())?;
        let record: Self = serde_json::from_slice(&bytes).map_err(|err| err.to_string())?;
        if record.version > VERSION {
            return Err(format!("it is of version {}, newer than this hull reads", record.version));
        }
        let id = Digest::parse(&record.id).ok_or("its id is no digest")?;
        if id.same_kind_of(record.config.as_bytes()) != id {
            return Err("its config is not the one of its id".into());
        }
        if path.file_name() != Some(file_name(&id).as_ref()) {
            return Err("it is of another image than its name says".into());
        }
        let is_name = |layer: &Layer| {
            let good = |b: u8| b.is_ascii_hexdigit() || b == b'-';
            !layer.name.is_empty() && layer.name.bytes().all(good)
        };
        if !record.layers.iter().all(is_name) {
            return Err("the name of a layer in it is none".into());
        }
        Ok(record)
    }

    /// Where it is on disk.
    pub(crate) fn path(&self, root: &Path) -> PathBuf {
        let name = Digest::parse(&self.id).map(|id| file_name(&id)).unwrap_or_default();
        root.join("images").join(name)
    }

    /// The image's config, for any machine: it was checked when it came.
    pub(crate) fn config(&self) -> Result<ImageConfiguration, String> {
        serde_json::from_str(&self.config).map_err(|err| err.to_string())
    }

    /// The image's config, to the byte.
    pub(crate) fn text(&self) -> &str {
        &self.config
    }

    /// Whether it has no name left.
    pub(crate) fn is_nameless(&self) -> bool {
        self.tags.is_empty() && self.digests.is_empty()
    }
}

/// Puts names into the one spelling: an older hull kept them as they were given. A tag that two images then
/// have stays with the one that had it so, or else with the first.
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

/// A name that cannot be read, which none should be, stays as it is.
fn spelled(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |of| of.to_string())
}

/// Writes records beside their places, and makes them durable: one by itself, several with all that is on
/// the filesystem, which is one wait for the disk instead of many.
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
        last = Some(files::write_new(scratch.path(), &bytes)?);
        staged.push(scratch);
    }
    match last {
        Some(file) if staged.len() == 1 => files::sync(&file, staged[0].path())?,
        Some(file) => files::sync_all(&file, root)?,
        None => {}
    }
    Ok(staged)
}

fn file_name(id: &Digest) -> String {
    format!("{}.json", id.hex())
}

/// The config of an image that is being brought in, checked for this machine.
pub(crate) fn checked_config(
    bytes: &[u8],
    machine: &Machine,
) -> Result<(String, manifest::ImageConfig), crate::error::Cause> {
    let config = manifest::parse_config(bytes, machine)?;
    let text = std::str::from_utf8(bytes).map_err(|err| crate::error::Cause::Document {
        what: "the image's config".into(),
        why: err.to_string(),
    })?;
    Ok((text.to_owned(), config))
}
