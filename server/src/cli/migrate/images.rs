// SPDX-License-Identifier: Apache-2.0
//! Sends images to the daemon, which verifies and stores them as `hull import` does.

use super::super::archives;
use super::super::client::Client;
use super::super::error::{Error, Result, chain};
use super::super::output;
use super::archive::Archive;
use super::findings::Noted;
use super::root::Root;
use super::source_image::SourceImage;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Imports the images one by one, and prints each that was imported. Returns the others, with the reason.
///
/// # Errors
/// The daemon cannot be reached, or nobody reads the output.
pub(crate) async fn take_over(
    mut client: Client,
    root: &Arc<Root>,
    images: &[SourceImage],
) -> Result<Vec<Noted>> {
    let (mut failed, mut sent) = (Vec::new(), HashSet::new());
    let there = names(&mut client).await?;
    for image in images {
        let mut image = image.clone();
        for (name, id) in image.keep_names(&there) {
            output::line(&format!("  {name}: stays the name of {id}, which Hull has already"))?;
        }
        if image.imports.is_empty() {
            continue;
        }
        match imported(&mut client, root, &image, &mut sent).await {
            Ok(()) => {
                output::line(&format!("  {}: {}", image.name, output::bytes(image.bytes())))?;
            }
            Err(err @ Error::Channel { .. }) => return Err(err),
            Err(err) => failed.push(Noted { name: image.name.clone(), why: chain(&err) }),
        }
    }
    Ok(failed)
}

/// The names of the daemon's images, with the id of each.
async fn names(client: &mut Client) -> Result<HashMap<String, String>> {
    let all = super::super::images::all(client).await?;
    let names = all.into_iter().flat_map(|image| {
        let id = image.id;
        image.repo_tags.into_iter().chain(image.repo_digests).map(move |name| (name, id.clone()))
    });
    Ok(names.collect())
}

/// Imports one image under all of its names. `sent` has the layers that the daemon has.
async fn imported(
    client: &mut Client,
    root: &Arc<Root>,
    image: &SourceImage,
    sent: &mut HashSet<String>,
) -> Result<()> {
    for import in &image.imports {
        let archive = Archive::of(root, image, import, sent);
        let archive = archive.map_err(Error::io("lay out the archive of the image"))?;
        let shown = format!("the image {}", image.name);
        let answer = archives::sent(client, Box::new(archive), shown, String::new()).await?;
        if answer.images.is_empty() {
            let left = answer.left.into_iter().next().map(|of| of.why).unwrap_or_default();
            return Err(Error::Daemon { message: left, hint: None });
        }
        sent.extend(image.layers.iter().map(|layer| layer.entry.clone()));
    }
    Ok(())
}
