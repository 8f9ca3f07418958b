// SPDX-License-Identifier: Apache-2.0
//! All unsafe code and raw system calls of Hull, one wrapper per call.
//!
//! The rule kept here: every wrapper takes and gives owned or borrowed descriptors, names its man
//! page and first kernel, and fails with an [`Error`] that reads like a line of strace. Safe calls
//! that rustix has are used from rustix directly; [`Error::of`] gives their errors the same form.

mod error;

pub use error::{Error, Result};
