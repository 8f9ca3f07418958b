// SPDX-License-Identifier: Apache-2.0
//! Changes the files of the index: records, and the places of layers.
//!
//! ```text
//! add       plan ─▶ records in tmp, durable ─▶ each renamed ─▶ shown
//! remove    hidden, unless it is used ─▶ record unlinked ─▶ layers that nobody needs: taken ─▶ renamed away
//!           └── shown again if that fails
//! ```
//!
//! The rule: the index is never locked while a file is changed. One writer at a time exists, so nothing of what a plan
//! depends on changes meanwhile, except for leases, and images are hidden and shown by writers only. All functions
//! block: they are for threads that may.

use super::record::{self, Layer, Record};
use super::{NewImage, SharedIndex, replaced_in_this_boot};
use crate::error::Error;
use crate::fs::files;
use crate::store::layout::Layout;
use crate::types::Image;
use hull_sys as sys;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

/// The right to change the files of the index, as long as it exists.
#[derive(Debug)]
pub(in crate::store) struct IndexWriter<'s> {
    index: &'s SharedIndex,
    layout: Layout,
    _files: MutexGuard<'s, ()>,
}

impl<'s> IndexWriter<'s> {
    /// Waits until nobody else changes the files of the index. Blocks, as long as the disk does.
    pub(in crate::store) fn begin(index: &'s SharedIndex) -> Self {
        let files = index.lock_files();
        let layout = index.lock().layout.clone();
        Self { index, layout, _files: files }
    }

    /// Records images: durable all together, then in place and seen one by one.
    ///
    /// # Errors
    /// A file cannot be written; images before that one are listed.
    pub(in crate::store) fn add(&mut self, new: Vec<NewImage>) -> sys::Result<Vec<Arc<Image>>> {
        let (changed, ids) = self.index.lock().plan(new);
        self.put_in_place(changed)?;
        let index = self.index.lock();
        Ok(ids.iter().filter_map(|id| index.images.get(id).cloned()).collect())
    }

    /// Gives an image one more tag, which is taken from any other image.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(in crate::store) fn tag(
        &mut self,
        record: Record,
        tag: String,
    ) -> sys::Result<Option<Arc<Image>>> {
        let new = NewImage { record, tags: vec![tag], digest: None };
        Ok(self.add(vec![new])?.into_iter().next())
    }

    /// Writes records, then shows those that are in their place.
    fn put_in_place(&mut self, records: BTreeMap<String, Record>) -> sys::Result<()> {
        let staged = record::stage(self.layout.root(), records.values())?;
        let mut put = Ok(());
        for (record, scratch) in records.into_values().zip(&staged) {
            let image = self.index.lock().image_of(&record).map_err(broken)?;
            put = files::rename(scratch.path(), &record.path(self.layout.root()));
            if put.is_err() {
                break;
            }
            self.index.lock().show(record, image);
        }
        hull_records::sync_dir(&self.layout.path("images"))?;
        put
    }

    /// Removes names, maybe the image, and returns the directories to be removed. `used` is called with the id of an
    /// image that would go, while the index is locked: a user of an image publishes that, and then checks that the
    /// image is still there.
    ///
    /// # Errors
    /// The image is used, or a file cannot be changed; then the image is listed as before.
    pub(in crate::store) fn remove(
        &mut self,
        name: &str,
        used: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<PathBuf>, Error> {
        let failed = |source| Error::Remove { image: name.to_owned(), source };
        let mut index = self.index.lock();
        let Some((mut record, full)) = index.record(name) else { return Ok(Vec::new()) };
        match &full {
            Some(full) => forget_name(&mut record, full),
            None => {
                record.tags.clear();
                record.digests.clear();
            }
        }
        if !record.is_nameless() {
            drop(index);
            let changed = BTreeMap::from([(record.id.clone(), record)]);
            self.put_in_place(changed).map_err(failed)?;
            return Ok(Vec::new());
        }
        if used(&record.id) {
            return Err(Error::InUse { image: name.to_owned() });
        }
        let hidden = index.hide(&record.id);
        drop(index);
        if let Err(source) = files::unlink(&record.path(self.layout.root())) {
            if let Some((record, image)) = hidden {
                self.index.lock().show(record, Arc::unwrap_or_clone(image));
            }
            return Err(failed(source));
        }
        self.collect().map_err(failed)
    }

    /// Takes layers that nobody needs out of their place, so that they can be removed at leisure.
    ///
    /// # Errors
    /// A file cannot be changed; the layer and those after it stay.
    pub(in crate::store) fn collect(&mut self) -> sys::Result<Vec<PathBuf>> {
        let mut directories = Vec::new();
        loop {
            // Out of memory first: nobody takes a lease on it any more.
            let Some((layer, blob)) = self.index.lock().take_unreferenced() else {
                return Ok(directories);
            };
            let aside = self.layout.aside("layer");
            if let Err(err) = files::rename(&self.layout.layer(&layer.name), &aside) {
                self.index.lock().put(layer);
                return Err(err);
            }
            directories.push(aside);
            files::unlink(&self.layout.file_list(&layer.name))?;
            if let Some(blob) = blob {
                files::unlink(&blob)?;
            }
        }
    }

    /// Puts a layer that was made in `made` into its place and holds it. One that is there without our
    /// knowledge, because its record cannot be read, is put aside whole: a container may run on it.
    ///
    /// # Errors
    /// A file cannot be renamed.
    pub(in crate::store) fn place(
        &mut self,
        layer: Layer,
        made: &Path,
        inventory: &Path,
    ) -> sys::Result<Layer> {
        if let Some(known) = self.index.lock().lease(&layer.name) {
            return Ok(known);
        }
        let path = self.layout.layer(&layer.name);
        match files::rename(&path, &self.layout.layer(&files::unique(&replaced_in_this_boot()))) {
            Err(err) if !err.is_not_found() => return Err(err),
            Ok(()) | Err(_) => {}
        }
        files::rename(inventory, &self.layout.file_list(&layer.name))?;
        files::rename(made, &path)?;
        let mut index = self.index.lock();
        index.put(layer.clone());
        index.count(&layer.name, |stored| stored.leases += 1);
        Ok(layer)
    }

    /// A layer was put right: it is known by its new inventory, also in the records of its images.
    ///
    /// # Errors
    /// A record cannot be written.
    pub(in crate::store) fn repaired(&mut self, layer: &Layer) -> sys::Result<()> {
        let records = self.index.lock().with_repaired(layer);
        self.put_in_place(records)
    }
}

fn broken(why: String) -> sys::Error {
    sys::Error::new(rustix::io::Errno::INVAL, format!("parse({why})"))
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
