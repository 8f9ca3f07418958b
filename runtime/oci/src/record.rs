// SPDX-License-Identifier: Apache-2.0
//! What is written down of a container: what the kernel cannot be asked for.
//!
//! Not here: whether it runs. See [`status`](crate::status).

use oci_spec::runtime::{Hooks, Process};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of the form that is written. One that is newer is not read.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: String,
    /// As the container's config.json says.
    pub(crate) oci_version: String,
    /// Absolute.
    pub(crate) bundle: String,
    /// Absolute.
    pub(crate) rootfs: String,
    /// RFC 3339.
    pub(crate) created: String,
    /// From the root of each hierarchy.
    pub(crate) cgroup: String,
    /// Its first process; none while it is being created.
    pub(crate) first: Option<First>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Where execs take from what they do not say themselves.
    pub(crate) process: Process,
    /// Its user namespace is not ours.
    pub(crate) user_namespace: bool,
    /// Inside, outside, length, of users; then of groups.
    pub(crate) id_maps: (Vec<[u32; 3]>, Vec<[u32; 3]>),
    /// Its pid namespace is its own: everything in it ends with its first process.
    pub(crate) own_pid_namespace: bool,
    pub(crate) hooks: Option<Hooks>,
}

/// A process, told from a later one of the same number by its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct First {
    pub(crate) pid: i32,
    /// In clock ticks since boot, as `/proc/PID/stat` has it.
    pub(crate) start_ticks: u64,
}

impl Record {
    /// What hooks are told, open at its end: status and process are put to it.
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
