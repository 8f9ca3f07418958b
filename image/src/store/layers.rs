// SPDX-License-Identifier: Apache-2.0
//! The layers of an image on their way into the store.
//!
//! The rule: a layer is made in `tmp` and renamed into place when it is whole and checked. A layer
//! that is being made for one image is waited for by others, not made twice.

use super::record::Layer;
use super::{Inner, files};
use crate::digest::Digest;
use crate::error::Cause;
use crate::layer::{self, Expected};
use crate::unpack::{self, Unpacked};
use crate::view;
use hull_sys as sys;
use std::collections::HashMap;
use std::io::Read;
use std::os::fd::AsFd as _;
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

/// A directory in `tmp` that goes away unless it was renamed.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(err) = files::remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %err, "scratch directory left behind");
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
    pub(super) fn present(self: &Arc<Self>, diff_id: &Digest) -> Option<Held> {
        let layer = self.index().hold(diff_id.hex())?;
        Some(Held { inner: Arc::clone(self), layer })
    }

    fn place(self: &Arc<Self>, layer: Layer, made: &Path) -> sys::Result<Held> {
        let layer = self.index().place(layer, made)?;
        Ok(Held { inner: Arc::clone(self), layer })
    }

    /// Unpacks a layer. Blocks.
    pub(super) fn make_layer(
        self: &Arc<Self>,
        bytes: impl Read,
        expected: &Expected,
    ) -> Result<Made, Cause> {
        let keep = keep(&expected.diff_id);
        let scratch = Scratch { path: self.path("tmp").join(files::unique("layer")) };
        files::make_dir(&scratch.path, 0o755).map_err(&keep)?;
        let root = files::open_dir(&scratch.path).map_err(&keep)?;
        let unpacked = layer::unpack(bytes, expected, root)?;
        if !unpacked.links.is_empty() {
            return Ok(Made::Waiting { scratch, unpacked });
        }
        let layer = Layer {
            name: expected.diff_id.hex().to_owned(),
            bytes: unpacked.bytes,
            inodes: unpacked.inodes,
        };
        self.place(layer, &scratch.path).map(Made::Placed).map_err(&keep)
    }

    /// Finishes the layers that waited for those below them, lowest first. Blocks.
    pub(super) fn settle(
        self: &Arc<Self>,
        made: Vec<(Expected, Made)>,
    ) -> Result<Vec<Held>, Cause> {
        let mut layers: Vec<Held> = Vec::new();
        for (expected, made) in made {
            let layer = match made {
                Made::Placed(layer) => layer,
                Made::Waiting { scratch, unpacked } => {
                    self.link_to_below(&expected, &scratch.path, &unpacked, &layers)?
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
        let copied = unpack::copy_up(root.as_fd(), view, &unpacked.links).map_err(failed)?;
        const CHAIN_SHOWN: usize = 32;
        let chain = Digest::of(chain.as_bytes());
        let layer = Layer {
            name: format!("{}-{}", expected.diff_id.hex(), &chain.hex()[..CHAIN_SHOWN]),
            bytes: unpacked.bytes + copied,
            inodes: unpacked.inodes + unpacked.links.len() as u64,
        };
        self.place(layer, made).map_err(&keep)
    }
}
