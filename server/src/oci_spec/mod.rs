// SPDX-License-Identifier: Apache-2.0
//! Builds an OCI runtime spec from CRI config and image config. Pure, except for localhost seccomp profiles, host
//! devices, CDI files, hook files, classes of resources and the configuration of SELinux.
//!
//! `crictl inspect` shows this spec, and the plan is built from it, so there is one definition of a container. The code
//! writes it as JSON, the form that people know.

pub(crate) mod cdi;
mod cgroup_access;
pub(crate) mod classes;
mod command;
mod container;
mod devices;
pub(crate) mod edit;
mod error;
mod fields;
pub(crate) mod hooks_dir;
mod inputs;
mod mounts;
mod namespaces;
mod network;
pub(crate) mod node_file;
mod remarks;
mod resources;
pub(crate) mod run_options;
mod sandbox;
mod security;
mod selinux;
mod signals;
pub(crate) mod user;
pub(crate) mod userns;

pub(crate) use cgroup_access::{ANNOTATION as CGROUP_WRITABLE, CgroupAccess};
pub(crate) use command::{args as command_line, check_variable};
pub(crate) use container::{CONSOLE_SIZE, SpecRequest, container};
pub(crate) use devices::keep_owners;
pub(crate) use error::Error;
pub(crate) use inputs::{PodInputs, defaults};
pub(crate) use mounts::{SHM_SOURCE, VOLUME_SOURCE, check_bind, image_source};
pub(crate) use namespaces::{hostname, mode as namespace_mode};
pub(crate) use network::{bandwidth, dns};
pub(crate) use remarks::remarks;
pub(crate) use resources::{check_oom_score, limits, merge_resources};
pub(crate) use sandbox::{PauseRequest, pause, ports};
pub(crate) use security::{DEFAULT_CAPABILITIES, has_localhost_filter, profile as seccomp_profile};
pub(crate) use signals::{signal_of_kernel, stop_signal};

use hull_proto::cri;

/// The version of the OCI runtime spec.
const OCI_VERSION: &str = "1.2.1";

/// The namespace options of a container's config.
pub(crate) fn namespace_options(config: &cri::ContainerConfig) -> Option<&cri::NamespaceOption> {
    config.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref()
}
