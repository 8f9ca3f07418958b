// SPDX-License-Identifier: Apache-2.0
//! CRI config and image config into an OCI runtime spec. Pure, but for a localhost seccomp profile,
//! which is a file.
//!
//! The spec is what `crictl inspect` shows and what the plan is made from: there is one truth of a
//! container. It is written as JSON text, because that is the form people know it in.

pub(crate) mod cdi;
mod command;
mod container;
mod devices;
pub(crate) mod edit;
mod error;
mod mounts;
mod namespaces;
mod network;
mod resources;
mod sandbox;
mod security;
mod signals;
pub(crate) mod user;
pub(crate) mod userns;

pub(crate) use command::check_variable;
pub(crate) use container::{PodView, Request, container, defaults};
pub(crate) use devices::keep_owners;
pub(crate) use error::Error;
pub(crate) use mounts::{SHM_SOURCE, check_bind, image_source};
pub(crate) use namespaces::mode as namespace_mode;
pub(crate) use network::{bandwidth, dns};
pub(crate) use resources::{check_oom_score, limits, merge_resources};
pub(crate) use sandbox::{pause, ports};
pub(crate) use signals::{signal_of_kernel, stop_signal};

use hull_proto::cri;

/// Version of the OCI runtime spec that is written.
const OCI_VERSION: &str = "1.2.1";

/// A container's own namespace options.
pub(crate) fn namespace_options(config: &cri::ContainerConfig) -> Option<&cri::NamespaceOption> {
    config.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref()
}
