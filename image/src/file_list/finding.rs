// SPDX-License-Identifier: Apache-2.0
//! A difference between a file list and a directory, and what repairs it.

use super::item::Metadata;

/// A file that differs from the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: Vec<u8>,
    /// How it differs, as a sentence about `it`.
    pub(crate) why: String,
    pub(super) mismatch: Mismatch,
}

/// The kind of difference, which decides how it is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The file must be replaced by an intact copy.
    Content,
    /// The directory must get this metadata.
    Metadata(Metadata),
    /// The file must be removed.
    Added,
}
