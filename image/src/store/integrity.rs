// SPDX-License-Identifier: Apache-2.0
//! Whether stored layers are still intact.
//!
//! ```text
//! after a boot    scan each layer before its first use: every file present, with its type and size
//! on demand       verify each layer: read all files and compare them with the file list
//! broken layer    report its images as absent, so that the kubelet pulls them again: only broken
//!                 layers are pulled, and only broken files replaced
//! ```
//!
//! The rule: no container is created on a layer that is known to be broken, or that was not scanned
//! since the machine was started. Within one boot the page cache has what was written, so a restarted
//! daemon does not scan again.

use super::boot::{BOOT_ID_BYTES_MAX, boot_id};
use super::index::SharedIndex;
use super::index::record::Layer;
use super::layout::Layout;
use crate::digest::Digest;
use crate::error::{self, Error, NAME_MAX};
use crate::file_list::{self, Finding, Reader};
use crate::fs::files;
use crate::limits::Work;
use crate::types::{Image, Verified};
use hull_records::{Durability, Location, PRIVATE};
use hull_sys as sys;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Layers that must not be used before they are scanned or repaired.
#[derive(Debug)]
struct SuspectLayers {
    /// Not scanned since the machine was started.
    unverified: BTreeSet<String>,
    /// Known to differ from what was stored.
    broken: BTreeSet<String>,
}

/// Compares stored layers with their file lists, and remembers which are suspect.
#[derive(Debug)]
pub(super) struct Integrity {
    layout: Layout,
    index: SharedIndex,
    suspects: Mutex<SuspectLayers>,
}

impl Integrity {
    pub(super) fn new(layout: Layout, index: SharedIndex) -> Self {
        let unverified = Self::unverified(layout.root(), index.lock().layer_names());
        let broken = index.lock().missing().clone();
        let suspects = SuspectLayers { unverified, broken };
        Self { layout, index, suspects: Mutex::new(suspects) }
    }

    fn suspects(&self) -> MutexGuard<'_, SuspectLayers> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Scans the layers of an image that were not scanned since the machine was started.
    pub(super) fn check(&self, image: &Image) -> Result<(), Error> {
        for name in names(image) {
            if let Some(why) = self.defect(&name) {
                return Err(Error::BrokenLayer { image: shown(image), layer: name, why });
            }
        }
        Ok(())
    }

    /// Whether no layer of an image is known to be broken.
    pub(super) fn is_whole(&self, image: &Image) -> bool {
        let suspects = self.suspects();
        names(image).all(|name| !suspects.broken.contains(&name))
    }

    /// Whether a layer is known to be broken.
    pub(super) fn is_broken(&self, layer: &str) -> bool {
        self.suspects().broken.contains(layer)
    }

    /// Forgets every suspicion against a layer that was just unpacked.
    pub(super) fn clear(&self, layer: &str) {
        let mut suspects = self.suspects();
        suspects.broken.remove(layer);
        suspects.unverified.remove(layer);
    }

    /// Scans all layers that were not scanned since the machine was started.
    pub(super) fn scan_unverified(&self) {
        let unverified = self.suspects().unverified.clone();
        for name in &unverified {
            if let Some(why) = self.defect(name) {
                tracing::error!(layer = %name, why, "layer is broken; its images must be pulled again");
            }
        }
        if let Err(err) = self.remember_boot() {
            tracing::warn!(error = %err, "layers will be scanned again at the next start");
        }
    }

    /// The defect of a layer, if it has one. Scans it if it was not scanned since the machine was started.
    fn defect(&self, name: &str) -> Option<String> {
        {
            let suspects = self.suspects();
            if suspects.broken.contains(name) {
                return Some("it was found to be broken".into());
            }
            if !suspects.unverified.contains(name) {
                return None;
            }
        }
        let layer = self.index.lock().layer(name)?;
        let seen = self.scan(&layer);
        let mut suspects = self.suspects();
        suspects.unverified.remove(name);
        match seen {
            Ok(None) => None,
            Ok(Some(Finding { path, why, .. })) => {
                suspects.broken.insert(name.to_owned());
                Some(format!("{}: {why}", error::shown(&path, NAME_MAX)))
            }
            Err(err) => {
                suspects.broken.insert(name.to_owned());
                Some(err.to_string())
            }
        }
    }

