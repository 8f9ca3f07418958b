// SPDX-License-Identifier: Apache-2.0
//! The result of unpacking a layer.

use super::links::Links;

/// What was unpacked.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// About what it takes on disk.
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// Entries took the place of others: the inventory that was written is not what is there.
    pub(crate) replaced: bool,
    /// Bytes that its sparse files are long.
    pub(crate) apparent_bytes: u64,
    /// Hard links to what this layer does not have.
    pub(crate) links: Option<Links>,
}
