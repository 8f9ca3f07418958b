// SPDX-License-Identifier: Apache-2.0
//! Makes the layers of new images durable, then lists the images.

use super::index::record::Record;
use super::index::{IndexWriter, NewImage};
use super::layers::{Layers, Lease, NewLayer};
use crate::digest::Digest;
use crate::error::Cause;
use crate::fs::files;
use crate::layer::Expected;
use crate::limits::{LAYERS, Work};
use crate::types::{Image, Platform};
use std::collections::HashSet;
use std::sync::Arc;

/// A complete image that is to be made durable and listed.
pub(super) struct CompleteImage {
    pub(super) id: Digest,
    /// The config, byte for byte.
    pub(super) config: String,
    /// The layers, lowest first.
    pub(super) made: Vec<(Expected, NewLayer)>,
    pub(super) tags: Vec<String>,
    pub(super) digest: Option<String>,
    pub(super) platform: Platform,
}

/// Makes the layers durable and lists their images. Blocks.
pub(super) fn commit(
    layers: &Layers,
    ready: Vec<CompleteImage>,
    work: &Work,
) -> Result<Vec<Arc<Image>>, Cause> {
    let what = match ready.as_slice() {
        [only] => format!("image {}", only.id),
        many => format!("{} images", many.len()),
    };
    let keep = |source| Cause::Keep { what: what.clone(), source };
    let (mut new, mut leases) = (Vec::new(), Vec::new());
    for CompleteImage { id, config, made, tags, digest, platform } in ready {
        let complete = layers.complete_layers(made, work)?;
        let directories = layers.directories_layer(&complete, work)?;
        can_be_mounted(&complete, directories.as_ref())?;
        let records = complete.iter().map(|of| of.layer().clone()).collect();
        let top = directories.as_ref().map(|of| of.layer().clone());
        let record = Record::new(&id, config, records, top, platform);
        new.push(NewImage { record, tags, digest });
        leases.extend(complete.into_iter().chain(directories));
    }
    let directory = layers.layout.path("layers");
    files::open_dir(&directory).and_then(|fd| files::sync_all(&fd, &directory)).map_err(keep)?;
    let (images, unneeded) = {
        let mut writer = IndexWriter::begin(&layers.index);
        (writer.add(new).map_err(keep)?, writer.collect())
    };
    drop(leases);
    // The images are listed. What cannot be removed now is removed when the store is opened.
    let removed = unneeded
        .and_then(|all| all.iter().try_for_each(|directory| hull_sys::remove_tree(directory)));
    if let Err(err) = removed {
        tracing::warn!(error = %err, "unreferenced layers left behind");
    }
    Ok(images)
}

/// Refuses an image that has more layers than overlayfs can stack.
fn can_be_mounted(layers: &[Lease], directories: Option<&Lease>) -> Result<(), Cause> {
    let names: HashSet<&str> =
        layers.iter().chain(directories).map(|of| of.layer().name.as_str()).collect();
    let max = LAYERS.count();
    if names.len() <= max {
        return Ok(());
    }
    let why = format!(
        "{} layers, one of them for the owners and modes of directories that others imply, more than the {max} \
         that can be mounted",
        names.len()
    );
    Err(Cause::Document { what: "the image".into(), why })
}
