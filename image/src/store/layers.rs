// SPDX-License-Identifier: Apache-2.0
//! The layers of an image on their way into the store.
//!
//! The rule: a layer is made in `tmp` and renamed into place when it is whole and checked. A layer
//! that is being made for one image is waited for by others, not made twice.

use super::record::{Blob, Layer};
use super::{Inner, files};
use crate::digest::Digest;
use crate::error::Cause;
use crate::inventory::{self, Writer};
use crate::layer::{self, Expected};
use crate::limits::Work;
use crate::pipe::Copied;
use crate::unpack::{self, Unpacked};
use crate::view;
use crate::watch::Watch;
use hull_sys as sys;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who may unpack which layer.
#[derive(Debug, Default)]
pub(super) struct Turns {
    of: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Turns {
    /// Waits until nobody else unpacks `layer`.
    pub(super) async fn wait(&self, layer: &str) -> Option<OwnedSemaphorePermit> {
        let turn = {
            let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
            of.retain(|_, turn| turn.strong_count() > 0);
            let known = of.get(layer).and_then(Weak::upgrade);
            let turn = known.unwrap_or_else(|| Arc::new(Semaphore::new(1)));
            of.insert(layer.to_owned(), Arc::downgrade(&turn));
            turn
        };
        turn.acquire_owned().await.ok()
    }
}

/// A layer that is there and stays, at least as long as this does.
///
/// When a pull fails, its good layers stay for the next try, until images change.
#[derive(Debug)]
pub(super) struct Held {
    inner: Arc<Inner>,
    layer: Layer,
}

impl Held {
    pub(super) fn layer(&self) -> &Layer {
        &self.layer
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.inner.index().release(&self.layer.name);
    }
}

/// A directory or file in `tmp` that goes away unless it was renamed.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(super) fn new(root: &Path, kind: &str) -> Self {
        Self { path: root.join("tmp").join(files::unique(kind)) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(err) = files::remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %err, "scratch left behind");
        }
    }
}

/// A layer that is there, or one that waits for those below it.
#[derive(Debug)]
pub(super) enum Made {
    Placed(Held),
    Waiting { scratch: Scratch, unpacked: Unpacked },
}

pub(super) fn keep(what: &Digest) -> impl Fn(sys::Error) -> Cause + '_ {
    move |source| Cause::Keep { what: format!("layer {what}"), source }
}

impl Inner {
    /// The layer with this diff id, if it is there.
    ///
    /// A pull that names it gets it without fetching it: sharing layers by content, as containerd and
    /// CRI-O do, takes a diff id for the right to a layer. See "Credentials and shared layers" in
    /// docs/operate.md.
    pub(super) fn present(self: &Arc<Self>, diff_id: &Digest) -> Option<Held> {
        if self.doubts().broken.contains(diff_id.hex()) {
            return None;
        }
        self.hold(diff_id.hex())
    }

    /// The layer in this directory, kept there as long as what is given.
    pub(super) fn hold(self: &Arc<Self>, name: &str) -> Option<Held> {
        let layer = self.index().hold(name)?;
        Some(Held { inner: Arc::clone(self), layer })
    }

    fn place(
        self: &Arc<Self>,
        mut layer: Layer,
        made: &Path,
        (inventory, digest): (Scratch, Digest),
        work: &Work,
    ) -> sys::Result<Held> {
        layer.inventory = Some(digest.to_string());
        if self.doubts().broken.contains(&layer.name) && self.index().layer(&layer.name).is_some() {
            // Containers may be running on what is good of it.
            self.mend(&layer, made, inventory.path(), work)?;
            self.index().mended(&layer)?;
            tracing::info!(layer = %layer.name, "broken layer repaired");
        }
        let layer = self.index().place(layer, made, inventory.path())?;
        let mut doubts = self.doubts();
        doubts.broken.remove(&layer.name);
        doubts.unseen.remove(&layer.name);
        drop(doubts);
        Ok(Held { inner: Arc::clone(self), layer })
    }

    /// Unpacks a layer. Blocks.
    pub(super) fn make_layer(
        self: &Arc<Self>,
        bytes: impl Read + Send,
        expected: &Expected,
        watch: &Watch,
        work: &Work,
    ) -> Result<Made, Cause> {
        let keep = keep(&expected.diff_id);
        let scratch = Scratch::new(&self.config.root, "layer");
        files::make_dir(&scratch.path, 0o755).map_err(&keep)?;
        let root = files::open_dir(&scratch.path).map_err(&keep)?;
        let (inventory, mut notes) = self.begin_inventory().map_err(&keep)?;
        let limits = self.config.limits;
        let again = root.try_clone().map_err(sys::Error::of_io(|| "dup()")).map_err(&keep)?;
        let kept = self.begin_blob(expected).map_err(&keep)?;
        let (blob, file) = kept.unzip();
        let bytes = Copied::new(bytes, file);
        let unpacked = layer::unpack(bytes, expected, root, limits, &mut notes, watch, work)?;
        if let (Some(blob), Some((digest, _))) = (&blob, &expected.blob) {
            let place = self.path("blobs").join(digest.hex());
            files::rename(blob.path(), &place).map_err(&keep)?;
        }
        if unpacked.links.is_some() {
            return Ok(Made::Waiting { scratch, unpacked });
        }
        let inventory = if unpacked.replaced {
            self.inventory_of(again.as_fd(), expected, work)?
        } else {
            let written = notes.finish().map_err(sys::Error::of_io(|| "write(inventory)"));
            (inventory, written.map_err(&keep)?)
        };
        let layer = layer_of(expected, expected.diff_id.hex().to_owned(), &unpacked, 0);
        self.place(layer, &scratch.path, inventory, work).map(Made::Placed).map_err(&keep)
    }

