// SPDX-License-Identifier: Apache-2.0
//! The documents of images, as far as the search for their blobs needs them. Pure.
//!
//! The daemon reads them again, and decides: this is to know which blobs belong to an image.

use serde::Deserialize;

/// Largest index or manifest that is read, in bytes.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// Deepest nesting of indexes.
pub(crate) const DEPTH_MAX: usize = 4;
/// Most entries of an index, and layers of a manifest.
pub(crate) const ENTRIES_MAX: usize = 1000;

/// A digest that is safe as the name of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) algorithm: String,
    pub(crate) hex: String,
}

impl Digest {
    /// Parses `sha256:…` or `sha512:…`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (algorithm, hex) = text.split_once(':')?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return None,
        };
        let is_hex = |c: char| c.is_ascii_digit() || matches!(c, 'a'..='f');
        (hex.len() == length && hex.chars().all(is_hex))
            .then(|| Self { algorithm: algorithm.to_owned(), hex: hex.to_owned() })
    }

    /// Its path in an archive with the layout of OCI, if that is short enough for one.
    pub(crate) fn entry(&self) -> Option<String> {
        // A longer one would need a header of its own in the archive; no registry has such images.
        (self.algorithm == "sha256").then(|| format!("blobs/sha256/{}", self.hex))
    }
}

/// A reference to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
}

/// The machine that an image of an index is for.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
}

impl Descriptor {
    /// Whether it may be for this machine.
    pub(crate) fn may_be_for(&self, machine: &str) -> bool {
        self.platform
            .as_ref()
            .is_none_or(|of| of.architecture.is_empty() || of.architecture == machine)
    }
}

/// An index or a manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Document {
    #[serde(default)]
    pub(crate) manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<Descriptor>>,
}

/// The configuration of an image.
#[derive(Debug, Deserialize)]
pub(crate) struct ImageConfig {
    pub(crate) rootfs: Rootfs,
}

/// The layers of an image by the digests of their archives.
#[derive(Debug, Deserialize)]
pub(crate) struct Rootfs {
    #[serde(default)]
    pub(crate) diff_ids: Vec<String>,
}

/// This machine, as images name it.
pub(crate) fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The names to import, of all names of one image: those with a tag, and of the others one per repository. The
/// import adds the digest to each. Other texts, such as ids, are not names.
pub(crate) fn names(all: &[String]) -> Vec<String> {
    let is_name = |text: &&String| text.contains(['/', '.', ':']) && !text.starts_with("sha256:");
    let parsed = all.iter().filter(is_name);
    let parsed: Vec<hull_image::Reference> =
        parsed.filter_map(|text| hull_image::Reference::parse(text).ok()).collect();
    let tagged = |of: &hull_image::Reference| Some(format!("{}:{}", of.name(), of.tag()?));
    let mut names: Vec<String> = parsed.iter().filter_map(tagged).collect();
    names.sort();
    names.dedup();
    let mut others = Vec::new();
    for of in &parsed {
        let repository = of.name();
        let has_it = |name: &String| {
            name.strip_prefix(&repository).is_some_and(|rest| rest.starts_with([':', '@']))
        };
        if of.tag().is_none() && !names.iter().chain(&others).any(has_it) {
            others.push(of.to_string());
        }
    }
    names.extend(others);
    names
}

/// The texts among the names of images that are neither names nor ids.
pub(crate) fn odd_names(all: &[String]) -> impl Iterator<Item = &String> {
    all.iter()
        .filter(|text| !text.starts_with("sha256:") && hull_image::Reference::parse(text).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_safe_as_names() {
        let hex = "a".repeat(64);
        let digest = Digest::parse(&format!("sha256:{hex}")).unwrap();
        assert_eq!(digest.entry(), Some(format!("blobs/sha256/{hex}")));
        for odd in ["sha256:..", "sha256:", "md5:aa", "a", &format!("sha256:{}", "A".repeat(64))] {
            assert_eq!(Digest::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn each_tag_is_a_name_and_a_digest_where_there_is_no_tag() {
        let hex = "b".repeat(64);
        let digest = |repository: &str| format!("{repository}@sha256:{hex}");
        let all = [
            "docker.io/library/a:1".to_owned(),
            digest("docker.io/library/a"),
            "docker.io/library/a:2".to_owned(),
            digest("r.example/b"),
            format!("sha256:{hex}"),
        ];
        assert_eq!(
            names(&all),
            [
                "docker.io/library/a:1".to_owned(),
                "docker.io/library/a:2".to_owned(),
                digest("r.example/b")
            ]
        );
        assert_eq!(names(&["garbage\n".to_owned()]), [""; 0]);
        let odd = [all[0].clone(), all[4].clone(), "garbage\n".to_owned()];
        assert_eq!(odd_names(&odd).collect::<Vec<_>>(), ["garbage\n"]);
    }
}
