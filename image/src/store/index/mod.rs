// SPDX-License-Identifier: Apache-2.0
//! All records in memory: which image a name refers to, and which layers are in use.
//!
//! The rule: the index is locked for work in memory only, so that a disk that does not answer delays no reader. Files
//! are changed by an [`IndexWriter`], one at a time. An image is written to disk before it is added in memory, and
//! removed in memory before it is removed from disk, so every listed image is on disk. A pull holds a lease on each
//! layer that it found or unpacked, so that removing another image cannot remove that layer. References are counted as
//! images come and go: only listing visits all images.

mod load;
pub(super) mod record;
mod writer;

pub(super) use writer::IndexWriter;

use super::layout::{Layout, names_if_present};
use crate::digest::Digest;
use crate::fs::files;
use crate::reference::Reference;
use crate::types::{Image, Problem};
use hull_records::Unusable;
use hull_sys as sys;
use record::{Layer, Record};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The shortest prefix of an id that is accepted.
const ID_PREFIX_MIN: usize = 3;
const ID_KIND: &str = "sha256:";

/// All records, images and layers of the store.
#[derive(Debug)]
pub(super) struct Index {
    layout: Layout,
    pinned: BTreeSet<String>,
    records: BTreeMap<String, Record>,
    images: BTreeMap<String, Arc<Image>>,
    /// Image ids by tag and by digest of a repository.
    names: HashMap<String, String>,
    layers: BTreeMap<String, Stored>,
    /// Layers without references or leases.
    unreferenced: BTreeSet<String>,
    /// Layers of directories that were not there when the index was read.
    missing: BTreeSet<String>,
    /// Disk usage of all layers: bytes and inodes.
    used: (u64, u64),
}

/// A layer in the store.
#[derive(Debug)]
struct Stored {
    layer: Layer,
    /// The number of times that records name the layer.
    refs: usize,
    /// The number of pulls, imports and exports that use the layer.
    leases: usize,
}

/// The index, shared by the parts of a store.
#[derive(Debug, Clone)]
pub(super) struct SharedIndex(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    index: Mutex<Index>,
    /// Held while the files of the index are changed.
    files: Mutex<()>,
}

impl SharedIndex {
    pub(super) fn new(index: Index) -> Self {
        Self(Arc::new(Shared { index: Mutex::new(index), files: Mutex::new(()) }))
    }

    /// Locks the index, for work in memory only.
    pub(super) fn lock(&self) -> MutexGuard<'_, Index> {
        // The index is changed in one go, after what may fail: a panic leaves it whole.
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the files of the index, for an [`IndexWriter`].
    fn lock_files(&self) -> MutexGuard<'_, ()> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An image whose layers are all in place and durable.
#[derive(Debug)]
pub(super) struct NewImage {
    pub(super) record: Record,
    /// New tags, each taken from any other image that has it.
    pub(super) tags: Vec<String>,
    pub(super) digest: Option<String>,
}

impl Index {
    pub(super) fn new(layout: Layout, pinned: BTreeSet<String>) -> Self {
        Self {
            layout,
            pinned,
            records: BTreeMap::new(),
            images: BTreeMap::new(),
            names: HashMap::new(),
            layers: BTreeMap::new(),
            unreferenced: BTreeSet::new(),
            missing: BTreeSet::new(),
            used: (0, 0),
        }
    }

    /// Replaces the names of the images that the kubelet must not remove.
    pub(super) fn set_pinned(&mut self, pinned: BTreeSet<String>) {
        self.pinned = pinned;
        for image in self.images.values_mut() {
            let mut names = image.repo_tags.iter().chain(&image.repo_digests);
            let is_pinned = names.any(|name| self.pinned.contains(name));
            if image.pinned != is_pinned {
                Arc::make_mut(image).pinned = is_pinned;
            }
        }
    }

    /// Reads all records. In a store that is `writable`, sets aside those that cannot be read and sweeps
    /// layers without a record.
    pub(super) fn load(&mut self, writable: bool) -> sys::Result<Vec<Problem>> {
        let directory = self.layout.path("images");
        let (mut problems, mut records) = (Vec::new(), Vec::new());
        for name in names_if_present(&directory)? {
            let path = directory.join(&name);
            if name.ends_with(".bad") {
                problems.push(Problem { path, why: "it was set aside before".into() });
                continue;
            }
            match Record::read(&path)
                .and_then(|record| load::check_layers(&self.layout, record, &mut self.missing))
            {
                Ok(record) => records.push(record),
                Err(why) => problems.push(load::set_aside(&path, &why, writable)),
            }
        }
        record::respell(&mut records);
        for record in records {
            match self.image_of(&record) {
                Ok(image) => drop(self.show(record, image)),
                Err(why) => {
                    let path = record.path(self.layout.root());
                    problems.push(load::set_aside(&path, &Unusable::Content { why }, writable));
                }
            }
        }
        // A container may run on layers whose record we cannot read.
        if problems.is_empty() && writable {
            let kept = replaced_in_this_boot();
            for name in files::names(&self.layout.path("layers"))? {
                if !self.layers.contains_key(&name) && !name.starts_with(&kept) {
                    hull_sys::remove_tree(&self.layout.layer(&name))?;
                }
            }
            let blobs: BTreeSet<PathBuf> =
                self.layers.values().filter_map(|stored| self.blob_path(&stored.layer)).collect();
            for name in files::names(&self.layout.path("blobs"))? {
                let path = self.layout.path("blobs").join(name);
                if !blobs.contains(&path) {
                    files::unlink(&path)?;
                }
            }
            for name in files::names(&self.layout.path("inventories"))? {
                if !self.layers.contains_key(&name) {
                    files::unlink(&self.layout.file_list(&name))?;
                }
            }
        }
        Ok(problems)
    }

