// SPDX-License-Identifier: Apache-2.0
//! All records in memory: what a name means, which layers are needed.
//!
//! The rule: a change is written first and then made here, so what is listed is on disk. Layers that
//! a pull has found or made are held until it is done, so that removing another image does not take
//! them away from under it.

use super::record::{Layer, Record};
use super::{Image, Problem};
use crate::digest::Digest;
use crate::error::Error;
use crate::files;
use crate::reference::Reference;
use hull_sys as sys;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Shortest beginning of an id that is taken for one.
const ID_PREFIX_MIN: usize = 3;
const ID_KIND: &str = "sha256:";

/// What the store has.
#[derive(Debug)]
pub(super) struct Index {
    root: PathBuf,
    pinned: BTreeSet<String>,
    records: BTreeMap<String, Record>,
    images: BTreeMap<String, Arc<Image>>,
    layers: BTreeMap<String, Layer>,
    /// Bytes and inodes of all layers.
    taken: (u64, u64),
    held: HashMap<String, usize>,
}

impl Index {
    pub(super) fn new(root: &Path, pinned: BTreeSet<String>) -> Self {
        Self {
            root: root.to_owned(),
            pinned,
            records: BTreeMap::new(),
            images: BTreeMap::new(),
            layers: BTreeMap::new(),
            taken: (0, 0),
            held: HashMap::new(),
        }
    }

    /// Reads all records, sets aside those that cannot be read, sweeps layers without a record.
    pub(super) fn load(&mut self) -> sys::Result<Vec<Problem>> {
        let directory = self.root.join("images");
        let mut problems = Vec::new();
        for name in files::names(&directory)? {
            let path = directory.join(&name);
            if name.ends_with(".bad") {
                problems.push(Problem { path, why: "it was set aside before".into() });
                continue;
            }
            let added = Record::read(&path).and_then(|record| self.check_layers(record));
            if let Err(why) = added.and_then(|record| self.show(record)) {
                let aside = directory.join(format!("{name}.bad"));
                files::rename(&path, &aside)?;
                problems.push(Problem { path: aside, why });
            }
        }
        // A container may run on layers whose record we cannot read.
        if problems.is_empty() {
            for name in files::names(&self.root.join("layers"))? {
                if !self.layers.contains_key(&name) {
                    files::remove_tree(&self.layer_path(&name))?;
                }
            }
            let blobs: BTreeSet<PathBuf> =
                self.layers.values().filter_map(|layer| self.blob_path(layer)).collect();
            for name in files::names(&self.root.join("blobs"))? {
                let path = self.root.join("blobs").join(name);
                if !blobs.contains(&path) {
                    files::unlink(&path)?;
                }
            }
            for name in files::names(&self.root.join("inventories"))? {
                if !self.layers.contains_key(&name) {
                    files::unlink(&self.inventory_path(&name))?;
                }
            }
        }
        Ok(problems)
    }

    fn check_layers(&self, record: Record) -> Result<Record, String> {
        for layer in &record.layers {
            if let Err(err) = files::open_dir(&self.layer_path(&layer.name)) {
                return Err(format!("its layer {} cannot be opened: {err}", layer.name));
            }
        }
        Ok(record)
    }

    /// Makes a record, which is on disk, visible.
    fn show(&mut self, record: Record) -> Result<Arc<Image>, String> {
        let image = Arc::new(self.image_of(&record)?);
        for layer in &record.layers {
            self.put(layer.clone());
        }
        self.images.insert(record.id.clone(), Arc::clone(&image));
        self.records.insert(record.id.clone(), record);
        Ok(image)
    }

    fn image_of(&self, record: &Record) -> Result<Image, String> {
        let mut layers: Vec<PathBuf> = Vec::new();
        for layer in record.layers.iter().rev() {
            let path = self.layer_path(&layer.name);
            // Of a layer that comes twice the upper one hides all that the lower one has.
            if !layers.contains(&path) {
                layers.push(path);
            }
        }
        if layers.is_empty() {
            layers.push(self.root.join("empty"));
        }
        let mut names = record.tags.iter().chain(&record.digests);
        Ok(Image {
            id: record.id.clone(),
            repo_tags: record.tags.iter().cloned().collect(),
            repo_digests: record.digests.iter().cloned().collect(),
            size: record.layers.iter().map(|layer| layer.bytes).sum(),
            config: record.config()?,
            layers,
            pinned: names.any(|name| self.pinned.contains(name)),
        })
    }

