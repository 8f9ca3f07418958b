// SPDX-License-Identifier: Apache-2.0
//! The images that `hull pull` and `hull import` stored, as objects.

use super::client::Client;
use super::error::{Error, Result};
use super::format::{Field, Kind, Kinds, OutputArgs, Row};
use super::ps::row;
use super::{images, verbose};
use hull_proto::cri as api;
use serde_json::{Value, json};

/// The fields of a stored image.
const FIELDS: &[Field] = &[
    Field::always("name", "IMAGE", Kind::Text, "Name in full; empty for an image without one."),
    Field::always("id", "ID", Kind::Id, "Id of the image: the digest of its configuration."),
    Field::always(
        "digest",
        "DIGEST",
        Kind::Id,
        "Digest of its manifest; empty if its name has none.",
    ),
    Field::always("size", "SIZE", Kind::Bytes, "Bytes of its layers on the disk."),
    Field::never("layers", Kind::List, "Digests of its layers, uncompressed, the lowest first."),
    Field::never("names", Kind::List, "All its names with tags."),
];

/// The fields of pulled images.
pub(crate) const PULLED: Kinds = Kinds { verb: "pull", fields: FIELDS, id: "id", name: "name" };
/// The fields of imported images.
pub(crate) const IMPORTED: Kinds = Kinds { verb: "import", fields: FIELDS, id: "id", name: "name" };

/// Whether objects are printed, instead of the line of a command.
pub(crate) fn is_selected(args: &OutputArgs) -> bool {
    args.output.is_some() || args.format.is_some()
}

/// The object of the image with this id.
pub(crate) async fn of(client: &mut Client, id: &str, name: &str) -> Result<Row> {
    let missing = || Error::NotFound { kind: "image", name: id.to_owned() };
    let found = images::find(client, id).await?.ok_or_else(missing)?;
    let info = verbose::info(&found.info, "describe the image")?;
    Ok(described(&found.image.ok_or_else(missing)?, name, &info))
}

fn described(image: &api::Image, name: &str, info: &Value) -> Row {
    let repository = hull_image::Reference::parse(name).ok().map(|of| of.to_string());
    let name = repository.as_deref().unwrap_or(name);
    // The digest that this name has, if several repositories have the image.
    let digests = image.repo_digests.iter().filter_map(|of| of.split_once('@'));
    let is_own = |(of, _): &(&str, &str)| {
        name.strip_prefix(*of).is_some_and(|rest| rest.starts_with([':', '@']))
    };
    let digest = digests.clone().find(is_own).or_else(|| digests.clone().next());
    row(json!({
        "name": name,
        "id": image.id,
        "digest": digest.map_or("", |(_, digest)| digest),
        "size": image.size,
        "layers": info["imageSpec"]["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default(),
        "names": image.repo_tags,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_the_digest_of_its_own_name() {
        let image = api::Image {
            id: "sha256:a".into(),
            repo_tags: vec!["r.io/b:1".into()],
            repo_digests: vec!["r.io/a@sha256:1".into(), "r.io/b@sha256:2".into()],
            size: 7,
            ..Default::default()
        };
        let info = json!({"imageSpec": {"rootfs": {"diff_ids": ["sha256:x", "sha256:y"]}}});
        let row = described(&image, "r.io/b:1", &info);
        assert_eq!(row["digest"], "sha256:2");
        assert_eq!(row["layers"], json!(["sha256:x", "sha256:y"]));
        let keys = PULLED.fields.iter().map(|field| field.key);
        assert!(keys.into_iter().all(|key| row.contains_key(key)) && row.len() == FIELDS.len());
        assert_eq!(described(&image, "", &Value::Null)["digest"], "sha256:1");
    }
}
