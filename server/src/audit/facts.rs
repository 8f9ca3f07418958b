// SPDX-License-Identifier: Apache-2.0
//! The facts about a container's isolation that the judges read. Data only.

use super::caps::Caps;
use super::mounts::MountTable;
use super::reach::Reach;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The owner of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NamespaceOwner {
    /// Only this container.
    Own,
    /// The pod: other containers share it.
    Pod,
    /// The host: it is the namespace of the node's own processes.
    Host,
}

/// One thread of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    /// Real, effective, saved and filesystem user, as numbers of the host.
    pub(crate) uids: BTreeSet<u32>,
    /// The same for groups, and the supplementary groups.
    pub(crate) gids: BTreeSet<u32>,
    pub(crate) permitted: Caps,
    pub(crate) effective: Caps,
    pub(crate) bounding: Caps,
    pub(crate) ambient: Caps,
    pub(crate) no_new_privs: bool,
    /// 0 off, 1 strict, 2 filters, `prctl(2)`.
    pub(crate) seccomp: u32,
    /// Number of installed filters; `None` on kernels that do not show it (before Linux 5.9).
    pub(crate) filters: Option<u32>,
    /// Whether it is in a user namespace that the container created itself: its capabilities apply
    /// only there.
    pub(crate) nested: bool,
}

/// One line of a `uid_map` or `gid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct IdRange {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) length: u32,
}

impl IdRange {
    /// The id in the container of an id of the host, if it is in this range.
    pub(crate) fn inside_of(&self, host: u32) -> Option<u32> {
        let offset = host.checked_sub(self.outside).filter(|offset| *offset < self.length)?;
        self.inside.checked_add(offset)
    }
}

/// Confinement by a security module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "module", content = "label")]
pub(crate) enum Lsm {
    /// The host has neither AppArmor nor SELinux.
    None,
    AppArmor(String),
    SELinux(String),
}

/// A device node below the container's /dev.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DeviceNode {
    /// Path in the container, escaped.
    pub(crate) path: String,
    /// `b` for a block device, `c` for a character device.
    pub(crate) kind: char,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// Permission bits of the node.
    pub(crate) mode: u32,
    /// Owner, as a number of the host.
    pub(crate) uid: u32,
    /// Group, as a number of the host.
    pub(crate) gid: u32,
}

impl DeviceNode {
    pub(crate) fn owned(&self) -> FileOwner {
        FileOwner { uid: self.uid, gid: self.gid, mode: self.mode }
    }
}

/// Owner, group and mode (`st_mode`) of a file, as numbers of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileOwner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

impl FileOwner {
    pub(crate) fn is_directory(self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

/// A unix socket of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub(crate) struct Socket {
    /// Path on the host, escaped.
    pub(crate) path: String,
    /// Whether its server acts with the power of root: a runtime, or a part of this daemon.
    pub(crate) of_root: bool,
    /// `None` if it could not be read.
    pub(crate) owned: Option<FileOwner>,
}

impl From<Socket> for String {
    fn from(socket: Socket) -> Self {
        socket.path
    }
}

/// Which devices the cgroup allows, whatever nodes exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "list")]
pub(crate) enum DeviceRules {
    /// cgroup v1: the rules as the kernel lists them.
    V1(Vec<String>),
    /// cgroup v2: a program, which the kernel does not show as rules.
    #[serde(rename = "eBPF")]
    Ebpf,
}

/// A mount that shows something of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HostMount {
    /// Mount point in the container, escaped.
    pub(crate) container_path: String,
    /// The path on the host that it shows, escaped.
    pub(crate) host_path: String,
    /// Whether neither the mount nor its filesystem is read-only.
    pub(crate) writable: bool,
    /// Whether ids on it are those of the container: root of its user namespace writes as root of the host.
    pub(crate) idmapped: bool,
    /// Whether mounts below it propagate to the host.
    pub(crate) shared: bool,
    /// Sockets of the host below it.
    pub(crate) sockets: Vec<Socket>,
    /// Why the search for sockets is incomplete.
    pub(crate) search_cut: Option<String>,
    /// Whether it shows this daemon's `data_dir` or `state_dir`, or is in them.
    pub(crate) of_daemon: bool,
    /// `None` if it could not be read.
    #[serde(skip)]
    pub(crate) owned: Option<FileOwner>,
}

