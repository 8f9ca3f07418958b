// SPDX-License-Identifier: Apache-2.0
//! CRI-O's images, as containers/storage keeps them with overlay.
//!
//! ```text
//! overlay-images/images.json          id, names, digest, top layer
//! overlay-images/<id>/                manifest, =<base64 of `sha256:<id>`> (the config), the same of `manifest-<digest>`
//! overlay-layers/layers.json          id, parent, digest and size of the archive
//! overlay-layers/<id>.tar-split.gz    headers of the archive; the content of its files is in overlay/<id>/diff
//! ```
//!
//! The compressed blobs are not there, but the archives can be put together again, and the image's configuration
//! has their digests. So an image is imported in two steps: first its configuration with these archives, then its
//! manifests, by which it gets the digest that pods may name.

use super::super::super::error::{Result, chain};
use super::super::documents::{self, DOCUMENT_BYTES_MAX, Digest, Document, ImageConfig};
use super::super::findings::Findings;
use super::super::root::Root;
use super::super::source_image::{Content, Import, Part, SourceImage};
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// The manifests and indexes of an image: their sizes by digest, and entries of an archive.
type Manifests = (HashMap<String, u64>, Vec<Part>);

/// Largest list of images or layers, in bytes.
const LIST_BYTES_MAX: u64 = 128 << 20;

#[derive(Debug, Deserialize)]
struct Image {
    id: String,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    layer: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Layer {
    id: String,
    #[serde(default)]
    parent: Option<String>,
    #[serde(default, rename = "diff-digest")]
    digest: Option<String>,
    #[serde(default, rename = "diff-size")]
    size: Option<u64>,
}

/// The store of a node.
struct Store<'r> {
    root: &'r Root,
    place: &'r Path,
    layers: HashMap<String, Layer>,
}

/// Finds the images. Those whose layers can be put together again can be taken over.
///
/// # Errors
/// A list of the store cannot be read.
pub(super) fn images(root: &Root, place: &Path, pause: &str, found: &mut Findings) -> Result<()> {
    let path = place.join("overlay-images/images.json");
    let Some(images) = list::<Image>(root, &path)? else {
        found.same("images", format!("there is no {}", path.display()));
        return Ok(());
    };
    let layers = list::<Layer>(root, &place.join("overlay-layers/layers.json"))?;
    let layers = layers.unwrap_or_default().into_iter().map(|of| (of.id.clone(), of)).collect();
    let store = Store { root, place, layers };
    for image in images {
        let all = image.names.clone().unwrap_or_default();
        let names = documents::names(&all);
        found.odd_names(&all);
        let shown = shown_name(names.first().or(all.first()).unwrap_or(&image.id));
        let is_pause = |name: &String| {
            name.strip_prefix(pause)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
        };
        if all.iter().any(is_pause) {
            found.same(&shown, "Hull has a pause program of its own");
            continue;
        }
        match store.image(&image, shown.clone(), names)? {
            Ok(image) => found.images.push(image),
            Err(why) => found.pull(&shown, why),
        }
    }
    Ok(())
}

fn list<T: serde::de::DeserializeOwned>(root: &Root, path: &Path) -> Result<Option<Vec<T>>> {
    let Some(bytes) = root.bytes(path, LIST_BYTES_MAX)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|err| root.unusable(path, &err.to_string()))
}

/// The name of the file with a value of an image: names that are not plain are in base64.
fn file_of(key: &str) -> String {
    if key.chars().all(|c| c.is_ascii_alphanumeric() || c == '.') {
        return key.to_owned();
    }
    // Its alphabet has a slash, which no name of a file can have; neither of the keys here leads to one that
    // would leave the directory.
    format!("={}", BASE64.encode(key.as_bytes()))
}

