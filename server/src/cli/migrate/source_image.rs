// SPDX-License-Identifier: Apache-2.0
//! An image of the other runtime: where its bytes are, and the archives that carry it to the daemon.

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// An image whose bytes are all there.
#[derive(Debug, Clone)]
pub(crate) struct SourceImage {
    /// The name that is shown.
    pub(crate) name: String,
    /// The ids that it can get: those of its configurations.
    pub(crate) ids: Vec<String>,
    /// Its layers. Only the first import has to carry them.
    pub(crate) layers: Vec<Part>,
    /// The imports, one after the other. The first one stores the layers.
    pub(crate) imports: Vec<Import>,
}

impl SourceImage {
    /// The number of bytes of its layers.
    pub(crate) fn bytes(&self) -> u64 {
        self.layers.iter().fold(0, |sum, part| sum.saturating_add(part.size))
    }
}

/// Names that Hull has for other images already, each with that image's id.
pub(crate) type Kept = Vec<(String, String)>;

impl SourceImage {
    /// Leaves out each name that another image has in Hull, by `there`, the names with the ids of their images.
    /// Returns the names that were left out. An image without any name left has no imports.
    pub(crate) fn keep_names(&mut self, there: &HashMap<String, String>) -> Kept {
        let mut kept = BTreeMap::new();
        let ids = &self.ids;
        let mut is_free = |name: &String| match there.get(name) {
            Some(id) if !ids.contains(id) => {
                kept.insert(name.clone(), id.clone());
                false
            }
            _ => true,
        };
        let mut has_name = false;
        self.imports.retain_mut(|import| match import {
            Import::Layout { name, .. } => {
                let stays = name.as_ref().is_none_or(&mut is_free);
                has_name |= stays;
                stays
            }
            Import::Saved { tags, .. } => {
                tags.retain(&mut is_free);
                has_name |= !tags.is_empty();
                true
            }
        });
        if !has_name && !kept.is_empty() {
            self.imports.clear();
        }
        kept.into_iter().collect()
    }
}

/// One archive of an image.
#[derive(Debug, Clone)]
pub(crate) enum Import {
    /// An OCI layout: the documents with their original bytes, so that the image keeps its digest.
    Layout { target: Value, name: Option<String>, documents: Vec<Part> },
    /// The form of `docker save`, for layers whose blobs are not there: they are verified by the digest that the
    /// image's configuration has.
    Saved { tags: Vec<String>, config: Part },
}

/// An entry of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Its path in the archive, which has at most 100 bytes.
    pub(crate) entry: String,
    pub(crate) size: u64,
    pub(crate) content: Content,
}

/// Where the bytes are.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// All bytes of a file.
    File(PathBuf),
    /// A layer taken apart: its headers in tar-split's form, its content in a directory.
    Split { headers: PathBuf, directory: PathBuf },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_images_stay_with_them() {
        let layout = |name: &str| Import::Layout {
            target: Value::Null,
            name: Some(name.into()),
            documents: Vec::new(),
        };
        let whole = SourceImage {
            name: "a:1".into(),
            ids: vec!["own".into()],
            layers: Vec::new(),
            imports: vec![layout("a:1"), layout("a:2")],
        };
        let there = |all: &[(&str, &str)]| {
            all.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect()
        };
        let mut image = whole.clone();
        assert_eq!(image.keep_names(&there(&[("a:1", "own"), ("b", "other")])), []);
        assert_eq!(image.imports.len(), 2);
        let kept = image.keep_names(&there(&[("a:1", "other")]));
        assert_eq!((kept, image.imports.len()), (vec![("a:1".into(), "other".into())], 1));
        let mut image = whole;
        assert_eq!(image.keep_names(&there(&[("a:1", "x"), ("a:2", "x")])).len(), 2);
        assert!(image.imports.is_empty());
    }
}
