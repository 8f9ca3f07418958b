// SPDX-License-Identifier: Apache-2.0
//! `features`: what is done here, in the form of the runtime spec's features document.

use serde_json::json;

/// The newest version of the runtime spec that is known here.
pub(crate) const SPEC_MAX: &str = "1.3.0";
const SPEC_MIN: &str = "1.0.0";

/// In the order of their letters, with blanks between them.
const MOUNT_OPTIONS: &str = "\
    async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noatime nodev \
    nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private \
    ratime rbind rdev rdiratime relatime rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime \
    rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid \
    rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable";

/// The document, on lines.
pub(crate) fn features() -> String {
    let of = json!({
        "ociVersionMin": SPEC_MIN,
        "ociVersionMax": SPEC_MAX,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
        ],
        "mountOptions": MOUNT_OPTIONS.split_whitespace().collect::<Vec<_>>(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": hull_plan::capabilities::prefixed_names(),
            "cgroup": {
                "v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                ],
                "archs": [
                    "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86",
                    "SCMP_ARCH_X86_64",
                ],
                "knownFlags": FILTER_FLAGS,
                "supportedFlags": FILTER_FLAGS,
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
            "memoryPolicy": {
                "modes": [
                    "MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE",
                ],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
            },
        },
        "potentiallyUnsafeConfigAnnotations": [],
        "annotations": {"io.hull.version": env!("CARGO_PKG_VERSION")},
    });
    format!("{of:#}\n")
}

const FILTER_FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
