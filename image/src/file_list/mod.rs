// SPDX-License-Identifier: Apache-2.0
//! The list of all files of a layer, written while it is unpacked: path, type, size, digest, mode and
//! owner of each, and between them the bytes of the archive that are not file content.
//!
//! ```text
//! item     one entry of the list, and its binary form
//! write    entries → <root>/inventories/<layer>, and the digest of that file
//! read     the file → entries, after its digest was checked
//! scan     whether every file is present, with its type and size      (reads no content)
//! verify   whether content, mode and owner are right, and nothing was added    (reads everything)
//! repair   replaces what is wrong in a directory from an intact copy
//! walk     the list of a directory as it is, for layers whose entries replace each other
//! implied  the directories that an archive implies but does not list
//! rebuild  entries and files → the archive, byte for byte
//! ```
//!
//! The rule: a file list is trusted only if it has the digest that the image's record names. Its paths
//! are resolved beneath the layer's descriptor, so none of them leads outside of the layer.

mod finding;
mod implied;
mod item;
mod lookup;
mod read;
mod rebuild;
mod repair;
mod scan;
#[cfg(test)]
mod tests;
mod verify;
mod walk;
mod write;

pub(crate) use finding::Finding;
pub(crate) use implied::implied;
pub(crate) use item::{Metadata, NodeKind};
pub(crate) use read::Reader;
pub(crate) use rebuild::{RebuiltArchive, length};
pub(crate) use repair::repair;
pub(crate) use scan::scan;
pub(crate) use verify::verify;
pub(crate) use walk::walk;
pub(crate) use write::Writer;

/// Reads entries until one is invalid.
#[cfg(feature = "fuzz")]
pub(crate) fn read_items(bytes: &[u8]) {
    for version in [item::Version::V1, item::Version::V2] {
        let mut from = bytes;
        while item::Item::read(&mut from, version).is_ok() {}
    }
}
