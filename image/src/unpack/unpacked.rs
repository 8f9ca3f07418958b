// SPDX-License-Identifier: Apache-2.0
//! The result of unpacking a layer.

use super::links::Links;
use crate::limits::ImpliedNames;

/// An unpacked layer.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Approximate disk usage.
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// Whether entries replaced others, so that the file list differs from the directory.
    pub(crate) replaced: bool,
    /// The length of its sparse files, holes included.
    pub(crate) apparent_bytes: u64,
    /// Hard links to files of layers below.
    pub(crate) links: Option<Links>,
    /// The directories that no entry lists, sorted. The root's path is empty.
    pub(crate) implied: Vec<Vec<u8>>,
    /// The memory for them.
    pub(crate) names: ImpliedNames,
    /// Whether an opaque mark of its root hides all layers below.
    pub(crate) hides_below: bool,
}
