// SPDX-License-Identifier: Apache-2.0
//! Manifests, indexes and configs as they come from registries and archives.
//!
//! The rule: only what is needed is read, every digest in it is checked for form, every list has a
//! limit. Addresses (`urls`) that a document names for downloads are not even read.

pub(crate) mod platform;

use crate::digest::Digest;
use crate::error::{Cause, NAME_MAX, shown};
use crate::limits::{self, DOCUMENT_VALUES};
use oci_spec::image::ImageConfiguration;
use platform::{Machine, Platform};
use serde::Deserialize;

/// The largest manifest or index. Registries refuse larger ones too.
pub(crate) const MANIFEST_BYTES_MAX: u64 = limits::MANIFEST_BYTES.default;
/// The largest config.
pub(crate) const CONFIG_BYTES_MAX: u64 = limits::CONFIG_BYTES.default;
/// The largest number of layers that overlayfs stacks.
const LAYERS_MAX: usize = limits::LAYERS.count();
/// The largest depth of nested indexes.
pub(crate) const INDEX_DEPTH_MAX: usize = 4;

/// The `Accept` header for manifests.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// A blob by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    pub(crate) platform: Option<Platform>,
    /// The names that archives give to an image.
    pub(crate) names: Vec<String>,
}

/// A parsed manifest or index.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    /// The one of its images that is for this machine, or another index.
    Index(Descriptor),
}

/// An image: its config and its layers, lowest first.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<RawDescriptor>,
    #[serde(default)]
    layers: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    manifests: Option<Vec<RawDescriptor>>,
}

impl RawDescriptor {
    fn check(self, what: &str) -> Result<Descriptor, Cause> {
        let digest = Digest::parse(&self.digest).ok_or_else(|| Cause::Document {
            what: what.to_owned(),
            why: format!("`{}` is not a sha256 or sha512 digest", shown(&self.digest, NAME_MAX)),
        })?;
        let mut names = Vec::new();
        for key in ["io.containerd.image.name", "org.opencontainers.image.ref.name"] {
            names.extend(self.annotations.as_ref().and_then(|of| of.get(key)).cloned());
        }
        Ok(Descriptor {
            digest,
            size: self.size,
            media_type: self.media_type,
            platform: self.platform,
            names,
        })
    }

    fn is_attestation(&self) -> bool {
        let kind = self.annotations.as_ref().and_then(|of| of.get("vnd.docker.reference.type"));
        kind.is_some_and(|kind| kind == "attestation-manifest")
    }
}

fn read(bytes: &[u8], what: &str) -> Result<Raw, Cause> {
    few_values(bytes, what)?;
    serde_json::from_slice(bytes)
        .map_err(|err| Cause::Document { what: what.to_owned(), why: err.to_string() })
}

/// Refuses JSON whose values take many times its bytes in memory. Commas and brackets within strings count
/// too, which is still far more than any image has.
pub(crate) fn few_values(bytes: &[u8], what: &str) -> Result<(), Cause> {
    let max = DOCUMENT_VALUES.default;
    let values = bytes.iter().filter(|byte| matches!(byte, b',' | b'{' | b'[')).count();
    if values as u64 <= max {
        return Ok(());
    }
    let name = DOCUMENT_VALUES.name;
    let why = format!("it has more than the {max} values that are allowed (`{name}`)");
    Err(Cause::Document { what: what.to_owned(), why })
}

/// Reads a manifest or an index, and chooses from an index.
pub(crate) fn parse(bytes: &[u8], what: &str, machine: &Machine) -> Result<Document, Cause> {
    let raw = read(bytes, what)?;
    if raw.schema_version == 1 {
        let why = "it is in Docker's first format, which registries no longer accept: push the image again".into();
        return Err(Cause::Document { what: what.to_owned(), why });
    }
    if let Some(manifests) = raw.manifests {
        return choose(manifests, what, machine).map(Document::Index);
    }
    let (Some(config), Some(layers)) = (raw.config, raw.layers) else {
        let media_type = raw.media_type.unwrap_or_else(|| "a document of an unknown kind".into());
        return Err(Cause::NotAnImage { media_type });
    };
    let config = config.check(what)?;
    if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
        return Err(Cause::NotAnImage { media_type: config.media_type });
    }
    if layers.len() > LAYERS_MAX {
        let why =
            format!("{} layers, more than the {LAYERS_MAX} that can be mounted", layers.len());
        return Err(Cause::Document { what: what.to_owned(), why });
    }
    let layers: Result<Vec<Descriptor>, Cause> =
        layers.into_iter().map(|layer| layer.check(what)).collect();
    let layers = layers?;
    if let Some(foreign) = layers.iter().find(|of| of.media_type.contains("foreign")) {
        let why = format!(
            "layer {} is a foreign one, which only its vendor gives out, and only for Windows",
            foreign.digest
        );
        return Err(Cause::Document { what: what.to_owned(), why });
    }
    Ok(Document::Manifest(Manifest { config, layers }))
}

/// The images of an archive's index, without a choice.
pub(crate) fn parse_layout(bytes: &[u8]) -> Result<Vec<Descriptor>, Cause> {
    let raw = read(bytes, "index.json")?;
    let manifests = raw.manifests.unwrap_or_default();
    manifests
        .into_iter()
        .filter(|of| !of.is_attestation())
        .map(|of| of.check("index.json"))
        .collect()
}

