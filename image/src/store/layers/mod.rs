// SPDX-License-Identifier: Apache-2.0
//! Adds layers to the store.
//!
//! The rule: a layer is unpacked in `tmp` and renamed into place when it is complete and verified. A
//! layer that several images need at once is unpacked only once; the others wait.

mod directories;
mod lease;
mod locks;

pub(super) use lease::Lease;
pub(super) use locks::LayerLocks;

use super::index::record::{Blob, Layer};
use super::index::{IndexWriter, SharedIndex};
use super::integrity::Integrity;
use super::layout::Layout;
use super::scratch::Scratch;
use super::settings::LiveSettings;
use crate::digest::Digest;
use crate::error::Cause;
use crate::file_list::{self, Writer};
use crate::fs::files;
use crate::layer::progress::LayerProgress;
use crate::layer::tee_reader::TeeReader;
use crate::layer::{self, Expected};
use crate::limits::{IMPLIED_NAME_BYTES, Work};
use crate::unpack::{self, Unpacked};
use crate::view;
use directories::Below;
use hull_sys as sys;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A stored layer, or one that needs the layers below it first.
#[derive(Debug)]
pub(super) enum NewLayer {
    Stored(Lease),
    Pending { scratch: Scratch, unpacked: Unpacked },
}

pub(super) fn keep(what: &Digest) -> impl Fn(sys::Error) -> Cause + '_ {
    move |source| Cause::Keep { what: format!("layer {what}"), source }
}

/// The stored layers, and the work that adds to them.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) layout: Layout,
    pub(super) index: SharedIndex,
    pub(super) integrity: Arc<Integrity>,
    pub(super) settings: LiveSettings,
    pub(super) locks: LayerLocks,
}

impl Layers {
    /// The stored layer with this diff id, unless it is broken.
    ///
    /// A pull that names it gets it without a download: sharing layers by content, as containerd and
    /// CRI-O do, takes a diff id for the right to a layer. See "Credentials and shared layers" in
    /// docs/operate.md.
    pub(super) fn present(&self, diff_id: &Digest) -> Option<Lease> {
        if self.integrity.is_broken(diff_id.hex()) {
            return None;
        }
        self.lease(diff_id.hex()).filter(|lease| lease.layer().is_implied_known)
    }

    /// Takes a lease on a stored layer, by the name of its directory.
    pub(super) fn lease(&self, name: &str) -> Option<Lease> {
        let layer = self.index.lock().lease(name)?;
        Some(Lease::new(self.index.clone(), layer))
    }

    fn place(
        &self,
        mut layer: Layer,
        made: &Path,
        (list, digest): (Scratch, Digest),
        work: &Work,
    ) -> sys::Result<Lease> {
        layer.inventory = Some(digest.to_string());
        let known = self.index.lock().layer(&layer.name);
        // Until it is placed again, also if its last image is removed meanwhile.
        let _held = self.lease(&layer.name);
        let is_old = |known: &Layer| !known.is_implied_known;
        if known.is_some_and(|known| self.integrity.is_broken(&layer.name) || is_old(&known)) {
            // Containers may be running on its intact files.
            self.integrity.repair(&layer, made, list.path(), work)?;
            IndexWriter::begin(&self.index).repaired(&layer)?;
            tracing::info!(layer = %layer.name, "broken or older layer repaired");
        }
        let layer = IndexWriter::begin(&self.index).place(layer, made, list.path())?;
        self.integrity.clear(&layer.name);
        Ok(Lease::new(self.index.clone(), layer))
    }