    /// Makes a record, which is on disk, visible.
    fn show(&mut self, record: Record, image: Image) -> Arc<Image> {
        let image = Arc::new(image);
        for layer in record.all_layers() {
            self.put(layer.clone());
            self.count(&layer.name, |stored| stored.refs += 1);
        }
        // Behind the new one's, whose layers are mostly the same.
        self.hide(&record.id);
        for name in record.tags.iter().chain(&record.digests) {
            self.names.insert(name.clone(), record.id.clone());
        }
        self.images.insert(record.id.clone(), Arc::clone(&image));
        self.records.insert(record.id.clone(), record);
        image
    }

    /// Takes a record and its image out of sight, if there is one.
    fn hide(&mut self, id: &str) -> Option<(Record, Arc<Image>)> {
        let image = self.images.remove(id)?;
        let old = self.records.remove(id)?;
        for layer in old.all_layers() {
            self.count(&layer.name, |stored| stored.refs -= 1);
        }
        for name in old.tags.iter().chain(&old.digests) {
            if self.names.get(name).is_some_and(|of| of == id) {
                self.names.remove(name);
            }
        }
        Some((old, image))
    }

    /// Changes who needs a layer.
    fn count(&mut self, layer: &str, change: impl FnOnce(&mut Stored)) {
        let Some(stored) = self.layers.get_mut(layer) else { return };
        change(stored);
        if stored.refs == 0 && stored.leases == 0 {
            self.unreferenced.insert(layer.to_owned());
        } else {
            self.unreferenced.remove(layer);
        }
    }

    fn image_of(&self, record: &Record) -> Result<Image, String> {
        let mut layers: Vec<PathBuf> = Vec::new();
        for layer in record.all_layers().rev() {
            let path = self.layout.layer(&layer.name);
            // Of a layer that comes twice the upper one hides all that the lower one has.
            if !layers.contains(&path) {
                layers.push(path);
            }
            if layer.hides_below {
                break;
            }
        }
        if layers.is_empty() {
            layers.push(self.layout.path("empty"));
        }
        let mut names = record.tags.iter().chain(&record.digests);
        Ok(Image {
            id: record.id.clone(),
            repo_tags: record.tags.iter().cloned().collect(),
            repo_digests: record.digests.iter().cloned().collect(),
            size: record.all_layers().map(|layer| layer.bytes).sum(),
            config: record.config()?,
            layers,
            pinned: names.any(|name| self.pinned.contains(name)),
            platform: record.platform.clone(),
        })
    }

    /// Where a layer is as it travels, if it is stored.
    pub(super) fn blob_path(&self, layer: &Layer) -> Option<PathBuf> {
        let digest = Digest::parse(&layer.blob.as_ref()?.digest)?;
        Some(self.layout.blob(&digest))
    }

    pub(super) fn layer_names(&self) -> impl Iterator<Item = String> {
        self.layers.keys().cloned()
    }

    /// The record of an image, and the name in full if it was named and not by its id.
    pub(super) fn record(&self, name: &str) -> Option<(Record, Option<String>)> {
        let (id, full) = self.resolve(name)?;
        Some((self.records.get(&id)?.clone(), full))
    }

    /// The layers of directories that were not there when the index was read.
    pub(super) fn missing(&self) -> &BTreeSet<String> {
        &self.missing
    }

    pub(super) fn has(&self, layer: &str) -> bool {
        self.layers.contains_key(layer)
    }

    pub(super) fn layer(&self, name: &str) -> Option<Layer> {
        self.layers.get(name).map(|stored| stored.layer.clone())
    }

    /// The layers of an image, or all, each with the images that have it.
    pub(super) fn layers_of(&self, name: Option<&str>) -> Option<Vec<(Layer, Vec<String>)>> {
        let wanted = name.map(|name| self.resolve(name).map(|(id, _)| id).ok_or(()));
        let wanted = wanted.transpose().ok()?;
        let mut all: BTreeMap<&str, (Layer, Vec<String>)> = BTreeMap::new();
        let is_wanted = |record: &&Record| wanted.as_ref().is_none_or(|id| *id == record.id);
        for record in self.records.values().filter(is_wanted) {
            for layer in record.all_layers() {
                let known = self.layers.get(&layer.name).map_or(layer, |stored| &stored.layer);
                let entry = all.entry(&layer.name).or_insert_with(|| (known.clone(), Vec::new()));
                entry.1.push(record.id.clone());
            }
        }
        Some(all.into_values().collect())
    }

