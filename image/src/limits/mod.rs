// SPDX-License-Identifier: Apache-2.0
//! Limits on the cost of an image: every limit with its name, in one table. Errors name the limit, and the
//! table under "Budgets" in docs/security.md is made of it.
//!
//! ```text
//! budget  how much: bytes, entries, headers, names
//! work    how long: processor time, and cancellation; what the layers of a pull share
//! ```
//!
//! The rule: whatever grows with untrusted content is counted before it is stored, written or processed.

mod budget;
mod implied_names;
mod windows;
mod work;

pub(crate) use implied_names::ImpliedNames;
pub(crate) use windows::Window;
pub(crate) use work::{Ended, Shift, Work};

pub use budget::{
    ARCHIVE_BYTES, BUDGETS, DOCUMENT_VALUES, HEADER_BYTES, IMAGE_VOLUMES, IMPLIED_NAME_BYTES,
    LAYER_APPARENT_BYTES, LAYER_BYTES, LAYER_ENTRIES, LAYER_SECONDS, LINKED_FILES, Limits,
    SPARSE_PIECES, STALL_S, WAITING_LINKS, XZ_MEMORY_BYTES, ZSTD_WINDOW_BYTES, ZSTD_WINDOWS_BYTES,
    tables,
};
pub(crate) use budget::{
    CONFIG_BYTES, CONNECT_S, ERROR_BYTES, HELPER_S, LAYERS, MANIFEST_BYTES, REDIRECTS, TOKEN_BYTES,
    TRIES, TRIES_WITHOUT_PROGRESS, hint,
};
pub use hull_sys::budget::{Budget, Unit};