    /// Unpacks a layer. Blocks.
    pub(super) fn make_layer(
        &self,
        bytes: impl Read + Send,
        expected: &Expected,
        watch: &LayerProgress,
        work: &Work,
    ) -> Result<NewLayer, Cause> {
        let keep = keep(&expected.diff_id);
        let scratch = self.layout.scratch("layer");
        files::make_dir(scratch.path(), 0o755).map_err(&keep)?;
        let root = files::open_dir(scratch.path()).map_err(&keep)?;
        let (list, mut writer) = self.begin_file_list().map_err(&keep)?;
        let limits = self.settings.current().limits;
        let again = root.try_clone().map_err(sys::Error::of_io(|| "dup()")).map_err(&keep)?;
        let kept = self.begin_blob(expected).map_err(&keep)?;
        let (blob, file) = kept.unzip();
        let bytes = TeeReader::new(bytes, file);
        let unpacked = layer::unpack(bytes, expected, root, limits, &mut writer, watch, work)?;
        if let (Some(blob), Some((digest, _))) = (&blob, &expected.blob) {
            let place = self.layout.blob(digest);
            files::rename(blob.path(), &place).map_err(&keep)?;
        }
        if unpacked.links.is_some() {
            return Ok(NewLayer::Pending { scratch, unpacked });
        }
        let list = if unpacked.replaced {
            self.list_files(again.as_fd(), expected, &unpacked.implied, work)?
        } else {
            let written = writer.finish().map_err(sys::Error::of_io(|| "write(file list)"));
            (list, written.map_err(&keep)?)
        };
        let layer = layer_of(expected, expected.diff_id.hex().to_owned(), &unpacked, 0);
        self.place(layer, scratch.path(), list, work).map(NewLayer::Stored).map_err(&keep)
    }

    /// A file for the compressed layer, if `keep_blobs` is set.
    fn begin_blob(&self, expected: &Expected) -> sys::Result<Option<(Scratch, File)>> {
        if !self.settings.current().keep_blobs || expected.blob.is_none() {
            return Ok(None);
        }
        let scratch = self.layout.scratch("blob");
        let file = files::create(scratch.path())?;
        Ok(Some((scratch, file)))
    }

    fn begin_file_list(&self) -> sys::Result<(Scratch, Writer)> {
        let scratch = self.layout.scratch("inventory");
        let file = files::create(scratch.path())?;
        let writer = Writer::new(file)
            .map_err(sys::Error::of_io(|| format!("write({})", scratch.path().display())))?;
        Ok((scratch, writer))
    }

    /// Writes the file list of a directory as it is, whatever the archive said.
    fn list_files(
        &self,
        root: BorrowedFd<'_>,
        expected: &Expected,
        implied: &[Vec<u8>],
        work: &Work,
    ) -> Result<(Scratch, Digest), Cause> {
        let keep = keep(&expected.diff_id);
        let (scratch, mut writer) = self.begin_file_list().map_err(&keep)?;
        let walked =
            file_list::walk(root, &mut writer, work, self.settings.current().limits.seconds);
        let named = walked.and_then(|()| writer.implied(implied));
        let written = named.and_then(|()| writer.finish());
        let digest = written.map_err(|err| match unpack::Error::of_work(err) {
            Ok(source) => Cause::Layer { layer: expected.diff_id.to_string(), source },
            Err(err) => {
                keep(sys::Error::of_io(|| format!("write({})", scratch.path().display()))(err))
            }
        })?;
        Ok((scratch, digest))
    }

    /// Completes the layers that need those below them, lowest first. Blocks.
    pub(super) fn complete_layers(
        &self,
        made: Vec<(Expected, NewLayer)>,
        work: &Work,
    ) -> Result<Vec<Lease>, Cause> {
        let mut layers: Vec<Lease> = Vec::new();
        for (expected, made) in made {
            let layer = match made {
                NewLayer::Stored(layer) => layer,
                NewLayer::Pending { scratch, unpacked } => {
                    self.link_to_below(&expected, scratch.path(), &unpacked, &layers, work)?
                }
            };
            layers.push(layer);
        }
        Ok(layers)
    }

    /// The layer that an image with these layers, lowest first, needs on top of them: the directories that layers
    /// imply, with their metadata from below. Blocks.
    pub(super) fn directories_layer(
        &self,
        layers: &[Lease],
        work: &Work,
    ) -> Result<Option<Lease>, Cause> {
        // An image with one layer has nothing below it.
        let implies = |of: &Lease| of.layer().implies_root || of.layer().implies_directories;
        if !layers.iter().skip(1).any(implies) {
            return Ok(None);
        }
        let Some(top) = layers.last().map(|of| of.layer().name.clone()) else { return Ok(None) };
        let failed = |source| directories::failed(&top, source);
        let (mut stack, mut names): (Vec<Below>, HashSet<&str>) = Default::default();
        let mut bytes = 0;
        for layer in layers.iter().rev().map(Lease::layer) {
            // Of a layer that comes twice the upper one hides all that the lower one has.
            if !names.insert(&layer.name) {
                continue;
            }
            let root = files::open_dir(&self.layout.layer(&layer.name));
            let root =
                root.map_err(|source| Cause::Keep { what: format!("layer {top}"), source })?;
            let implied = implied(&self.integrity, layer, &mut bytes).map_err(failed)?;
            stack.push(Below { root, implied });
        }
        stack.reverse();
        let shift = work.shift(self.settings.current().limits.seconds);
        let Some(archive) = directories::archive(&stack, &shift).map_err(failed)? else {
            return Ok(None);
        };
        let expected = Expected { blob: None, diff_id: Digest::of(&archive) };
        // Another pull may need the same one.
        let turn = self.locks.lock(expected.diff_id.hex());
        let _turn = tokio::runtime::Handle::current().block_on(turn);
        if let Some(layer) = self.present(&expected.diff_id) {
            return Ok(Some(layer));
        }
        let progress = LayerProgress::default();
        match self.make_layer(archive.as_slice(), &expected, &progress, work)? {
            NewLayer::Stored(layer) => Ok(Some(layer)),
            NewLayer::Pending { .. } => Ok(None),
        }
    }

