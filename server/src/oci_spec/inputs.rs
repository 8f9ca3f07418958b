// SPDX-License-Identifier: Apache-2.0
//! The pod's and the node's share of a container's spec.

use super::{CgroupAccess, selinux};
use crate::apparmor::AppArmor;
use crate::config::{Config, DefaultSeccomp};
use hull_proto::cri;
use hull_proto::id::PodId;
use std::path::{Path, PathBuf};

/// The pod's properties that its containers need.
#[derive(Debug)]
pub(crate) struct PodInputs<'a> {
    pub(crate) id: &'a PodId,
    pub(crate) config: &'a cri::PodSandboxConfig,
    /// Pid of the pause process; 0 if the pod does not run.
    pub(crate) pause_pid: i32,
    pub(crate) hosts: &'a Path,
    pub(crate) resolv_conf: &'a Path,
    pub(crate) hostname: &'a Path,
}

/// The node's defaults for containers.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    /// Whether a container without a seccomp profile gets RuntimeDefault.
    pub(crate) seccomp: bool,
    /// Directory of localhost seccomp profiles.
    pub(crate) seccomp_root: PathBuf,
    /// Directories of CDI files.
    pub(crate) cdi_spec_dirs: Vec<PathBuf>,
    /// Limits of resources, `NAME=SOFT:HARD`, that differ from those of [`crate::limits::ulimits`].
    pub(crate) ulimits: Vec<String>,
    /// The access of containers to their own cgroups.
    pub(crate) cgroup_access: CgroupAccess,
    /// The AppArmor profiles of this node.
    pub(crate) apparmor: AppArmor,
    /// The label of container processes by the node's SELinux policy; `None` on a node without SELinux.
    pub(crate) selinux: Option<String>,
    /// The capabilities that this node can give, bit n for capability n.
    pub(crate) capabilities: u64,
}

/// The setting of writable cgroups, and what the kernel has for it.
pub(crate) fn cgroup_access(config: &Config, host: &hull_plan::HostFacts) -> CgroupAccess {
    CgroupAccess {
        setting: config.runtime.cgroup_writable,
        has_namespaces: host.cgroup_v2,
        delegates: host.cgroup_ns_delegate,
    }
}

/// The defaults by the node's config and kernel.
pub(crate) fn defaults(
    config: &Config,
    host: &hull_plan::HostFacts,
    apparmor: &AppArmor,
) -> Defaults {
    Defaults {
        seccomp: config.runtime.default_seccomp == DefaultSeccomp::RuntimeDefault,
        seccomp_root: config.runtime.seccomp_root.clone(),
        cdi_spec_dirs: config.runtime.cdi_spec_dirs.clone(),
        ulimits: config.runtime.default_ulimits.clone(),
        cgroup_access: cgroup_access(config, host),
        apparmor: apparmor.clone(),
        capabilities: host.bounding_capabilities,
        selinux: host.selinux.then(|| selinux::default_label(Path::new("/"))),
    }
}
