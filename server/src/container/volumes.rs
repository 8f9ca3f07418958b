// SPDX-License-Identifier: Apache-2.0
//! Image volumes: the images that the mounts of a container name.
//!
//! The rule: a name is looked up once, when the container is made, and its record keeps the id. So a
//! tag that moves later changes nothing, and no image goes while a record names it. What is mounted
//! lives in the container's own mount namespace: there is nothing to remove.

use super::record::{ContainerRecord, ImageVolume};
use crate::error::Error;
use crate::node::Node;
use crate::oci_spec;
use hull_image::{Image, Kind};
use hull_plan::Source;
use hull_proto::cri;
use std::os::fd::AsFd as _;
use std::sync::Arc;

/// Finds the images that a config's mounts name.
pub(crate) fn find(node: &Node, config: &cri::ContainerConfig) -> Result<Vec<ImageVolume>, Error> {
    let mut found = Vec::new();
    for (mount, of) in config.mounts.iter().enumerate() {
        let Some(spec) = &of.image else { continue };
        if spec.image.is_empty() {
            let field = "config.mounts.image.image";
            return Err(Error::Invalid { field, why: "it is empty".into() });
        }
        let image = image(node, &spec.image)?;
        found.push(ImageVolume { mount, image_id: image.id.clone() });
    }
    Ok(found)
}

/// Refuses what could not be mounted later: a broken layer, a sub-path that its image does not have.
pub(crate) fn check(node: &Node, record: &ContainerRecord) -> Result<(), Error> {
    for volume in &record.image_volumes {
        let path = sub_path(record, volume);
        let image = image(node, &volume.image_id)?;
        let failed = |source| Error::Image { image: image.id.clone(), source };
        node.images.check_layers(&image).map_err(failed)?;
        if path.is_empty() {
            continue;
        }
        let view = hull_image::view(&image.layers).map_err(failed)?;
        let why = match hull_image::kind_inside(view.as_fd(), path).map_err(failed)? {
            Some(Kind::Directory | Kind::File) => continue,
            Some(Kind::Other) => "it is neither a directory nor a regular file",
            None => "the image has no such file or directory",
        };
        return Err(Error::SubPath { image: image.id.clone(), path: path.to_owned(), why });
    }
    Ok(())
}

/// The mount sources that stand for the image volumes in the spec.
pub(crate) fn sources(
    node: &Node,
    record: &ContainerRecord,
) -> Result<Vec<(String, Source)>, Error> {
    let mut sources = Vec::new();
    for volume in &record.image_volumes {
        let image = image(node, &volume.image_id)?;
        let layers = node.images.volume_layers(&image);
        let source = Source::Image {
            lower: layers.iter().map(|layer| layer.to_string_lossy().into_owned()).collect(),
            path: sub_path(record, volume).to_owned(),
            at: node.rootfs_dir().to_string_lossy().into_owned(),
        };
        sources.push((oci_spec::image_source(volume.mount), source));
    }
    Ok(sources)
}

/// The mounts as they were asked for, with the images that were found.
pub(crate) fn shown(record: &ContainerRecord) -> Vec<cri::Mount> {
    let mut mounts = record.config.mounts.clone();
    for volume in &record.image_volumes {
        if let Some(spec) = mounts.get_mut(volume.mount).and_then(|mount| mount.image.as_mut()) {
            spec.image_ref.clone_from(&volume.image_id);
        }
    }
    mounts
}

fn sub_path<'a>(record: &'a ContainerRecord, volume: &ImageVolume) -> &'a str {
    record.config.mounts.get(volume.mount).map_or("", |mount| mount.image_sub_path.as_str())
}

fn image(node: &Node, name: &str) -> Result<Arc<Image>, Error> {
    node.images.find(name).ok_or_else(|| Error::NoImage { image: name.to_owned() })
}
