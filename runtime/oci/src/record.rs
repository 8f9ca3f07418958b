// SPDX-License-Identifier: Apache-2.0
//! The record of a container: everything that cannot be read from the kernel.
//!
//! Not here: whether the container runs. See [`status`](crate::status).

use oci_spec::runtime::{Hooks, LinuxMemoryPolicy, Process};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format version that this program writes. Newer records are not read.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: String,
    /// The `ociVersion` of config.json.
    pub(crate) oci_version: String,
    /// The absolute path of the bundle.
    pub(crate) bundle: String,
    /// The absolute path of the root filesystem.
    pub(crate) rootfs: String,
    /// The time of creation, RFC 3339.
    pub(crate) created: String,
    /// The cgroup's path from the root of each hierarchy, or from `cgroup_roots`.
    pub(crate) cgroup: String,
    /// The cgroups of version 1 in which its path begins, one for each hierarchy: a controller, and a path. None for the
    /// roots. Others may call the later commands.
    #[serde(default)]
    pub(crate) cgroup_roots: Vec<(String, String)>,
    /// The init process; `None` while the container is being created.
    pub(crate) first: Option<InitProcess>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// The container's process, which supplies the defaults for execs.
    pub(crate) process: Process,
    /// Whether the container has its own user namespace.
    pub(crate) user_namespace: bool,
    /// The uid maps and gid maps, each as container id, host id, length.
    pub(crate) id_maps: (Vec<[u32; 3]>, Vec<[u32; 3]>),
    /// Whether the container has its own pid namespace, in which every process ends with the init process.
    pub(crate) own_pid_namespace: bool,
    /// The execution domain of its processes, `personality(2)`; `None` for the default.
    #[serde(default)]
    pub(crate) personality: Option<u64>,
    pub(crate) hooks: Option<Hooks>,
    /// From where its processes get memory.
    #[serde(default)]
    pub(crate) memory_policy: Option<LinuxMemoryPolicy>,
    /// Whether it has no cgroup: a rootless one.
    #[serde(default)]
    pub(crate) without_cgroup: bool,
    /// The scope of systemd that is its cgroup.
    #[serde(default)]
    pub(crate) systemd_unit: Option<String>,
    /// Whether limits of memory are compared with what is in use first (`memory.checkBeforeUpdate`).
    #[serde(default)]
    pub(crate) checks_memory: bool,
    /// Where the listeners of its seccomp filters go.
    #[serde(default)]
    pub(crate) listener: Option<ListenerPlace>,
}

/// Where the listener of a filter goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerPlace {
    /// Path of the agent's socket; with `@` an abstract name.
    pub(crate) path: String,
    /// Passed on to the agent.
    pub(crate) metadata: String,
}

/// A process, identified by its pid and start time, so that a reused pid is not mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InitProcess {
    pub(crate) pid: i32,
    /// The start time in clock ticks since boot, from `/proc/PID/stat`.
    pub(crate) start_ticks: u64,
}

impl Record {
    /// The state document for hooks, without its end: the status and pid are appended.
    pub(crate) fn state_for_hooks(&self) -> String {
        let of = serde_json::json!({
            "ociVersion": self.oci_version, "id": self.id, "bundle": self.bundle,
            "annotations": self.annotations,
        });
        let mut text = of.to_string();
        text.pop();
        text.push(',');
        text
    }
}
