// SPDX-License-Identifier: Apache-2.0
//! The pod's and the node's share of a container's spec.

use super::{CgroupAccess, selinux};
use crate::apparmor::AppArmor;
use crate::config::{Config, DefaultSeccomp, Handler};
use hull_proto::cri;
use hull_proto::id::PodId;
use std::path::{Path, PathBuf};

/// The pod's properties that its containers need.
#[derive(Debug)]
pub(crate) struct PodInputs<'a> {
    pub(crate) id: &'a PodId,
    pub(crate) config: &'a cri::PodSandboxConfig,
    /// The user namespace that Hull assigned to the pod.
    pub(crate) assigned_userns: Option<&'a cri::UserNamespace>,
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
    /// The file of the profile that RuntimeDefault means; `None`: Hull's own.
    pub(crate) seccomp_profile: Option<PathBuf>,
    /// Directory of localhost seccomp profiles.
    pub(crate) seccomp_root: PathBuf,
    /// Directories of CDI files.
    pub(crate) cdi_spec_dirs: Vec<PathBuf>,
    /// Limits of resources, `NAME=SOFT:HARD`, that differ from those of [`crate::limits::ulimits`].
    pub(crate) ulimits: Vec<String>,
    /// Limit on the processes of a container without one of its own.
    pub(crate) pids_max: Option<u32>,
    /// The access of containers to their own cgroups.
    pub(crate) cgroup_access: CgroupAccess,
    /// The AppArmor profiles of this node.
    pub(crate) apparmor: AppArmor,
    /// The label of container processes by the node's SELinux policy; `None` on a node without SELinux.
    pub(crate) selinux: Option<String>,
    /// The capabilities that this node can give, bit n for capability n.
    pub(crate) capabilities: u64,
}

/// The defaults by the node's config and kernel, and by the pod's handler.
pub(crate) fn defaults(
    config: &Config,
    handler: Option<&Handler>,
    host: &hull_plan::HostFacts,
    apparmor: &AppArmor,
) -> Defaults {
    let native = Handler::default();
    let handler = handler.unwrap_or(&native);
    let seccomp = handler.default_seccomp.unwrap_or(config.runtime.default_seccomp);
    let ulimits = handler.default_ulimits.as_ref().unwrap_or(&config.runtime.default_ulimits);
    Defaults {
        seccomp: seccomp == DefaultSeccomp::RuntimeDefault,
        seccomp_profile: handler.seccomp_profile.clone(),
        seccomp_root: config.runtime.seccomp_root.clone(),
        cdi_spec_dirs: config.runtime.cdi_spec_dirs.clone(),
        ulimits: ulimits.clone(),
        pids_max: handler.pids_max,
        cgroup_access: CgroupAccess {
            by_handler: handler.cgroup_writable,
            has_namespaces: host.cgroup_v2,
        },
        apparmor: apparmor.clone(),
        capabilities: host.bounding_capabilities,
        selinux: host.selinux.then(|| selinux::default_label(Path::new("/"))),
    }
}