/// Facts from the daemon's records, which the kernel does not show.
#[derive(Debug, Clone, Default)]
pub(crate) struct DaemonFacts {
    /// The first process of the container.
    pub(crate) pid: i32,
    /// The cgroup of the container, relative to the root of each hierarchy.
    pub(crate) cgroup: String,
    /// The Kubernetes uid of the pod, which names the directory of its volumes.
    pub(crate) pod_uid: String,
    /// The daemon's directories of the pod, with its hosts, hostname and resolv.conf; pods of earlier
    /// releases have these files beside the monitor's socket.
    pub(crate) pod_dirs: Vec<String>,
    /// The daemon's sockets, with all symlinks in their paths resolved.
    pub(crate) sockets: Vec<String>,
    /// The daemon's `state_dir` and `data_dir`, with all symlinks in their paths resolved.
    pub(crate) daemon_dirs: Vec<String>,
    /// Devices in the spec of the container, by path in the container.
    pub(crate) devices: Vec<String>,
    /// The pause process of the pod, or 0. Its user namespace is that of the pod.
    pub(crate) pause: i32,
    /// Processes in the namespaces of the pod: pause, and the first processes of the other containers.
    pub(crate) of_pod: Vec<i32>,
    /// Host ports that lead to the pod.
    pub(crate) host_ports: Vec<i64>,
    /// Sysctls of the pod.
    pub(crate) sysctls: Vec<String>,
}

/// All facts about one container.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) pid: i32,
    /// The name of its pid namespace in /proc.
    pub(crate) pid_namespace: String,
    pub(crate) namespaces: BTreeMap<&'static str, NamespaceOwner>,
    /// Threads of all processes of the container, those of the first process first.
    pub(crate) threads: Vec<Thread>,
    /// Whether there were more threads than the audit reads.
    pub(crate) more_threads: bool,
    pub(crate) uid_map: Vec<IdRange>,
    pub(crate) gid_map: Vec<IdRange>,
    pub(crate) lsm: Lsm,
    pub(crate) mounts: MountTable,
    pub(crate) host_mounts: Vec<HostMount>,
    pub(crate) nodes: Vec<DeviceNode>,
    /// Why parts of /dev were not audited, escaped.
    pub(crate) unseen: Vec<String>,
    pub(crate) rules: DeviceRules,
    /// Sockets on the host network on which the container listens.
    pub(crate) listening: Vec<String>,
    /// The judged paths of /proc and /sys that exist in this kernel.
    pub(crate) kernel_has: BTreeSet<&'static str>,
    pub(crate) host_ports: Vec<i64>,
    pub(crate) sysctls: Vec<String>,
}

/// The union of the privileges of all threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Widest {
    pub(crate) permitted: Caps,
    pub(crate) effective: Caps,
    pub(crate) bounding: Caps,
    pub(crate) ambient: Caps,
    pub(crate) no_new_privs: bool,
    pub(crate) seccomp: u32,
    pub(crate) filters: Option<u32>,
}

impl Facts {
    /// The owner of the namespace of a kind; a kind that the kernel lacks counts as that of the host.
    pub(crate) fn namespace(&self, kind: &str) -> NamespaceOwner {
        self.namespaces.get(kind).copied().unwrap_or(NamespaceOwner::Host)
    }

    /// Whether a user namespace separates it from root of the host.
    pub(crate) fn is_mapped(&self) -> bool {
        let has_root = self.uid_map.iter().any(|range| range.inside_of(0).is_some());
        self.namespace("user") != NamespaceOwner::Host && !has_root
    }

    /// `reach`, or none if a user namespace separates it from root of the host.
    pub(crate) fn unless_mapped(&self, reach: Reach) -> Reach {
        if self.is_mapped() { Reach::None } else { reach }
    }

