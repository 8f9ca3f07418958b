// SPDX-License-Identifier: Apache-2.0
//! Facts about the host, read once.

use std::fs;

/// Facts about the host that a plan depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Capabilities that can be handed on: our own bounding set.
    pub bounding_capabilities: u64,
    /// AppArmor is on.
    pub apparmor: bool,
    /// SELinux is on.
    pub selinux: bool,
    /// No v1 hierarchies: containers get a cgroup namespace.
    pub cgroup_v2: bool,
    /// In a cgroup namespace, the limits of its root cannot be changed.
    pub cgroup_ns_delegate: bool,
}

impl HostFacts {
    /// Reads them from /proc and /sys. An unreadable one counts as absent.
    #[must_use]
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        let selinux = fs::metadata("/sys/fs/selinux/enforce").is_ok();
        let cgroup = hull_cgroup::CgroupFs::detect()
            .map(|host| (host.version(), host.delegates_to_namespaces()));
        Self {
            bounding_capabilities: bounding
                .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
                .unwrap_or(0),
            apparmor: apparmor.is_ok_and(|text| text.trim() == "Y"),
            selinux,
            cgroup_v2: matches!(cgroup, Ok((hull_cgroup::Version::V2, _))),
            cgroup_ns_delegate: matches!(cgroup, Ok((_, true))),
        }
    }
}
