// SPDX-License-Identifier: Apache-2.0
//! Text from outside (registries, archives, callers) on its way into a message, and its longest parts.

pub(crate) use hull_sys::text::shown;

/// Longest name, digest or host in a message, in bytes.
pub(crate) const NAME_MAX: usize = 512;
/// Longest reason in a message, in bytes.
pub(crate) const REASON_MAX: usize = 1024;
