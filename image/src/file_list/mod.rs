// SPDX-License-Identifier: Apache-2.0
//! What a layer holds, written down while it is unpacked: path, type, size, digest, mode and owner of
//! everything, and between them the bytes of the archive that are no file's.
//!
//! ```text
//! item    one thing of a layer, and its binary form
//! write   items → <root>/inventories/<layer>, and the digest of that file
//! read    the file → items, checked against its digest
//! look    is everything there, of its type and size      (cheap: no content is read)
//! verify  and of its content, mode and owner, and is nothing else there    (reads everything)
//! mend    what is wrong in a directory is replaced from a good one
//! walk    an inventory of a directory as it is, for layers that are not what their archive says
//! rebuild items and files → the archive, to the byte
//! ```
//!
//! The rule: an inventory is only trusted when it has the digest that the image's record names, and
//! nothing in it leads outside of the layer: its paths are resolved beneath the layer's descriptor.

mod finding;
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
pub(crate) use item::{Metadata, NodeKind};
pub(crate) use read::Reader;
pub(crate) use rebuild::{RebuiltArchive, length};
pub(crate) use repair::repair;
pub(crate) use scan::scan;
pub(crate) use verify::verify;
pub(crate) use walk::walk;
pub(crate) use write::Writer;

/// Reads items until something is wrong.
#[cfg(feature = "fuzz")]
pub(crate) fn read_items(bytes: &[u8]) {
    for version in [item::Version::V1, item::Version::V2] {
        let mut from = bytes;
        while item::Item::read(&mut from, version).is_ok() {}
    }
}
