// SPDX-License-Identifier: Apache-2.0
//! `hull images` and `hull rmi`.

use super::args::{Images, Rmi};
use super::client::Client;
use super::error::{Error, Result};
use super::output::{self, Table};
use hull_proto::admin;
use hull_proto::cri as api;

fn named(image: &str) -> api::ImageSpec {
    api::ImageSpec { image: image.to_owned(), ..Default::default() }
}

/// Finds an image by name, with verbose information.
pub(crate) async fn find(
    client: &mut Client,
    name: &str,
) -> Result<Option<api::ImageStatusResponse>> {
    let request = api::ImageStatusRequest { image: Some(named(name)), verbose: true };
    let answer = client.images.image_status(request).await?.into_inner();
    Ok(answer.image.is_some().then_some(answer))
}

/// Lists the images.
pub(crate) async fn list(mut client: Client, args: &Images) -> Result<()> {
    let filter = args.image.as_deref().map(|image| api::ImageFilter { image: Some(named(image)) });
    let request = api::ListImagesRequest { filter };
    let mut images = client.images.list_images(request).await?.into_inner().images;
    if let (Some(name), true) = (&args.image, images.is_empty()) {
        return Err(Error::NotFound { kind: "image", name: name.clone() });
    }
    if args.quiet {
        return output::print(
            &images.iter().map(|image| format!("{}\n", image.id)).collect::<String>(),
        );
    }
    images.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    let mut table = Table::new(&["IMAGE", "ID", "SIZE", "PINNED"]);
    for image in &images {
        for name in names(image) {
            let pinned = if image.pinned { "yes" } else { "" };
            table.row([name, output::short(&image.id), output::bytes(image.size), pinned.into()]);
        }
    }
    output::print(&table.shown())
}

/// The names of an image: its tags, else its digests.
fn names(image: &api::Image) -> Vec<String> {
    match (image.repo_tags.as_slice(), image.repo_digests.as_slice()) {
        ([], []) => vec!["-".into()],
        ([], digests) => digests.to_vec(),
        (tags, _) => tags.to_vec(),
    }
}

/// Removes names of images; an image goes with its last tag, or by its id. A missing image is an error, because it is
/// probably misspelt.
pub(crate) async fn remove(mut client: Client, args: &Rmi) -> Result<()> {
    for name in &args.images {
        if find(&mut client, name).await?.is_none() {
            return Err(Error::NotFound { kind: "image", name: name.clone() });
        }
        client.admin.untag(admin::UntagRequest { image: name.clone() }).await?;
        output::line(name)?;
    }
    Ok(())
}