    /// The user in the container of a user id of the host, if it is mapped.
    pub(crate) fn inside(&self, host: u32) -> Option<u32> {
        self.uid_map.iter().find_map(|range| range.inside_of(host))
    }

    /// Whether any thread runs as root of the container.
    pub(crate) fn has_root(&self) -> bool {
        let uids = self.threads.iter().flat_map(|thread| &thread.uids);
        uids.into_iter().any(|uid| self.inside(*uid) == Some(0))
    }

    /// The union of all threads' privileges: an attacker may control any of them.
    pub(crate) fn widest(&self) -> Widest {
        let mut widest = Widest {
            permitted: Caps::default(),
            effective: Caps::default(),
            bounding: Caps::default(),
            ambient: Caps::default(),
            no_new_privs: true,
            seccomp: 2,
            filters: None,
        };
        for thread in &self.threads {
            if !thread.nested {
                widest.permitted = widest.permitted.union(thread.permitted);
                widest.effective = widest.effective.union(thread.effective);
                widest.bounding = widest.bounding.union(thread.bounding);
                widest.ambient = widest.ambient.union(thread.ambient);
            }
            widest.no_new_privs &= thread.no_new_privs;
            if thread.seccomp == 0 {
                widest.seccomp = 0;
            }
            widest.filters = match (widest.filters, thread.filters) {
                (Some(fewest), Some(these)) => Some(fewest.min(these)),
                (one, other) => one.or(other),
            };
        }
        widest
    }

    /// The capabilities that a program can acquire: those of the threads, and without no_new_privs those of files.
    pub(crate) fn acquirable_capabilities(&self) -> Caps {
        let widest = self.widest();
        let held = widest.effective.union(widest.permitted);
        if widest.no_new_privs { held } else { held.union(widest.bounding) }
    }

    /// Whether it is, or can become, root of the host: user 0 in the user namespace of the host.
    pub(crate) fn is_host_root(&self) -> bool {
        let is_root = self.threads.iter().any(|thread| !thread.nested && thread.uids.contains(&0));
        self.namespace("user") == NamespaceOwner::Host
            && (is_root || self.acquirable_capabilities().has("SETUID"))
    }

    /// Whether a thread may access a file as in `bits` (4 read, 2 write, 1 search), by its mode or
    /// by a capability. On an idmapped mount, owners are ids of the container.
    pub(crate) fn may_access(&self, of: FileOwner, bits: u32, idmapped: bool) -> bool {
        let group = |host: u32| self.gid_map.iter().find_map(|range| range.inside_of(host));
        let by_mode = self.threads.iter().any(|thread| {
            let is = |id: &u32| {
                if idmapped { self.inside(*id) == Some(of.uid) } else { *id == of.uid }
            };
            let of_group =
                |id: &u32| if idmapped { group(*id) == Some(of.gid) } else { *id == of.gid };
            let (owns, in_group) = (thread.uids.iter().any(is), thread.gids.iter().any(of_group));
            // The owner can change the mode.
            let bits_of_class = match (owns, in_group) {
                (true, _) if bits & 2 != 0 => 0o7,
                (true, _) => of.mode >> 6,
                (false, true) => of.mode >> 3,
                (false, false) => of.mode,
            };
            bits_of_class & bits == bits
        });
        let counts = !self.is_mapped() || idmapped || self.inside(of.uid).is_some();
        let held = self.acquirable_capabilities();
        let names: &[&str] = match bits & 2 {
            0 => &["DAC_OVERRIDE", "DAC_READ_SEARCH", "SETUID"],
            _ => &["DAC_OVERRIDE", "SETUID", "CHOWN", "FOWNER"],
        };
        by_mode || counts && names.iter().any(|name| held.has(name))
    }

    /// Whether the facts are those of `privileged: true`, whatever the spec says.
    pub(crate) fn looks_privileged(&self) -> bool {
        let widest = self.widest();
        let sys = self.mounts.at("/sys");
        let sys_writable = sys.is_some_and(|mount| mount.fstype == "sysfs" && !mount.read_only);
        widest.seccomp == 0 && widest.bounding.has("SYS_ADMIN") && sys_writable
    }
}
