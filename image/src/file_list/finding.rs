// SPDX-License-Identifier: Apache-2.0
//! A difference between a file list and a directory, and what repairs it.

use super::item::Metadata;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: Vec<u8>,
    /// In words, with `it` for the path.
    pub(crate) why: String,
    pub(super) mismatch: Mismatch,
}

/// What must be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// A good one must take its place.
    Content,
    /// It is a directory, and must wear this.
    Metadata(Metadata),
    /// It must go.
    Added,
}