impl Store<'_> {
    fn image(
        &self,
        image: &Image,
        name: String,
        names: Vec<String>,
    ) -> Result<std::result::Result<SourceImage, String>> {
        let id = format!("sha256:{}", image.id);
        if Digest::parse(&id).is_none() {
            return Ok(Err("its id is not the digest of its configuration".into()));
        }
        let directory = self.place.join("overlay-images").join(&image.id);
        let path = directory.join(file_of(&id));
        let bytes = match self.root.bytes(&path, DOCUMENT_BYTES_MAX) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Err("its configuration is not in the store".into())),
            Err(err) => return Ok(Err(chain(&err))),
        };
        if hull_image::sha256(&bytes) != id {
            return Ok(Err("its configuration has another digest than its id".into()));
        }
        let Ok(config) = serde_json::from_slice::<ImageConfig>(&bytes) else {
            return Ok(Err("its configuration is not one of an image".into()));
        };
        let layers = match self.layers(image.layer.as_deref(), &config.rootfs.diff_ids)? {
            Ok(layers) => layers,
            Err(why) => return Ok(Err(why)),
        };
        let size = bytes.len() as u64;
        let config = |entry: String| Part { entry, size, content: Content::File(path.clone()) };
        let (targets, mut documents) = match self.manifests(&directory, image, &id)? {
            Ok(manifests) => manifests,
            Err(why) => return Ok(Err(why)),
        };
        let mut imports = Vec::new();
        let mut tags = Vec::new();
        documents.push(config(format!("blobs/sha256/{}", image.id)));
        for name in names {
            // A name with a digest has that one; a tag gets the digest of the image.
            let digest = match name.split_once('@') {
                Some((_, digest)) => digest,
                None => image.digest.as_deref().unwrap_or_default(),
            };
            if let Some(size) = targets.get(digest) {
                let target = json!({ "digest": digest, "size": size });
                let documents = documents.clone();
                imports.push(Import::Layout { target, name: Some(name), documents });
            } else if !name.contains('@') {
                tags.push(name);
            }
        }
        // The names with a digest come by it; the first import stores the layers.
        imports.insert(0, Import::Saved { tags, config: config("config.json".into()) });
        Ok(Ok(SourceImage { name, ids: vec![id], layers, imports }))
    }

    /// The manifests and indexes of an image, by digest with their sizes, and as entries of an archive; or why they
    /// are not those of the image `id`.
    fn manifests(
        &self,
        directory: &Path,
        image: &Image,
        id: &str,
    ) -> Result<std::result::Result<Manifests, String>> {
        let (mut sizes, mut parts) = (HashMap::new(), Vec::new());
        let own = image.digest.as_deref().map(|digest| (digest.to_owned(), "manifest".to_owned()));
        let encoded = self.root.names(directory)?.into_iter().filter_map(|file| {
            let key = BASE64.decode(file.strip_prefix('=')?.as_bytes()).ok()?;
            let digest = String::from_utf8(key).ok()?.strip_prefix("manifest-")?.to_owned();
            Some((digest, file))
        });
        // Those by digest first: the one without may be that of another name.
        for (digest, file) in encoded.collect::<Vec<_>>().into_iter().chain(own) {
            let Some(entry) = Digest::parse(&digest).and_then(|of| of.entry()) else { continue };
            let path = directory.join(file);
            if sizes.contains_key(&digest) {
                continue;
            }
            let bytes = match self.root.bytes(&path, DOCUMENT_BYTES_MAX) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(err) => return Ok(Err(chain(&err))),
            };
            if hull_image::sha256(&bytes) != digest {
                return Ok(Err(format!("its manifest {digest} has another digest")));
            }
            let Ok(document) = serde_json::from_slice::<Document>(&bytes) else {
                return Ok(Err(format!("{digest} is not a manifest")));
            };
            if document.config.is_some_and(|config| config.digest != id) {
                return Ok(Err(format!("its manifest {digest} is that of another image")));
            }
            let size = bytes.len() as u64;
            sizes.insert(digest, size);
            parts.push(Part { entry, size, content: Content::File(path) });
        }
        Ok(Ok((sizes, parts)))
    }

    /// The layers of an image, lowest first; or why they cannot be put together again.
    fn layers(
        &self,
        top: Option<&str>,
        diff_ids: &[String],
    ) -> Result<std::result::Result<Vec<Part>, String>> {
        let (mut chain, mut seen) = (Vec::new(), HashSet::new());
        let mut next = top.filter(|id| !id.is_empty());
        while let Some(id) = next {
            let Some(layer) = self.layers.get(id) else {
                return Ok(Err(format!("its layer {} is not in the store", shown(id))));
            };
            if !seen.insert(id) {
                return Ok(Err("its layers form a circle".into()));
            }
            chain.push(layer);
            next = layer.parent.as_deref().filter(|id| !id.is_empty());
        }
        chain.reverse();
        if chain.len() != diff_ids.len() {
            let why =
                format!("it has {} layers, and {} are in the store", diff_ids.len(), chain.len());
            return Ok(Err(why));
        }
        let mut parts = Vec::new();
        for (layer, diff_id) in chain.into_iter().zip(diff_ids) {
            match self.part(layer, diff_id)? {
                Ok(part) => parts.push(part),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(parts))
    }

    fn part(&self, layer: &Layer, diff_id: &str) -> Result<std::result::Result<Part, String>> {
        let id = shown(&layer.id);
        let is_name = |c: char| c.is_ascii_alphanumeric();
        if layer.id.is_empty() || !layer.id.chars().all(is_name) {
            return Ok(Err(format!("the name of its layer {id} is not one of a layer")));
        }
        let digest = Digest::parse(diff_id).filter(|_| layer.digest.as_deref() == Some(diff_id));
        let (Some(digest), Some(size)) = (digest, layer.size) else {
            return Ok(Err(format!("its layer {id} is stored without the digest of its archive")));
        };
        let headers: PathBuf =
            self.place.join("overlay-layers").join(format!("{}.tar-split.gz", layer.id));
        match self.root.file(&headers) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let why = format!("its layer {id} is stored without the headers of its archive");
                return Ok(Err(why));
            }
            Err(err) => return Ok(Err(chain(&err))),
        }
        let directory = self.place.join("overlay").join(&layer.id).join("diff");
        let entry = format!("layers/{}.tar", digest.hex);
        Ok(Ok(Part { entry, size, content: Content::Split { headers, directory } }))
    }
}