/// The layers of an artifact that carry the annotation `key`, and what it says.
pub(crate) fn parse_signatures(
    bytes: &[u8],
    key: &str,
) -> Result<Vec<(Descriptor, String)>, Cause> {
    const WHAT: &str = "the signatures";
    let mut found = Vec::new();
    for layer in read(bytes, WHAT)?.layers.unwrap_or_default() {
        let value = layer.annotations.as_ref().and_then(|of| of.get(key)).cloned();
        if let Some(value) = value {
            found.push((layer.check(WHAT)?, value));
        }
    }
    Ok(found)
}

fn choose(
    manifests: Vec<RawDescriptor>,
    what: &str,
    machine: &Machine,
) -> Result<Descriptor, Cause> {
    let mut there = Vec::new();
    for raw in manifests.into_iter().filter(|raw| !raw.is_attestation()) {
        there.push(raw.check(what)?);
    }
    let detail = there.iter().filter_map(|of| Some((of.platform.as_ref()?, of)));
    if let Some(best) = machine.best(detail) {
        return Ok(best.clone());
    }
    // An entry that does not say its platform may be for us: its config will tell.
    let unsaid =
        |of: &&Descriptor| of.platform.is_none() || INDEX_TYPES.contains(&of.media_type.as_str());
    if let Some(of) = there.iter().find(unsaid) {
        return Ok(of.clone());
    }
    let mut platforms: Vec<String> =
        there.iter().filter_map(|of| of.platform.as_ref()).map(Platform::shown).collect();
    platforms.dedup();
    let there = if platforms.is_empty() { "nothing".into() } else { platforms.join(", ") };
    Err(Cause::Platform { want: machine.shown(), there })
}

/// The part of an image's config that a pull needs: the diff ids of its layers, lowest first.
#[derive(Debug, Clone)]
pub(crate) struct ImageConfig {
    pub(crate) diff_ids: Vec<Digest>,
}

/// Reads a config and checks that it is for this machine.
pub(crate) fn parse_config(bytes: &[u8], machine: &Machine) -> Result<ImageConfig, Cause> {
    const WHAT: &str = "the image's config";
    let wrong = |why: String| Cause::Document { what: WHAT.into(), why };
    few_values(bytes, WHAT)?;
    let platform: Platform = serde_json::from_slice(bytes).map_err(|err| wrong(err.to_string()))?;
    // Machine-made images of long ago do not say what they are for.
    let is_said = !platform.os.is_empty() && !platform.architecture.is_empty();
    if is_said && machine.rank(&platform).is_none() {
        return Err(Cause::Platform { want: machine.shown(), there: platform.shown() });
    }
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|err| wrong(err.to_string()))?;
    let diff_ids: Result<Vec<Digest>, Cause> = config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|text| {
            Digest::parse(text).ok_or_else(|| {
                wrong(format!("diff id `{}` is not a digest", shown(text, NAME_MAX)))
            })
        })
        .collect();
    Ok(ImageConfig { diff_ids: diff_ids? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(b"x").as_str(), "size": 1})
    }

    fn parsed(value: &Value) -> Result<Document, Cause> {
        parse(value.to_string().as_bytes(), "the manifest", &Machine::this())
    }

    #[test]
    fn manifests_of_both_kinds_are_read_and_artifacts_are_named() {
        for config in CONFIG_TYPES {
            let manifest = json!({"schemaVersion": 2, "config": descriptor(config), "layers": [descriptor("l")]});
            assert!(
                matches!(parsed(&manifest), Ok(Document::Manifest(of)) if of.layers.len() == 1)
            );
        }
        let chart = "application/vnd.cncf.helm.config.v1+json";
        let err = parsed(&json!({"config": descriptor(chart), "layers": []})).unwrap_err();
        assert!(matches!(err, Cause::NotAnImage { media_type } if media_type == chart));
        let err = parsed(&json!({"schemaVersion": 1, "fsLayers": []})).unwrap_err();
        assert!(err.to_string().contains("push the image again"), "{err}");
    }

    #[test]
    fn a_foreign_layer_is_refused_by_name() {
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let manifest =
            json!({"config": descriptor(CONFIG_TYPES[0]), "layers": [descriptor(foreign)]});
        let err = parsed(&manifest).unwrap_err().to_string();
        assert!(err.contains("foreign"), "{err}");
    }

    #[test]
    fn a_digest_that_climbs_is_refused() {
        let mut config = descriptor(CONFIG_TYPES[0]);
        config["digest"] = json!("sha256:../../etc/passwd");
        assert!(parsed(&json!({"config": config, "layers": []})).is_err());
    }

    #[test]
    fn attestations_are_no_images_and_what_there_is_is_listed() {
        let entry = |os: &str, architecture: &str| {
            let mut of = descriptor("application/vnd.oci.image.manifest.v1+json");
            of["platform"] = json!({"os": os, "architecture": architecture});
            of
        };
        let mut attestation = entry("unknown", "unknown");
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        let index =
            json!({"manifests": [entry("linux", "s390x"), entry("windows", "amd64"), attestation]});
        let err = parsed(&index).unwrap_err().to_string();
        assert!(err.ends_with("only for linux/s390x, windows/amd64"), "{err}");
    }

    #[test]
    fn a_config_for_another_machine_is_refused() {
        let config = json!({"os": "linux", "architecture": "s390x", "rootfs": {"type": "layers", "diff_ids": []}});
        let err = parse_config(config.to_string().as_bytes(), &Machine::this()).unwrap_err();
        assert!(matches!(err, Cause::Platform { .. }), "{err}");
    }
}