    fn link_to_below(
        &self,
        expected: &Expected,
        made: &Path,
        unpacked: &Unpacked,
        below: &[Lease],
        work: &Work,
    ) -> Result<Lease, Cause> {
        let keep = keep(&expected.diff_id);
        let mut lower: Vec<PathBuf> = Vec::new();
        // Its content depends on all layers below it, and so does its name.
        let mut chain = String::new();
        for layer in below.iter().rev().map(Lease::layer) {
            let path = self.layout.layer(&layer.name);
            chain.push_str(&layer.name);
            if !lower.contains(&path) {
                lower.push(path);
            }
            if layer.hides_below {
                break;
            }
        }
        let view = if lower.is_empty() { None } else { Some(view::stack(&lower).map_err(&keep)?) };
        let root = files::open_dir(made).map_err(&keep)?;
        let failed = |source| Cause::Layer { layer: expected.diff_id.to_string(), source };
        let view = view.as_ref().map(std::os::fd::AsFd::as_fd);
        let limits = self.settings.current().limits;
        let shift = work.shift(limits.seconds);
        let copied = match &unpacked.links {
            Some(links) => {
                unpack::copy_up(root.as_fd(), view, links, limits, unpacked.bytes, &shift)
                    .map_err(failed)?
            }
            None => unpack::CopyCost::default(),
        };
        const CHAIN_SHOWN: usize = 32;
        let chain = Digest::of(chain.as_bytes());
        let name = format!("{}-{}", expected.diff_id.hex(), &chain.hex()[..CHAIN_SHOWN]);
        let list = self.list_files(root.as_fd(), expected, &unpacked.implied, work)?;
        let layer = layer_of(expected, name, unpacked, copied.bytes);
        self.place(layer, made, list, work).map_err(&keep)
    }
}

/// The directories that a layer implies but does not list. `bytes` counts what those of all layers take.
fn implied(
    integrity: &Integrity,
    layer: &Layer,
    bytes: &mut u64,
) -> Result<HashSet<Vec<u8>>, unpack::Error> {
    let failed = unpack::Error::of_read;
    let mut implied = HashSet::new();
    if layer.implies_root {
        implied.insert(Vec::new());
    }
    let list =
        if layer.implies_directories { integrity.file_list(layer).map_err(failed)? } else { None };
    for path in list.into_iter().flat_map(file_list::implied) {
        let path = path.map_err(failed)?;
        let max = IMPLIED_NAME_BYTES.default;
        unpack::charge(&IMPLIED_NAME_BYTES, bytes, unpack::cost(&path), max)?;
        implied.insert(path);
    }
    Ok(implied)
}

fn layer_of(expected: &Expected, name: String, unpacked: &Unpacked, copied: u64) -> Layer {
    let blob = expected.blob.as_ref();
    Layer {
        name,
        bytes: unpacked.bytes + copied,
        inodes: unpacked.inodes + unpacked.links.as_ref().map_or(0, unpack::Links::count),
        blob: blob.map(|(digest, bytes)| Blob { digest: digest.to_string(), bytes: *bytes }),
        inventory: None,
        implies_root: unpacked.implied.iter().any(Vec::is_empty),
        implies_directories: unpacked.implied.iter().any(|path| !path.is_empty()),
        is_implied_known: true,
        hides_below: unpacked.hides_below,
    }
}