    fn scan(&self, layer: &Layer) -> io::Result<Option<Finding>> {
        // A layer of an older record has no file list.
        let Some(items) = self.file_list(layer)? else { return Ok(None) };
        let root = self.open_layer(layer)?;
        file_list::scan(root.as_fd(), items)
    }

    pub(super) fn open_layer(&self, layer: &Layer) -> io::Result<OwnedFd> {
        files::open_dir(&self.layout.layer(&layer.name)).map_err(io::Error::other)
    }

    /// The file list of a layer, if it has one.
    pub(super) fn file_list(&self, layer: &Layer) -> io::Result<Option<Reader>> {
        let Some(digest) = layer.inventory.as_deref().and_then(Digest::parse) else {
            return Ok(None);
        };
        let file = files::open_file(&self.layout.file_list(&layer.name));
        let file = file.map_err(io::Error::other)?;
        Reader::open(file, &digest).map(Some)
    }

    pub(super) fn verified(&self, layer: &Layer, images: Vec<String>, work: &Work) -> Verified {
        let diff_id = layer.diff_id().map_or_else(|| layer.name.clone(), |of| of.to_string());
        let mut verified = Verified {
            layer: diff_id,
            images,
            bytes: layer.bytes,
            findings: Vec::new(),
            unknown: None,
        };
        let compared = self.file_list(layer).and_then(|items| {
            let Some(items) = items else { return Ok(None) };
            let root = self.open_layer(layer)?;
            file_list::verify(root.as_fd(), items, work).map(Some)
        });
        match compared {
            Ok(Some(findings)) => {
                let shown = |of: Finding| (error::shown(&of.path, NAME_MAX), of.why);
                verified.findings = findings.into_iter().map(shown).collect();
            }
            Ok(None) => {
                let why = "an older hull stored it without a file list; remove its images and pull them again";
                verified.unknown = Some(why.into());
                return verified;
            }
            Err(err) => verified.unknown = Some(err.to_string()),
        }
        if work.check().is_err() {
            return verified;
        }
        let mut suspects = self.suspects();
        suspects.unverified.remove(&layer.name);
        if verified.is_whole() {
            suspects.broken.remove(&layer.name);
        } else {
            suspects.broken.insert(layer.name.clone());
        }
        verified
    }

    /// Repairs a broken layer in place from a new copy in `made`, whose file list is `list`.
    pub(super) fn repair(
        &self,
        layer: &Layer,
        made: &Path,
        list: &Path,
        work: &Work,
    ) -> sys::Result<()> {
        let Some(digest) = layer.inventory.as_deref().and_then(Digest::parse) else {
            return Ok(());
        };
        let place = self.layout.layer(&layer.name);
        match files::open_dir(&place) {
            Ok(root) => {
                let file = files::open_file(list)?;
                file_list::repair(&root, &files::open_dir(made)?, &file, &digest, work)?;
            }
            Err(err) if err.is_not_found() => files::rename(made, &place)?,
            Err(err) => return Err(err),
        }
        files::rename(list, &self.layout.file_list(&layer.name))
    }

    /// The layers to scan: none if all were scanned in this boot, else all.
    fn unverified(root: &Path, layers: impl Iterator<Item = String>) -> BTreeSet<String> {
        let now = boot_id();
        let then = Location::at(&root.join("boot")).read(BOOT_ID_BYTES_MAX).ok();
        if now.is_some() && now == then { BTreeSet::new() } else { layers.collect() }
    }

    /// Records that all layers were scanned in this boot.
    fn remember_boot(&self) -> sys::Result<()> {
        let Some(now) = boot_id() else { return Ok(()) };
        let path = self.layout.path("boot");
        if Location::at(&path).read(BOOT_ID_BYTES_MAX).is_ok_and(|then| then == now) {
            return Ok(());
        }
        // Not in `tmp`, which has only running pulls and imports.
        let scratch = self.layout.path("boot.new");
        let (path, scratch) = (Location::at(&path), Location::at(&scratch));
        hull_records::replace(path, scratch, &now, PRIVATE, Durability::PowerCut)
    }
}

fn names(image: &Image) -> impl Iterator<Item = String> {
    image.layers.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
}

pub(super) fn shown(image: &Image) -> String {
    image.repo_tags.first().or(image.repo_digests.first()).unwrap_or(&image.id).clone()
}