    /// A file for the layer as it travels, if those are kept.
    fn begin_blob(&self, expected: &Expected) -> sys::Result<Option<(Scratch, File)>> {
        if !self.config.keep_blobs || expected.blob.is_none() {
            return Ok(None);
        }
        let scratch = Scratch::new(&self.config.root, "blob");
        let file = files::create(&scratch.path)?;
        Ok(Some((scratch, file)))
    }

    fn begin_inventory(&self) -> sys::Result<(Scratch, Writer)> {
        let scratch = Scratch::new(&self.config.root, "inventory");
        let file = files::create(&scratch.path)?;
        let writer = Writer::new(file)
            .map_err(sys::Error::of_io(|| format!("write({})", scratch.path.display())))?;
        Ok((scratch, writer))
    }

    /// The inventory of what is there, whatever an archive says.
    fn inventory_of(
        &self,
        root: BorrowedFd<'_>,
        expected: &Expected,
        work: &Work,
    ) -> Result<(Scratch, Digest), Cause> {
        let keep = keep(&expected.diff_id);
        let (scratch, mut notes) = self.begin_inventory().map_err(&keep)?;
        let walked = inventory::walk(root, &mut notes, work, self.config.limits.seconds);
        let written = walked.and_then(|()| notes.finish());
        let digest = written.map_err(|err| match unpack::Error::of_work(err) {
            Ok(source) => Cause::Layer { layer: expected.diff_id.to_string(), source },
            Err(err) => {
                keep(sys::Error::of_io(|| format!("write({})", scratch.path.display()))(err))
            }
        })?;
        Ok((scratch, digest))
    }

    /// Finishes the layers that waited for those below them, lowest first. Blocks.
    pub(super) fn settle(
        self: &Arc<Self>,
        made: Vec<(Expected, Made)>,
        work: &Work,
    ) -> Result<Vec<Held>, Cause> {
        let mut layers: Vec<Held> = Vec::new();
        for (expected, made) in made {
            let layer = match made {
                Made::Placed(layer) => layer,
                Made::Waiting { scratch, unpacked } => {
                    self.link_to_below(&expected, &scratch.path, &unpacked, &layers, work)?
                }
            };
            layers.push(layer);
        }
        Ok(layers)
    }

    fn link_to_below(
        self: &Arc<Self>,
        expected: &Expected,
        made: &Path,
        unpacked: &Unpacked,
        below: &[Held],
        work: &Work,
    ) -> Result<Held, Cause> {
        let keep = keep(&expected.diff_id);
        let mut lower: Vec<PathBuf> = Vec::new();
        // What it holds depends on all layers below: so does its name.
        let mut chain = String::new();
        {
            let index = self.index();
            for layer in below.iter().rev() {
                let path = index.layer_path(&layer.layer.name);
                chain.push_str(&layer.layer.name);
                if !lower.contains(&path) {
                    lower.push(path);
                }
            }
        }
        let view = if lower.is_empty() { None } else { Some(view::stack(&lower).map_err(&keep)?) };
        let root = files::open_dir(made).map_err(&keep)?;
        let failed = |source| Cause::Layer { layer: expected.diff_id.to_string(), source };
        let view = view.as_ref().map(std::os::fd::AsFd::as_fd);
        let (limits, shift) = (self.config.limits, work.shift(self.config.limits.seconds));
        let copied = match &unpacked.links {
            Some(links) => {
                unpack::copy_up(root.as_fd(), view, links, limits, unpacked.bytes, &shift)
                    .map_err(failed)?
            }
            None => unpack::Copied::default(),
        };
        const CHAIN_SHOWN: usize = 32;
        let chain = Digest::of(chain.as_bytes());
        let name = format!("{}-{}", expected.diff_id.hex(), &chain.hex()[..CHAIN_SHOWN]);
        let inventory = self.inventory_of(root.as_fd(), expected, work)?;
        let layer = layer_of(expected, name, unpacked, copied.bytes);
        self.place(layer, made, inventory, work).map_err(&keep)
    }
}

fn layer_of(expected: &Expected, name: String, unpacked: &Unpacked, copied: u64) -> Layer {
    let blob = expected.blob.as_ref();
    Layer {
        name,
        bytes: unpacked.bytes + copied,
        inodes: unpacked.inodes + unpacked.links.as_ref().map_or(0, unpack::Links::count),
        blob: blob.map(|(digest, bytes)| Blob { digest: digest.to_string(), bytes: *bytes }),
        inventory: None,
    }
}
