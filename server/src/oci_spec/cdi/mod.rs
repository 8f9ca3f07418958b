// SPDX-License-Identifier: Apache-2.0
//! The container device interface (CDI): devices by name, defined in files of vendors. CDI specification 1.1.
//!
//! ```text
//! vendor.com/class=name ──▶ files of `runtime.cdi_spec_dirs` ──▶ edits ──▶ OCI spec
//! ```
//!
//! The rule: a container gets all of a requested device, or an error that names it. Files are read for each request, so
//! a driver's new file needs no restart. An invalid file only affects containers that request its devices.
//!
//! Not here: access control. The kubelet decides which containers get a device (device plugins, dynamic resource
//! allocation).

mod edits;
mod error;
mod file;
mod inject;

pub(crate) use error::Error;
pub(crate) use inject::{inject, requested_devices};

#[cfg(test)]
mod tests;
