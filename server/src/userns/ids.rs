// SPDX-License-Identifier: Apache-2.0
//! The number of ids of a pod.

/// Ids of a pod: all that images use, up to `nobody`.
pub(crate) const IDS: u32 = 65_536;