fn shown_name(name: &str) -> String {
    hull_sys::text::shown(name, 256)
}

fn shown(id: &str) -> String {
    hull_sys::text::shown(id, 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "{\"layers\":[]}";
    const LAYER: &str = "2222222222222222222222222222222222222222222222222222222222222222";

    /// The image that is found, or why there is none.
    fn of(images: &str, layers: &str, config: &str) -> std::result::Result<SourceImage, String> {
        let dir = tempfile::tempdir().unwrap();
        let id = hull_image::sha256(config.as_bytes());
        let image = dir.path().join("s/overlay-images").join(id.replace("sha256:", ""));
        std::fs::create_dir_all(&image).unwrap();
        std::fs::create_dir_all(dir.path().join("s/overlay-layers")).unwrap();
        let write =
            |path: &str, text: &str| std::fs::write(dir.path().join("s").join(path), text).unwrap();
        write(
            "overlay-images/images.json",
            &images.replace("sha256:ID", &id).replace("ID", &id[7..]),
        );
        write("overlay-layers/layers.json", layers);
        write("overlay-layers/top.tar-split.gz", "");
        std::fs::write(image.join(file_of(&id)), config).unwrap();
        std::fs::write(image.join("manifest"), MANIFEST).unwrap();
        let mut found = Findings::default();
        images_of(&Root::open(dir.path()).unwrap(), &mut found);
        match found.images.pop() {
            Some(image) => Ok(image),
            None => Err(found.to_pull.pop().or(found.same.pop()).unwrap().why),
        }
    }

    fn images_of(root: &Root, found: &mut Findings) {
        super::images(root, Path::new("/s"), "registry.k8s.io/pause", found).unwrap();
    }

    fn image(name: &str) -> String {
        let digest = hull_image::sha256(MANIFEST.as_bytes());
        format!(
            "[{{\"id\":\"ID\",\"digest\":\"{digest}\",\"names\":[\"{name}\"],\"layer\":\"top\"}}]"
        )
    }

    fn config(layers: &[&str]) -> String {
        json!({ "rootfs": { "diff_ids": layers } }).to_string()
    }

    #[test]
    fn an_image_is_imported_with_its_layers_and_then_by_its_digest() {
        let diff_id = format!("sha256:{LAYER}");
        let layers = format!("[{{\"id\":\"top\",\"diff-digest\":\"{diff_id}\",\"diff-size\":10}}]");
        let image_of = of(&image("r.example/a:1"), &layers, &config(&[&diff_id])).unwrap();
        assert_eq!(image_of.bytes(), 10);
        let [Import::Saved { tags, .. }, Import::Layout { name, documents, .. }] =
            &image_of.imports[..]
        else {
            panic!("{image_of:?}")
        };
        assert!(tags.is_empty(), "the name comes with the digest");
        assert_eq!((name.as_deref(), documents.len()), (Some("r.example/a:1"), 2));
        let pause = of(&image("registry.k8s.io/pause:3.10"), &layers, &config(&[&diff_id]));
        assert!(pause.unwrap_err().contains("pause program"));
    }

    #[test]
    fn a_layer_that_cannot_be_verified_is_pulled_again() {
        let diff_id = format!("sha256:{LAYER}");
        let other = format!("sha256:{}", "1".repeat(64));
        let good = format!("[{{\"id\":\"top\",\"diff-digest\":\"{diff_id}\",\"diff-size\":10}}]");
        for (layers, config, why) in [
            ("[]".to_owned(), config(&[&diff_id]), "layer top is not in the store"),
            ("[{\"id\":\"top\"}]".into(), config(&[&diff_id]), "without the digest"),
            (good.clone(), config(&[&other]), "without the digest"),
            (good.clone(), config(&[]), "it has 0 layers, and 1 are in the store"),
            (good.replace("top", "none"), config(&[&diff_id]), "not in the store"),
            ("[{\"id\":\"top\",\"parent\":\"top\"}]".into(), config(&[]), "a circle"),
            (good, "{}".into(), "not one of an image"),
        ] {
            let error = of(&image("r.example/a:1"), &layers, &config).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_digest_that_lies_is_a_reason_before_anything_is_imported() {
        let diff_id = format!("sha256:{LAYER}");
        let layers = format!("[{{\"id\":\"top\",\"diff-digest\":\"{diff_id}\",\"diff-size\":10}}]");
        let images = image("r.example/a:1");
        let lies = images.replace(&hull_image::sha256(MANIFEST.as_bytes()), &diff_id);
        let error = of(&lies, &layers, &config(&[&diff_id])).unwrap_err();
        assert!(error.contains("has another digest"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let id = "1".repeat(64);
        let file = format!("/s/overlay-images/{id}/{}", file_of(&format!("sha256:{id}")));
        root.create(Path::new(&file), &config(&[])).unwrap();
        let list = images.replace("ID", &id);
        root.create(Path::new("/s/overlay-images/images.json"), &list).unwrap();
        let mut found = Findings::default();
        images_of(&root, &mut found);
        assert!(found.to_pull[0].why.contains("another digest than its id"), "{found:?}");
    }
}