    pub(super) fn layer_path(&self, name: &str) -> PathBuf {
        self.root.join("layers").join(name)
    }

    pub(super) fn inventory_path(&self, name: &str) -> PathBuf {
        self.root.join("inventories").join(name)
    }

    /// Where a layer is as it travels, if it is kept.
    fn blob_path(&self, layer: &Layer) -> Option<PathBuf> {
        let digest = Digest::parse(&layer.blob.as_ref()?.digest)?;
        Some(self.root.join("blobs").join(digest.hex()))
    }

    pub(super) fn layer_names(&self) -> impl Iterator<Item = String> {
        self.layers.keys().cloned()
    }

    /// The record of an image, and the name in full if it was named and not by its id.
    pub(super) fn record(&self, name: &str) -> Option<(Record, Option<String>)> {
        let (id, full) = self.resolve(name)?;
        Some((self.records.get(&id)?.clone(), full))
    }

    pub(super) fn has(&self, layer: &str) -> bool {
        self.layers.contains_key(layer)
    }

    pub(super) fn layer(&self, name: &str) -> Option<Layer> {
        self.layers.get(name).cloned()
    }

    /// The layers of an image, or all, each with the images that have it.
    pub(super) fn layers_of(&self, name: Option<&str>) -> Option<Vec<(Layer, Vec<String>)>> {
        let wanted = name.map(|name| self.resolve(name).map(|(id, _)| id).ok_or(()));
        let wanted = wanted.transpose().ok()?;
        let mut all: BTreeMap<&str, (Layer, Vec<String>)> = BTreeMap::new();
        let is_wanted = |record: &&Record| wanted.as_ref().is_none_or(|id| *id == record.id);
        for record in self.records.values().filter(is_wanted) {
            for layer in &record.layers {
                let known = self.layers.get(&layer.name).unwrap_or(layer);
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
        self.taken
    }

    /// Layers come and go here only, so that what they take is known without looking.
    fn put(&mut self, layer: Layer) {
        self.taken.0 += layer.bytes;
        self.taken.1 += layer.inodes;
        if let Some(old) = self.layers.insert(layer.name.clone(), layer) {
            self.taken.0 -= old.bytes;
            self.taken.1 -= old.inodes;
        }
    }

    fn take(&mut self, name: &str) {
        if let Some(old) = self.layers.remove(name) {
            self.taken.0 -= old.bytes;
            self.taken.1 -= old.inodes;
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
            let has =
                |record: &&Record| record.tags.contains(&full) || record.digests.contains(&full);
            if let Some(record) = self.records.values().find(has) {
                return Some((record.id.clone(), Some(full)));
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

    /// Records an image whose layers are all there and durable. Its tag is taken from any other image.
    pub(super) fn add(
        &mut self,
        mut record: Record,
        tags: &[String],
        digest: Option<String>,
    ) -> Result<Arc<Image>, sys::Error> {
        if let Some(old) = self.records.get(&record.id) {
            record.tags.clone_from(&old.tags);
            record.digests.clone_from(&old.digests);
        }
        record.tags.extend(tags.iter().cloned());
        record.digests.extend(digest);
        record.write(&self.root)?;
        let broken = |why| sys::Error::new(rustix::io::Errno::INVAL, format!("parse({why})"));
        let image = self.show(record).map_err(broken)?;
        let has = |record: &&Record| {
            record.id != image.id && tags.iter().any(|tag| record.tags.contains(tag))
        };
        let others: Vec<Record> = self.records.values().filter(has).cloned().collect();
        for mut other in others {
            other.tags.retain(|tag| !tags.contains(tag));
            // Without any name it stays until it is removed by its id: a container may use it.
            other.write(&self.root)?;
            self.show(other).map_err(broken)?;
        }
        Ok(image)
    }

    /// Removes names, maybe the image, and gives the directories to be removed.
    pub(super) fn remove(
        &mut self,
        name: &str,
        used: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<PathBuf>, Error> {
        let Some((id, full)) = self.resolve(name) else { return Ok(Vec::new()) };
        let Some(mut record) = self.records.get(&id).cloned() else { return Ok(Vec::new()) };
        match &full {
            Some(full) => forget_name(&mut record, full),
            None => {
                record.tags.clear();
                record.digests.clear();
            }
        }
        let failed = |source| Error::Remove { image: name.to_owned(), source };
        if !record.is_nameless() {
            record.write(&self.root).map_err(failed)?;
            let broken = |why| sys::Error::new(rustix::io::Errno::INVAL, format!("parse({why})"));
            self.show(record).map_err(broken).map_err(failed)?;
            return Ok(Vec::new());
        }
        if used(&id) {
            return Err(Error::InUse { image: name.to_owned() });
        }
        files::unlink(&record.path(&self.root)).map_err(failed)?;
        self.records.remove(&id);
        self.images.remove(&id);
        self.collect().map_err(failed)
    }

    /// Takes layers that nobody needs out of their place, so that they can be removed at leisure.
    pub(super) fn collect(&mut self) -> sys::Result<Vec<PathBuf>> {
        let needed: BTreeSet<&String> = self
            .records
            .values()
            .flat_map(|record| record.layers.iter().map(|layer| &layer.name))
            .collect();
        let gone: Vec<String> = self
            .layers
            .keys()
            .filter(|name| !needed.contains(name) && !self.held.contains_key(*name))
            .cloned()
            .collect();
        let mut directories = Vec::new();
        for name in gone {
            let aside = self.root.join("tmp").join(files::unique("layer"));
            files::rename(&self.layer_path(&name), &aside)?;
            files::unlink(&self.inventory_path(&name))?;
            if let Some(blob) = self.layers.get(&name).and_then(|layer| self.blob_path(layer)) {
                files::unlink(&blob)?;
            }
            self.take(&name);
            directories.push(aside);
        }
        Ok(directories)
    }

    /// Finds a layer that is there and holds it.
    pub(super) fn hold(&mut self, name: &str) -> Option<Layer> {
        let layer = self.layers.get(name)?.clone();
        *self.held.entry(name.to_owned()).or_default() += 1;
        Some(layer)
    }

    /// Puts a layer that was made in `made` into its place and holds it. One that is there without our
    /// knowledge, because its record cannot be read, is put aside whole: a container may run on it.
    pub(super) fn place(
        &mut self,
        layer: Layer,
        made: &Path,
        inventory: &Path,
    ) -> sys::Result<Layer> {
        if let Some(known) = self.hold(&layer.name) {
            return Ok(known);
        }
        let path = self.layer_path(&layer.name);
        match files::rename(&path, &self.layer_path(&files::unique("replaced"))) {
            Err(err) if !err.is_not_found() => return Err(err),
            Ok(()) | Err(_) => {}
        }
        files::rename(inventory, &self.inventory_path(&layer.name))?;
        files::rename(made, &path)?;
        *self.held.entry(layer.name.clone()).or_default() += 1;
        self.put(layer.clone());
        Ok(layer)
    }

    /// A layer was put right: it is known by its new inventory, also in the records of its images.
    pub(super) fn mended(&mut self, layer: &Layer) -> sys::Result<()> {
        self.put(layer.clone());
        let has = |record: &&Record| record.layers.iter().any(|of| of.name == layer.name);
        let records: Vec<Record> = self.records.values().filter(has).cloned().collect();
        for mut record in records {
            for of in record.layers.iter_mut().filter(|of| of.name == layer.name) {
                of.clone_from(layer);
            }
            record.write(&self.root)?;
            self.records.insert(record.id.clone(), record);
        }
        Ok(())
    }

    pub(super) fn release(&mut self, name: &str) {
        if let Some(count) = self.held.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(name);
            }
        }
    }
}

/// A tag takes the digests of its repository with it if it is the last tag of that repository.
fn forget_name(record: &mut Record, full: &str) {
    if record.digests.remove(full) {
        return;
    }
    record.tags.remove(full);
    let repository = |tag: &str| tag.rsplit_once(':').map_or(tag, |(name, _)| name).to_owned();
    let gone = repository(full);
    if !record.tags.iter().any(|tag| repository(tag) == gone) {
        record.digests.retain(|name| name.split('@').next() != Some(gone.as_str()));
    }
}
