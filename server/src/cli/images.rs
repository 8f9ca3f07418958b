// SPDX-License-Identifier: Apache-2.0
//! `hull images`, `rmi`, `tag` and `history`.

use super::args::images::{History, Tag};
use super::args::{Images, Rmi};
use super::client::Client;
use super::error::{Error, Result};
use super::failures::Failures;
use super::format::{self, Field, Kind, Kinds, Row};
use super::names::Objects;
use super::ps::row;
use super::{output, verbose};
use hull_proto::admin;
use hull_proto::cri as api;
use hull_sys::time::parse_rfc3339;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The fields of images.
pub(crate) const IMAGES: Kinds = Kinds {
    verb: "images",
    fields: &[
        Field::always(
            "name",
            "IMAGE",
            Kind::Text,
            "Name with tag, else with digest; one row per name.",
        ),
        Field::always("id", "ID", Kind::Id, "Id of the image: the digest of its configuration."),
        Field::always("created", "CREATED", Kind::Time, "Time of creation, as the image says."),
        Field::always(
            "size",
            "SIZE",
            Kind::Bytes,
            "Size of its layers in bytes; they may be shared.",
        ),
        Field::always("pinned", "PINNED", Kind::Flag, "Whether it is never removed as unused."),
        Field::wide(
            "digest",
            "DIGEST",
            Kind::Id,
            "Digest of its manifest in the registry; empty if it came from an archive.",
        ),
        Field::wide("platform", "PLATFORM", Kind::Word, "Platform: OS/ARCHITECTURE."),
        Field::never("names", Kind::List, "All names with tags."),
        Field::never("digests", Kind::List, "All names with digests."),
        Field::never("user", Kind::Text, "User that it runs as; empty is root."),
    ],
    id: "id",
    name: "name",
};

/// The fields of the steps of an image.
pub(crate) const STEPS: Kinds = Kinds {
    verb: "history",
    fields: &[
        Field::always("created", "CREATED", Kind::Time, "Time of the step, as the image says."),
        Field::always("createdBy", "CREATED BY", Kind::Text, "Command of the step."),
        Field::always(
            "layer",
            "LAYER",
            Kind::Id,
            "Diff id of the layer that it made; empty if it made none.",
        ),
        Field::wide("comment", "COMMENT", Kind::Text, "Comment."),
        Field::never("empty", Kind::Flag, "Whether the step made no layer."),
    ],
    id: "layer",
    name: "layer",
};

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

/// Lists all images of the node.
pub(crate) async fn all(client: &mut Client) -> Result<Vec<api::Image>> {
    Ok(client.images.list_images(api::ListImagesRequest::default()).await?.into_inner().images)
}

/// Lists the images.
pub(crate) async fn list(mut client: Client, args: &Images) -> Result<()> {
    let mut images = match &args.image {
        None => all(&mut client).await?,
        Some(name) => selected(&mut client, name).await?,
    };
    images.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    let mut rows = Vec::new();
    for image in &images {
        let info = info(&mut client, &image.id).await;
        let names = names(image);
        // Ids are the same for all names.
        let count = if args.list.quiet { 1 } else { names.len() };
        rows.extend(names.iter().take(count).map(|name| image_row(image, name, &info)));
    }
    format::list(&IMAGES, rows, &args.list)
}

/// The image with this name or id, else the images with this part in a name.
async fn selected(client: &mut Client, name: &str) -> Result<Vec<api::Image>> {
    // A part of a name need not be a name.
    if let Ok(Some(answer)) = find(client, name).await {
        return Ok(answer.image.into_iter().collect());
    }
    let mut images = all(client).await?;
    images.retain(|of| of.repo_tags.iter().chain(&of.repo_digests).any(|has| has.contains(name)));
    if images.is_empty() {
        return Err(Error::NotFound { kind: "image", name: name.to_owned() });
    }
    Ok(images)
}

/// Verbose information about an image; null if it was removed meanwhile.
async fn info(client: &mut Client, id: &str) -> Value {
    let found = find(client, id).await.ok().flatten();
    found.and_then(|of| verbose::info(&of.info, "describe the image").ok()).unwrap_or_default()
}

fn image_row(image: &api::Image, name: &str, info: &Value) -> Row {
    let config = &info["imageSpec"];
    let digest = image.repo_digests.first().and_then(|of| of.split_once('@'));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (os, architecture) = (text(&config["os"]), text(&config["architecture"]));
    let created = config["created"].as_str().and_then(parse_rfc3339).unwrap_or(0);
    let user = match &image.uid {
        Some(uid) => uid.value.to_string(),
        None => image.username.clone(),
    };
    row(json!({
        "name": name,
        "id": image.id,
        "created": format::time(created),
        "size": image.size,
        "pinned": image.pinned,
        "digest": digest.map_or("", |(_, digest)| digest),
        "platform": if os.is_empty() { String::new() } else { format!("{os}/{architecture}") },
        "names": image.repo_tags,
        "digests": image.repo_digests,
        "user": user,
    }))
}

/// The names of an image: its tags, else its digests.
fn names(image: &api::Image) -> Vec<String> {
    match (image.repo_tags.as_slice(), image.repo_digests.as_slice()) {
        ([], []) => vec!["-".into()],
        ([], digests) => digests.to_vec(),
        (tags, _) => tags.to_vec(),
    }
}

/// One name of an image: a tag, else one with a digest, else its id.
pub(crate) fn display_name(image: &api::Image) -> String {
    let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
    names.into_iter().next().cloned().unwrap_or_default()
}

