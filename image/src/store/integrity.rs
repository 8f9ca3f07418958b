// SPDX-License-Identifier: Apache-2.0
//! Whether layers still are what was stored.
//!
//! ```text
//! after a boot    each layer is looked through before its first use: everything there, of its size
//! on demand       each is read and compared with its inventory
//! broken          the image is not shown as here, so that a kubelet pulls it again: only what is
//!                 broken is fetched, and replaced file by file
//! ```
//!
//! The rule: no container is made on a layer that is known to be broken, or that nobody has looked at
//! since the machine was started. Within one boot the page cache holds what was written, so a
//! daemon that is started again looks at nothing again.

use super::pull::blocking;
use super::record::Layer;
use super::{Image, Inner, Store, files};
use crate::auth::Auth;
use crate::digest::Digest;
use crate::error::{Error, NAME_MAX};
use crate::inventory::{self, Finding, Reader};
use crate::limits::Work;
use crate::reference::Reference;
use hull_sys as sys;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// Where Linux says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT_ID_BYTES_MAX: u64 = 64;

/// What was found out about a layer.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Its diff id.
    pub layer: String,
    /// Images that have it, by id.
    pub images: Vec<String>,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Paths and what is wrong with each.
    pub findings: Vec<(String, String)>,
    /// Why it could not be compared, if it could not.
    pub unknown: Option<String>,
}

impl Verified {
    /// Whether all of it is as it was stored.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty() && self.unknown.is_none()
    }
}

/// What nobody has looked at since the machine was started, and what is known to be broken.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    pub(super) unseen: BTreeSet<String>,
    pub(super) broken: BTreeSet<String>,
}

impl Store {
    /// Looks through the layers of an image that nobody has looked at since the machine was started.
    /// Blocks: two microseconds per file, once.
    pub fn ready(&self, image: &Image) -> Result<(), Error> {
        for name in names(image) {
            if let Some(why) = self.inner.doubt(&name) {
                return Err(Error::BrokenLayer { image: shown(image), layer: name, why });
            }
        }
        Ok(())
    }

    /// Whether an image may be used, as far as is known now.
    #[must_use]
    pub fn is_whole(&self, image: &Image) -> bool {
        let doubts = self.inner.doubts();
        names(image).all(|name| !doubts.broken.contains(&name))
    }

    /// Looks through everything that nobody has looked at since the machine was started. Blocks.
    pub fn look_through(&self) {
        let unseen = self.inner.doubts().unseen.clone();
        for name in &unseen {
            if let Some(why) = self.inner.doubt(name) {
                tracing::error!(layer = %name, why, "layer is broken; its images must be pulled again");
            }
        }
        if let Err(err) = self.inner.remember_boot() {
            tracing::warn!(error = %err, "layers will be looked through again at the next start");
        }
    }

    /// Reads every layer of an image, or of all, and compares it with what was stored. Those that are
    /// not whole count as broken from then on.
    pub async fn verify(&self, name: Option<&str>) -> Result<Vec<Verified>, Error> {
        let layers = self.inner.index().layers_of(name);
        let layers = layers.ok_or_else(|| Error::NoImage { image: name.unwrap_or("").into() })?;
        let mut all = Vec::new();
        // Who gives up waiting gives it up.
        let (work, _guard) = Work::guarded();
        for (layer, images) in layers {
            let (inner, work) = (Arc::clone(&self.inner), work.clone());
            let verified = blocking(move || Ok(inner.verified(&layer, images, &work)));
            all.push(verified.await.map_err(|source| Error::Verify { source })?);
        }
        Ok(all)
    }

    /// Fetches again what is broken of an image, from where it came.
    pub async fn repair(&self, name: &str, auth: Option<&Auth>) -> Result<(), Error> {
        let image = self.find(name).ok_or_else(|| Error::NoImage { image: name.to_owned() })?;
        let nowhere = Error::NoSource { image: shown(&image) };
        let mut last = Err(nowhere);
        for from in image.repo_digests.iter().chain(&image.repo_tags) {
            if self.is_whole(&image) {
                return Ok(());
            }
            let Ok(reference) = Reference::parse(from) else { continue };
            last = self.pull(&reference, auth, None).await.map(drop);
        }
        if self.is_whole(&image) { Ok(()) } else { last }
    }
}

fn names(image: &Image) -> impl Iterator<Item = String> {
    image.layers.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
}

fn shown(image: &Image) -> String {
    image.repo_tags.first().or(image.repo_digests.first()).unwrap_or(&image.id).clone()
}