    pub(super) fn images(&self) -> Vec<Arc<Image>> {
        self.images.values().cloned().collect()
    }

    pub(super) fn usage(&self) -> (u64, u64) {
        self.used
    }

    /// Layers come and go here only, so that what they take is known without looking.
    fn put(&mut self, layer: Layer) {
        self.used.0 += layer.bytes;
        self.used.1 += layer.inodes;
        match self.layers.get_mut(&layer.name) {
            Some(stored) => {
                self.used.0 -= stored.layer.bytes;
                self.used.1 -= stored.layer.inodes;
                stored.layer = layer;
            }
            None => {
                self.unreferenced.insert(layer.name.clone());
                self.layers.insert(layer.name.clone(), Stored { layer, refs: 0, leases: 0 });
            }
        }
    }

    fn take(&mut self, name: &str) {
        self.unreferenced.remove(name);
        if let Some(old) = self.layers.remove(name) {
            self.used.0 -= old.layer.bytes;
            self.used.1 -= old.layer.inodes;
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Image>> {
        let (id, _) = self.resolve(name)?;
        self.images.get(&id).cloned()
    }

    /// The id that a name stands for, and the name in full if it is a name and not an id.
    fn resolve(&self, name: &str) -> Option<(String, Option<String>)> {
        if self.records.contains_key(name) {
            return Some((name.to_owned(), None));
        }
        if let Ok(reference) = Reference::parse(name) {
            let full = match reference.wanted_digest() {
                Some(digest) => reference.digested(digest),
                None => reference.to_string(),
            };
            if let Some(id) = self.names.get(&full) {
                return Some((id.clone(), Some(full)));
            }
        }
        let hex = name.strip_prefix(ID_KIND).unwrap_or(name);
        let is_hex = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !is_hex || hex.len() < ID_PREFIX_MIN {
            return None;
        }
        let start = format!("{ID_KIND}{hex}");
        let mut begin_so =
            self.records.range(start.clone()..).take_while(|(id, _)| id.starts_with(&start));
        match (begin_so.next(), begin_so.next()) {
            (Some((id, _)), None) => Some((id.clone(), None)),
            _ => None,
        }
    }

    /// The records that change when images are added, by their ids, and the ids of the images.
    fn plan(&self, new: Vec<NewImage>) -> (BTreeMap<String, Record>, Vec<String>) {
        let mut changed: BTreeMap<String, Record> = BTreeMap::new();
        let mut owners: HashMap<String, String> = HashMap::new();
        let mut ids = Vec::new();
        for NewImage { mut record, tags, digest } in new {
            if let Some(old) = changed.get(&record.id).or_else(|| self.records.get(&record.id)) {
                record.tags.clone_from(&old.tags);
                record.digests.clone_from(&old.digests);
            }
            for tag in tags {
                let owner = owners.get(&tag).or_else(|| self.names.get(&tag));
                if let Some(other) = owner.filter(|owner| **owner != record.id)
                    && let Some(known) = changed.get(other).or_else(|| self.records.get(other))
                {
                    // Without any name it stays until it is removed by its id: a container may use it.
                    let mut other = known.clone();
                    other.tags.remove(&tag);
                    changed.insert(other.id.clone(), other);
                }
                owners.insert(tag.clone(), record.id.clone());
                record.tags.insert(tag);
            }
            record.digests.extend(digest);
            ids.push(record.id.clone());
            changed.insert(record.id.clone(), record);
        }
        (changed, ids)
    }

    /// Takes a layer that nobody needs out of memory, with the path of its compressed form.
    fn take_unreferenced(&mut self) -> Option<(Layer, Option<PathBuf>)> {
        let name = self.unreferenced.first()?.clone();
        let layer = self.layer(&name)?;
        self.take(&name);
        let blob = self.blob_path(&layer);
        Some((layer, blob))
    }

    /// Takes over a repaired layer, and returns the records of its images with it.
    fn with_repaired(&mut self, layer: &Layer) -> BTreeMap<String, Record> {
        self.put(layer.clone());
        let has = |record: &&Record| record.all_layers().any(|of| of.name == layer.name);
        let mut records: BTreeMap<String, Record> = BTreeMap::new();
        for mut record in self.records.values().filter(has).cloned() {
            record.replace(layer);
            records.insert(record.id.clone(), record);
        }
        records
    }

    /// Finds a layer that is there and holds it.
    pub(super) fn lease(&mut self, name: &str) -> Option<Layer> {
        let layer = self.layer(name)?;
        self.count(name, |stored| stored.leases += 1);
        Some(layer)
    }

    pub(super) fn release(&mut self, name: &str) {
        self.count(name, |stored| stored.leases -= 1);
    }
}

/// How names of layers begin that were put aside since the machine started. Containers may run on them until it
/// starts again.
fn replaced_in_this_boot() -> String {
    let boot = super::boot::boot_id().unwrap_or_default();
    format!("replaced-{}", String::from_utf8_lossy(&boot).trim())
}
