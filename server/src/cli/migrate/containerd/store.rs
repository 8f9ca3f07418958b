// SPDX-License-Identifier: Apache-2.0
//! containerd's images: their names and digests from its database, their blobs from its content store.
//!
//! ```text
//! io.containerd.metadata.v1.bolt/meta.db       v1/<namespace>/images/<name>/target/{digest, mediatype, size}
//! io.containerd.content.v1.content/blobs/      sha256/<hex>
//! ```

use super::super::super::error::{Error, Result, chain};
use super::super::bolt::{Bucket, Database, Malformed, Value};
use super::super::documents::{
    self, DEPTH_MAX, DOCUMENT_BYTES_MAX, Descriptor, Digest, Document, ENTRIES_MAX,
};
use super::super::findings::Findings;
use super::super::root::Root;
use super::super::source_image::{Content, Import, Part, SourceImage};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";
const BLOBS: &str = "io.containerd.content.v1.content/blobs";
/// The namespace of the kubelet's images.
const NAMESPACE: &str = "k8s.io";
/// The mark of images that garbage collection keeps.
const PINNED: (&[u8], &[u8]) = (b"io.cri-containerd.pinned", b"pinned");

/// An image of the database.
#[derive(Debug)]
struct Named {
    name: String,
    digest: String,
    media_type: String,
    is_pinned: bool,
}

/// Finds the images of the kubelet. Those that are whole can be taken over.
///
/// # Errors
/// The database or the store cannot be read.
pub(super) fn images(
    root: &Root,
    place: &Path,
    sandbox: Option<&str>,
    found: &mut Findings,
) -> Result<()> {
    let path = place.join(DATABASE);
    let Some(database) = Database::read(root, &path)? else {
        found.same("images", format!("there is no {}", path.display()));
        return Ok(());
    };
    let malformed =
        |why: Malformed| Error::Peer { what: root.shown(&path), why: why.to_owned(), hint: None };
    let named = listed(&database, found).map_err(malformed)?;
    let mut by_digest: BTreeMap<String, Vec<Named>> = BTreeMap::new();
    for of in named {
        by_digest.entry(of.digest.clone()).or_default().push(of);
    }
    let mut pinned = Vec::new();
    for (digest, of) in by_digest {
        if sandbox.is_some_and(|sandbox| of.iter().any(|of| of.name == sandbox)) {
            found.same(sandbox.unwrap_or_default(), "Hull has a pause program of its own");
            continue;
        }
        let all: Vec<String> = of.iter().map(|of| of.name.clone()).collect();
        let names = documents::names(&all);
        found.odd_names(&all);
        if of.iter().any(|of| of.is_pinned) {
            pinned.extend(names.first().cloned());
        }
        let media_type = of.first().map_or("", |of| of.media_type.as_str());
        let shown = names.first().cloned().unwrap_or_else(|| hull_sys::text::shown(&digest, 128));
        let mut search = Search::new(root, place.join(BLOBS));
        match search.target(&digest)? {
            Ok(size) => {
                let target = json!({ "mediaType": media_type, "digest": digest, "size": size });
                found.images.push(search.image(shown, &target, names));
            }
            Err(why) => found.pull(&shown, why),
        }
    }
    if !pinned.is_empty() {
        let names = pinned.into_iter().map(toml::Value::from).collect();
        found.set(
            "images with the label of pinned ones",
            "image.pinned",
            &toml::Value::Array(names),
        );
    }
    Ok(())
}

fn listed(database: &Database, found: &mut Findings) -> std::result::Result<Vec<Named>, Malformed> {
    let Some(version) = database.root().bucket("v1")? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for (namespace, value) in version.entries()? {
        let Value::Bucket(of) = value else { continue };
        let Some(images) = of.bucket("images")? else { continue };
        let images = images.entries()?;
        if namespace != NAMESPACE.as_bytes() {
            let namespace = String::from_utf8_lossy(namespace).into_owned();
            if !images.is_empty() {
                let why = format!("{} images, which a kubelet does not see", images.len());
                found.lost(&format!("images of the namespace {namespace}"), why);
            }
            continue;
        }
        for (name, value) in images {
            let Value::Bucket(image) = value else { continue };
            // What is not UTF-8 is not a name; the report lists it with the invalid ones.
            all.extend(named(&String::from_utf8_lossy(name), image)?);
        }
    }
    Ok(all)
}

