// SPDX-License-Identifier: Apache-2.0
//! An image of the other runtime: where its bytes are, and the archives that carry it to the daemon.

use serde_json::Value;
use std::path::PathBuf;

/// An image whose bytes are all there.
#[derive(Debug)]
pub(crate) struct SourceImage {
    /// The name that is shown.
    pub(crate) name: String,
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

/// One archive of an image.
#[derive(Debug)]
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