impl Inner {
    /// What is wrong with a layer; it is looked through if nobody has.
    fn doubt(&self, name: &str) -> Option<String> {
        {
            let doubts = self.doubts();
            if doubts.broken.contains(name) {
                return Some("it was found to be broken".into());
            }
            if !doubts.unseen.contains(name) {
                return None;
            }
        }
        let layer = self.index().layer(name)?;
        let seen = self.look(&layer);
        let mut doubts = self.doubts();
        doubts.unseen.remove(name);
        match seen {
            Ok(None) => None,
            Ok(Some(Finding { path, why, .. })) => {
                doubts.broken.insert(name.to_owned());
                Some(format!("{}: {why}", crate::error::shown(&path, NAME_MAX)))
            }
            Err(err) => {
                doubts.broken.insert(name.to_owned());
                Some(err.to_string())
            }
        }
    }

    fn look(&self, layer: &Layer) -> io::Result<Option<Finding>> {
        // Of older records: nothing is known of what it should hold.
        let Some(items) = self.items(layer)? else { return Ok(None) };
        let root = self.open_layer(layer)?;
        inventory::look(root.as_fd(), items)
    }

    pub(super) fn open_layer(&self, layer: &Layer) -> io::Result<OwnedFd> {
        files::open_dir(&self.path("layers").join(&layer.name)).map_err(io::Error::other)
    }

    /// The inventory of a layer, if it has one.
    pub(super) fn items(&self, layer: &Layer) -> io::Result<Option<Reader>> {
        let Some(digest) = layer.inventory.as_deref().and_then(Digest::parse) else {
            return Ok(None);
        };
        let file = files::open_file(&self.path("inventories").join(&layer.name));
        let file = file.map_err(io::Error::other)?;
        Reader::open(file, &digest).map(Some)
    }

    fn verified(&self, layer: &Layer, images: Vec<String>, work: &Work) -> Verified {
        let diff_id = layer.diff_id().map_or_else(|| layer.name.clone(), |of| of.to_string());
        let mut verified = Verified {
            layer: diff_id,
            images,
            bytes: layer.bytes,
            findings: Vec::new(),
            unknown: None,
        };
        let compared = self.items(layer).and_then(|items| {
            let Some(items) = items else { return Ok(None) };
            let root = self.open_layer(layer)?;
            inventory::verify(root.as_fd(), items, work).map(Some)
        });
        match compared {
            Ok(Some(findings)) => {
                let shown = |of: Finding| (crate::error::shown(&of.path, NAME_MAX), of.why);
                verified.findings = findings.into_iter().map(shown).collect();
            }
            Ok(None) => {
                let why =
                    "an older hull stored it, without an inventory; remove and pull its images";
                verified.unknown = Some(why.into());
                return verified;
            }
            Err(err) => verified.unknown = Some(err.to_string()),
        }
        if work.check().is_err() {
            return verified;
        }
        let mut doubts = self.doubts();
        doubts.unseen.remove(&layer.name);
        if verified.is_whole() {
            doubts.broken.remove(&layer.name);
        } else {
            doubts.broken.insert(layer.name.clone());
        }
        verified
    }

    /// Puts a broken layer right from one that was unpacked anew.
    pub(super) fn mend(
        &self,
        layer: &Layer,
        made: &Path,
        inventory: &Path,
        work: &Work,
    ) -> sys::Result<()> {
        let Some(digest) = layer.inventory.as_deref().and_then(Digest::parse) else {
            return Ok(());
        };
        let root = files::open_dir(&self.path("layers").join(&layer.name))?;
        let file = files::open_file(inventory)?;
        inventory::mend(&root, &files::open_dir(made)?, &file, &digest, work)?;
        files::rename(inventory, &self.path("inventories").join(&layer.name))
    }

    /// What nobody has looked at since the machine was started: all, unless it was this boot.
    pub(super) fn unseen(root: &Path, layers: impl Iterator<Item = String>) -> BTreeSet<String> {
        let now = boot_id();
        let then = files::read(&root.join("boot"), BOOT_ID_BYTES_MAX).ok();
        if now.is_some() && now == then { BTreeSet::new() } else { layers.collect() }
    }

    /// From now on nothing needs to be looked at until the next boot.
    fn remember_boot(&self) -> sys::Result<()> {
        let Some(now) = boot_id() else { return Ok(()) };
        let path = self.path("boot");
        if files::read(&path, BOOT_ID_BYTES_MAX).is_ok_and(|then| then == now) {
            return Ok(());
        }
        // Not in `tmp`: what lies there is a pull or an import under way, and nothing else.
        let scratch = self.path("boot.new");
        files::unlink(&scratch)?;
        files::write_whole(&path, &scratch, &now)
    }
}

fn boot_id() -> Option<Vec<u8>> {
    files::read(Path::new(BOOT_ID), BOOT_ID_BYTES_MAX).ok()
}