fn named(name: &str, image: Bucket<'_>) -> std::result::Result<Option<Named>, Malformed> {
    let Some(target) = image.bucket("target")? else { return Ok(None) };
    let (mut digest, mut media_type) = (String::new(), String::new());
    for (key, value) in target.entries()? {
        let Value::Bytes(bytes) = value else { continue };
        match key {
            b"digest" => digest = String::from_utf8_lossy(bytes).into_owned(),
            b"mediatype" => media_type = String::from_utf8_lossy(bytes).into_owned(),
            _ => {}
        }
    }
    let labels = image.bucket("labels")?.map(|of| of.entries()).transpose()?.unwrap_or_default();
    let is_pin = |(key, value): &(&[u8], Value<'_>)| {
        *key == PINNED.0 && matches!(value, Value::Bytes(bytes) if *bytes == PINNED.1)
    };
    let is_pinned = labels.iter().any(is_pin);
    Ok(Some(Named { name: name.to_owned(), digest, media_type, is_pinned }))
}

/// A search for the blobs of one image.
struct Search<'r> {
    root: &'r Root,
    blobs: PathBuf,
    machine: &'static str,
    documents: Vec<Part>,
    layers: Vec<Part>,
    seen: HashSet<String>,
    /// The ids of the images that are whole.
    ids: Vec<String>,
    /// Whether an image for this machine is whole.
    is_whole: bool,
    /// The first blob that is missing, in words.
    missing: Option<String>,
}

impl<'r> Search<'r> {
    fn new(root: &'r Root, blobs: PathBuf) -> Self {
        Self {
            root,
            blobs,
            machine: documents::machine(),
            documents: Vec::new(),
            layers: Vec::new(),
            seen: HashSet::new(),
            ids: Vec::new(),
            is_whole: false,
            missing: None,
        }
    }

    /// Collects the blobs below `digest`, and returns its size; or why the image is not whole.
    fn target(&mut self, digest: &str) -> Result<std::result::Result<u64, String>> {
        let size = match self.part(digest, None)? {
            Ok(part) => part.size,
            Err(why) => return Ok(Err(why)),
        };
        self.document(digest, None, 0)?;
        if self.is_whole {
            return Ok(Ok(size));
        }
        let none = || format!("it is not an image for {}", self.machine);
        Ok(Err(self.missing.take().unwrap_or_else(none)))
    }

