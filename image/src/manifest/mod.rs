// SPDX-License-Identifier: Apache-2.0
//! Manifests, indexes and configs as they come from registries and archives.
//!
//! The rule: only what is needed is read, every digest in it is checked for form, every list has a
//! limit. Addresses (`urls`) that a document names for downloads are not even read.

mod config;
mod json;
pub(crate) mod platform;
mod search;

#[cfg(feature = "fuzz")]
pub(crate) use config::parse_config;
pub(crate) use config::{ImageConfig, configuration};
pub(crate) use search::{Found, Search, Step, Way};

use crate::digest::Digest;
use crate::error::{Cause, NAME_MAX, shown};
use crate::limits::{self, DOCUMENT_VALUES};
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
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
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
    /// Those of its images that can be for this machine, best first, or other indexes.
    Index(Vec<Candidate>),
}

/// An entry of an index that can be the image for this machine.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) descriptor: Descriptor,
    /// The platform that the index states; it is believed. Else the config decides.
    platform: Option<Platform>,
    /// Why it was chosen, as a sentence.
    why: String,
    /// Whether its media type is not one of images: tried at last, and passed over if it is not an image.
    is_odd: bool,
}

/// An image: its config and its layers, lowest first.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    /// The manifest of an image in an archive of `docker save`, which has the config alone.
    pub(crate) fn of_saved(config: &[u8]) -> Self {
        let config = Descriptor {
            digest: Digest::of(config),
            size: config.len() as u64,
            media_type: CONFIG_TYPES[1].to_owned(),
            platform: None,
            names: Vec::new(),
        };
        Self { config, layers: Vec::new() }
    }
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
    artifact_type: String,
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
    artifact_type: Option<String>,
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

    /// Whether its media type is one of images or indexes, or not stated.
    fn has_type_of_images(&self) -> bool {
        let media_type = self.media_type.as_str();
        media_type.is_empty()
            || INDEX_TYPES.contains(&media_type)
            || MANIFEST_TYPES.contains(&media_type)
    }

    /// Whether it lies beside images: an attestation, or an artifact of another type.
    fn is_beside_images(&self) -> bool {
        let kind = self.annotations.as_ref().and_then(|of| of.get("vnd.docker.reference.type"));
        let is_attestation = kind.is_some_and(|kind| kind == "attestation-manifest");
        let is_artifact =
            !self.artifact_type.is_empty() && !CONFIG_TYPES.contains(&self.artifact_type.as_str());
        is_attestation || is_artifact || self.platform.as_ref().is_some_and(Platform::is_of_none)
    }
}

fn read(bytes: &[u8], what: &str) -> Result<Raw, Cause> {
    few_values(bytes, what)?;
    let raw = json::parse(bytes)
        .and_then(|value| serde_json::from_value(value).map_err(|err| err.to_string()));
    raw.map_err(|why| Cause::Document { what: what.to_owned(), why })
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
    // Go writes an empty list as null, so the media type decides first.
    let is_index = raw.media_type.as_deref().is_some_and(|of| INDEX_TYPES.contains(&of));
    if raw.manifests.is_some() || is_index {
        let manifests = raw.manifests.unwrap_or_default();
        return choose(manifests, what, machine).map(Document::Index);
    }
    let Some(config) = raw.config else {
        let media_type = raw.artifact_type.or(raw.media_type);
        let media_type = media_type.unwrap_or_else(|| "a document of an unknown kind".into());
        return Err(Cause::NotAnImage { media_type });
    };
    let config = config.check(what)?;
    if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
        let media_type = raw.artifact_type.filter(|of| !of.is_empty()).unwrap_or(config.media_type);
        return Err(Cause::NotAnImage { media_type });
    }
    let layers = raw.layers.unwrap_or_default();
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
    // A file system begins with zeros, and would be unpacked as an empty archive.
    if let Some(other) = layers.iter().find(|of| is_no_archive(&of.media_type)) {
        return Err(Cause::NotAnImage { media_type: other.media_type.clone() });
    }
    Ok(Document::Manifest(Manifest { config, layers }))
}

/// Whether a media type is a vendor's for layers in another form than an archive, such as `application/vnd.erofs`.
/// Other types are not decisive: the bytes tell.
fn is_no_archive(media_type: &str) -> bool {
    let mut words = media_type.split(['.', '+', '-', '/']);
    media_type.starts_with("application/vnd.") && !words.any(|word| matches!(word, "tar" | "gtar"))
}

/// The manifest.json of `docker save`.
pub(crate) fn parse_saved<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Cause> {
    const WHAT: &str = "manifest.json";
    few_values(bytes, WHAT)?;
    let parsed = json::parse(bytes)
        .and_then(|value| serde_json::from_value(value).map_err(|err| err.to_string()));
    parsed.map_err(|why| Cause::Document { what: WHAT.into(), why })
}

/// The entries of an archive's index that can be images, and of the others the digest and the reason.
type Listed = (Vec<Descriptor>, Vec<(String, String)>);