/// Removes names of images; an image goes with its last tag, or by its id. A missing image is an error, because it is
/// probably misspelt.
pub(crate) async fn remove(mut client: Client, args: &Rmi) -> Result<()> {
    let images = match (args.all, args.prune) {
        (false, false) => args.images.clone(),
        (all, _) => removable(&mut client, all).await?,
    };
    let mut failures = Failures::default();
    for name in &images {
        failures.outcome(name, untag(&mut client, name).await)?;
    }
    failures.result()
}

async fn untag(client: &mut Client, name: &str) -> Result<()> {
    if find(client, name).await?.is_none() {
        return Err(Error::NotFound { kind: "image", name: name.to_owned() });
    }
    client.admin.untag(admin::UntagRequest { image: name.to_owned() }).await?;
    Ok(())
}

/// The ids of all images, or of those that no container uses. Pinned ones stay.
async fn removable(client: &mut Client, all_of_them: bool) -> Result<Vec<String>> {
    let objects = Objects::fetch(client).await?;
    let used = if all_of_them { BTreeSet::new() } else { used(&objects) };
    let images = all(client).await?.into_iter().filter(|image| is_unused(image, &used));
    Ok(images.map(|image| image.id).collect())
}

/// The ids and names of images that containers use.
pub(crate) fn used(objects: &Objects) -> BTreeSet<&str> {
    objects
        .containers
        .iter()
        .flat_map(|of| [of.image_id.as_str(), of.image_ref.as_str()])
        .filter(|id| !id.is_empty())
        .collect()
}

/// Whether an image is neither used nor pinned.
pub(crate) fn is_unused(image: &api::Image, used: &BTreeSet<&str>) -> bool {
    let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
    !image.pinned && !names.into_iter().any(|name| used.contains(name.as_str()))
}

/// Whether an image has no tag, as after another one took its name.
pub(crate) fn is_dangling(image: &api::Image) -> bool {
    image.repo_tags.is_empty()
}

/// Gives an image other names.
pub(crate) async fn tag(mut client: Client, args: &Tag) -> Result<()> {
    for name in &args.names {
        let request = admin::TagRequest {
            image: args.image.clone(),
            name: name.clone(),
            // As docker has it, the name moves from another image.
            force: true,
        };
        let tagged = client.admin.tag(request).await?.into_inner();
        output::line(&tagged.name)?;
    }
    Ok(())
}

/// Lists the steps by which an image was made, the last one first.
pub(crate) async fn history(mut client: Client, args: &History) -> Result<()> {
    let Some(found) = find(&mut client, &args.image).await? else {
        return Err(Error::NotFound { kind: "image", name: args.image.clone() });
    };
    let info = verbose::info(&found.info, "list the steps of the image")?;
    format::list(&STEPS, steps(&info["imageSpec"]), &args.list)
}

fn steps(config: &Value) -> Vec<Row> {
    let mut layers = config["rootfs"]["diff_ids"].as_array().into_iter().flatten();
    let mut rows = Vec::new();
    for step in config["history"].as_array().into_iter().flatten() {
        let empty = step["empty_layer"].as_bool().unwrap_or(false);
        let layer = if empty { None } else { layers.next() };
        let created = step["created"].as_str().and_then(parse_rfc3339).unwrap_or(0);
        let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        rows.push(row(json!({
            "created": format::time(created),
            "createdBy": text("created_by"),
            "layer": layer.and_then(Value::as_str).unwrap_or_default(),
            "comment": text("comment"),
            "empty": empty,
        })));
    }
    // An image need not say how it was made.
    for layer in layers {
        rows.push(row(json!({
            "created": "", "createdBy": "", "layer": layer, "comment": "", "empty": false,
        })));
    }
    rows.reverse();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, pinned: bool) -> api::Image {
        api::Image {
            id: id.into(),
            repo_tags: vec![format!("{id}:1")],
            pinned,
            ..Default::default()
        }
    }

    #[test]
    fn images_of_containers_and_pinned_ones_stay() {
        let container = api::Container { image_id: "a".into(), ..Default::default() };
        let objects = Objects { pods: Vec::new(), containers: vec![container] };
        let used = used(&objects);
        assert!(!is_unused(&image("a", false), &used));
        assert!(is_unused(&image("b", false), &used));
        assert!(!is_unused(&image("b", true), &used));
        assert!(!is_dangling(&image("b", false)));
        let digests = vec!["b@sha256:0".to_owned()];
        let untagged = api::Image { repo_digests: digests, ..Default::default() };
        assert!(is_dangling(&untagged) && is_unused(&untagged, &used));
    }

    #[test]
    fn steps_have_their_layers_and_layers_without_a_step_are_listed() {
        let config = json!({
            "rootfs": {"diff_ids": ["sha256:a", "sha256:b", "sha256:c"]},
            "history": [
                {"created_by": "ADD", "created": "1970-01-01T00:00:01Z"},
                {"created_by": "ENV", "empty_layer": true},
                {"created_by": "RUN"},
            ],
        });
        let layers: Vec<_> = steps(&config)
            .iter()
            .map(|row| (row["createdBy"].clone(), row["layer"].clone()))
            .collect();
        let pair = |by: &str, layer: &str| (json!(by), json!(layer));
        let expected = [
            pair("", "sha256:c"),
            pair("RUN", "sha256:b"),
            pair("ENV", ""),
            pair("ADD", "sha256:a"),
        ];
        assert_eq!(layers, expected);
    }
}