    fn document(&mut self, digest: &str, size: Option<u64>, depth: usize) -> Result<()> {
        let part = match self.part(digest, size)? {
            Ok(part) => part,
            Err(why) => {
                self.missing.get_or_insert(why);
                return Ok(());
            }
        };
        if depth > DEPTH_MAX || !self.seen.insert(part.entry.clone()) {
            return Ok(());
        }
        let Content::File(path) = &part.content else { return Ok(()) };
        let bytes = match self.root.bytes(path, DOCUMENT_BYTES_MAX) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(err) => {
                self.missing.get_or_insert(chain(&err));
                return Ok(());
            }
        };
        if hull_image::sha256(&bytes) != digest {
            self.missing.get_or_insert(format!("its blob {digest} has another digest"));
            return Ok(());
        }
        let Ok(of) = serde_json::from_slice::<Document>(&bytes) else {
            self.missing.get_or_insert(format!("{digest} is not a document of an image"));
            return Ok(());
        };
        self.documents.push(part);
        for child in of.manifests.iter().flatten().take(ENTRIES_MAX) {
            if child.may_be_for(self.machine) {
                self.document(&child.digest, Some(child.size), depth + 1)?;
            }
        }
        match of.config {
            Some(config) => self.manifest(&config, &of.layers.unwrap_or_default()),
            None => Ok(()),
        }
    }

    fn manifest(&mut self, config: &Descriptor, layers: &[Descriptor]) -> Result<()> {
        let config = match self.part(&config.digest, Some(config.size))? {
            Ok(part) => part,
            Err(why) => {
                self.missing.get_or_insert(why);
                return Ok(());
            }
        };
        let mut all = Vec::new();
        for layer in layers.iter().take(ENTRIES_MAX) {
            match self.part(&layer.digest, Some(layer.size))? {
                Ok(part) => all.push(part),
                Err(why) => {
                    self.missing.get_or_insert(why);
                    return Ok(());
                }
            }
        }
        let id = config.entry.replace("blobs/sha256/", "sha256:");
        if self.seen.insert(config.entry.clone()) {
            self.ids.push(id);
            self.documents.push(config);
        }
        self.layers.extend(all);
        self.is_whole = true;
        Ok(())
    }

    /// The blob with this digest; or why it cannot be used.
    fn part(&self, digest: &str, size: Option<u64>) -> Result<std::result::Result<Part, String>> {
        let parsed = Digest::parse(digest).and_then(|of| Some((of.entry()?, of)));
        let Some((entry, parsed)) = parsed else {
            let digest = hull_sys::text::shown(digest, 128);
            return Ok(Err(format!("its digest `{digest}` is not one of sha256")));
        };
        let path = self.blobs.join(&parsed.algorithm).join(&parsed.hex);
        let is = match self.root.file(&path) {
            Ok(Some((_, is))) => is,
            Ok(None) => return Ok(Err(format!("its blob {digest} is not in the content store"))),
            Err(err) => return Ok(Err(chain(&err))),
        };
        if let Some(size) = size.filter(|size| *size != is) {
            return Ok(Err(format!("its blob {digest} has {is} bytes instead of {size}")));
        }
        Ok(Ok(Part { entry, size: is, content: Content::File(path) }))
    }

    fn image(self, name: String, target: &serde_json::Value, names: Vec<String>) -> SourceImage {
        let import = |name: Option<String>| Import::Layout {
            target: target.clone(),
            name,
            documents: self.documents.clone(),
        };
        // Without a name it is still found by its id.
        let imports = if names.is_empty() {
            vec![import(None)]
        } else {
            names.into_iter().map(|name| import(Some(name))).collect()
        };
        SourceImage { name, ids: self.ids, layers: self.layers, imports }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store with these blobs under their digests, but for those in `forged`, which have the name of another.
    fn searched(
        blobs: &[&str],
        forged: &[(&str, &str)],
        target: &str,
    ) -> std::result::Result<usize, String> {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("blobs/sha256");
        std::fs::create_dir_all(&store).unwrap();
        let path = |of: &str| store.join(hull_image::sha256(of.as_bytes()).replace("sha256:", ""));
        for text in blobs {
            std::fs::write(path(text), text).unwrap();
        }
        for (named, text) in forged {
            std::fs::write(path(named), text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let mut search = Search::new(&root, "/blobs".into());
        let size = search.target(&hull_image::sha256(target.as_bytes())).unwrap()?;
        let target = json!({ "size": size });
        let image = search.image("x".into(), &target, vec!["a/b:1".into(), "a/b:2".into()]);
        assert_eq!((image.imports.len(), image.ids.len()), (2, 1));
        Ok(image.layers.len())
    }

    fn of(text: &str) -> serde_json::Value {
        json!({ "digest": hull_image::sha256(text.as_bytes()), "size": text.len() })
    }

    #[test]
    fn an_image_is_whole_with_its_config_and_all_layers_for_this_machine() {
        let manifest = json!({ "config": of("{}"), "layers": [of("x"), of("y")] }).to_string();
        let mut here = of(&manifest);
        here["platform"] = json!({ "architecture": documents::machine() });
        let mut other = of("other");
        other["platform"] = json!({ "architecture": "s390x-other" });
        let index = json!({ "manifests": [other, here] }).to_string();
        let all = [index.as_str(), &manifest, "{}", "x", "y"];
        assert_eq!(searched(&all, &[], &index), Ok(2));
        assert_eq!(searched(&all, &[], &manifest), Ok(2));
        let changed = manifest.replace("size", "SIZE");
        for (blobs, forged, target, why) in [
            (&all[..], &[("y", "longer")][..], index.as_str(), "has 6 bytes instead of 1"),
            (&all[..4], &[][..], &index, "is not in the content store"),
            (&all[..], &[][..], "{}", "not an image for"),
            (&["\u{1}"][..], &[][..], "\u{1}", "not a document"),
            (&all[..], &[(manifest.as_str(), changed.as_str())][..], &index, "another digest"),
        ] {
            let error = searched(blobs, forged, target).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    #[test]
    fn a_blob_that_is_no_file_is_a_reason_for_its_image() {
        let dir = tempfile::tempdir().unwrap();
        let digest = hull_image::sha256(b"x");
        let blob = dir.path().join("blobs/sha256").join(digest.replace("sha256:", ""));
        std::fs::create_dir_all(&blob).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut search = Search::new(&root, "/blobs".into());
        let why = search.target(&digest).unwrap().unwrap_err();
        assert!(why.contains("not a regular file"), "{why}");
    }
}