/// The images of an archive's index, without a choice, and what lies beside them: digest, and why it is not an
/// image.
pub(crate) fn parse_layout(bytes: &[u8]) -> Result<Listed, Cause> {
    let (mut images, mut beside) = (Vec::new(), Vec::new());
    for of in read(bytes, "index.json")?.manifests.unwrap_or_default() {
        let digest = shown(&of.digest, NAME_MAX);
        if of.is_beside_images() {
            let kind =
                if of.artifact_type.is_empty() { "an attestation" } else { &of.artifact_type };
            beside.push((digest, format!("it is {kind}")));
        } else if !of.has_type_of_images() {
            beside.push((digest, format!("it is {}", of.media_type)));
        } else {
            match of.check("index.json") {
                Ok(of) => images.push(of),
                Err(cause) => beside.push((digest, cause.to_string())),
            }
        }
    }
    Ok((images, beside))
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

/// The entries that can be the image for this machine, in the order to try them.
fn choose(
    manifests: Vec<RawDescriptor>,
    what: &str,
    machine: &Machine,
) -> Result<Vec<Candidate>, Cause> {
    let (mut there, mut odd) = (Vec::new(), Vec::new());
    for raw in manifests.into_iter().filter(|raw| !raw.is_beside_images()) {
        if raw.has_type_of_images() {
            there.push(raw.check(what)?);
        } else {
            odd.extend(raw.check(what));
        }
    }
    let mut platforms: Vec<String> = there
        .iter()
        .chain(&odd)
        .filter_map(|of| of.platform.as_ref())
        .map(Platform::shown)
        .collect();
    platforms.sort_unstable();
    platforms.dedup();
    let names = platforms.join(", ");
    let why = if platforms.len() == 1 {
        "the index has it for this platform alone".to_owned()
    } else {
        let machine = machine.best();
        format!("of {names} in the index, it is the best for this machine ({machine})")
    };
    let mut all = candidates(there, machine, &why, false);
    all.extend(candidates(odd, machine, &why, true));
    if all.is_empty() {
        return Err(Cause::Platform { want: machine.shown(), there: names });
    }
    Ok(all)
}

/// The entries for this machine, best first; if there are none, those that do not say.
fn candidates(
    there: Vec<Descriptor>,
    machine: &Machine,
    why: &str,
    is_odd: bool,
) -> Vec<Candidate> {
    // An image that needs features of the system is for others, if there is one without.
    let rank = |of: &Descriptor| {
        let platform = of.platform.as_ref()?;
        Some((platform.has_features(), machine.rank(platform)?))
    };
    let mut ranked: Vec<_> = there.iter().filter_map(|of| Some((rank(of)?, of.clone()))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    if !ranked.is_empty() {
        let candidate = |(_, descriptor): (_, Descriptor)| {
            let (platform, why) = (descriptor.platform.clone(), why.to_owned());
            Candidate { descriptor, platform, why, is_odd }
        };
        return ranked.into_iter().map(candidate).collect();
    }
    // An entry that does not say its platform may be for us: its config will tell.
    let unsaid = |of: &Descriptor| {
        of.platform.as_ref().is_none_or(Platform::is_unsaid)
            || INDEX_TYPES.contains(&of.media_type.as_str())
    };
    let why = "the index does not say its platform, its config does";
    let candidate =
        |descriptor| Candidate { descriptor, platform: None, why: why.to_owned(), is_odd };
    there.into_iter().filter(unsaid).map(candidate).collect()
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
        let artifact = json!({"artifactType": "application/x.sbom", "layers": null,
            "config": descriptor("application/vnd.oci.empty.v1+json")});
        let err = parsed(&artifact).unwrap_err();
        assert!(
            matches!(err, Cause::NotAnImage { media_type } if media_type == "application/x.sbom")
        );
        for layers in [json!(null), json!([])] {
            let none = json!({"config": descriptor(CONFIG_TYPES[0]), "layers": layers});
            let none = parsed(&none);
            assert!(matches!(none, Ok(Document::Manifest(of)) if of.layers.is_empty()));
        }
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
    fn a_layer_that_is_a_file_system_is_refused_by_name() {
        let of = |media_type: &str| {
            parsed(
                &json!({"config": descriptor(CONFIG_TYPES[0]), "layers": [descriptor(media_type)]}),
            )
        };
        for other in ["application/vnd.erofs", "application/vnd.oci.image.layer.nydus.blob.v1"] {
            let err = of(other).unwrap_err();
            assert!(
                matches!(&err, Cause::NotAnImage { media_type } if media_type == other),
                "{err}"
            );
        }
        let docker = "application/vnd.docker.image.rootfs.diff.tar.zstd";
        for archive in
            [docker, "application/vnd.oci.image.layer.v1.tar", "application/octet-stream", ""]
        {
            assert!(of(archive).is_ok(), "{archive}");
        }
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
    fn an_image_that_needs_features_of_the_system_is_the_last_choice() {
        let entry = |digest: &[u8], more: Value| {
            let mut of = descriptor(MANIFEST_TYPES[0]);
            of["digest"] = json!(Digest::of(digest).as_str());
            of["platform"] = json!({"os": "linux", "architecture": std::env::consts::ARCH});
            of["platform"]["os.features"] = more;
            of
        };
        let first = |entries: Vec<Value>| match parsed(&json!({"manifests": entries})) {
            Ok(Document::Index(of)) => of[0].descriptor.digest.clone(),
            other => panic!("{other:?}"),
        };
        let erofs = || entry(b"erofs", json!(["erofs"]));
        for plain in [json!(null), json!([]), json!("odd")] {
            let both = vec![erofs(), entry(b"tar", plain)];
            assert_eq!(first(both), Digest::of(b"tar"));
        }
        assert_eq!(first(vec![erofs()]), Digest::of(b"erofs"));
    }
}
