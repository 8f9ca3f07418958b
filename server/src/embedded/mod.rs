// SPDX-License-Identifier: Apache-2.0
//! The programs that run in every pod, and the OCI runtime alone, embedded: one binary is all a node needs.

pub(crate) mod oci;

/// The monitor, static (see `build.rs`).
pub(crate) static MONITOR: &[u8] = include_bytes!(env!("HULL_MONITOR_PROGRAM"));

/// The pause process, static.
pub(crate) static PAUSE: &[u8] = include_bytes!(env!("HULL_PAUSE_PROGRAM"));

/// The OCI runtime alone, static.
pub(crate) static OCI: &[u8] = include_bytes!(env!("HULL_OCI_PROGRAM"));
