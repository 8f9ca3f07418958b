// SPDX-License-Identifier: Apache-2.0
//! What is known of a container's isolation before it is judged. Data alone.

use super::caps::Caps;
use super::mounts::Table;
use super::reach::Reach;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Whose a namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shared {
    /// The container's alone.
    Own,
    /// Shared with other containers of its pod.
    Pod,
    /// The host's.
    Host,
}

/// One thread of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    /// Real, effective, saved and filesystem user, as the host has them.
    pub(crate) uids: BTreeSet<u32>,
    /// Likewise groups, the supplementary ones included.
    pub(crate) gids: BTreeSet<u32>,
    pub(crate) permitted: Caps,
    pub(crate) effective: Caps,
    pub(crate) bounding: Caps,
    pub(crate) ambient: Caps,
    pub(crate) no_new_privs: bool,
    /// 0 off, 1 strict, 2 filters, `prctl(2)`.
    pub(crate) seccomp: u32,
    /// Filters installed; `None` on kernels that do not tell (before Linux 5.9).
    pub(crate) filters: Option<u32>,
    /// Whether it is in a user namespace that the container made itself: its capabilities count
    /// only there.
    pub(crate) nested: bool,
}

/// One line of a map of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct IdRange {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) length: u32,
}

impl IdRange {
    /// The id inside that a host's id has in this range.
    pub(crate) fn inside_of(&self, host: u32) -> Option<u32> {
        let offset = host.checked_sub(self.outside).filter(|offset| *offset < self.length)?;
        self.inside.checked_add(offset)
    }
}

/// What confines it beside capabilities and seccomp.
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
pub(crate) struct Node {
    /// Path inside, escaped.
    pub(crate) path: String,
    /// `b` or `c`.
    pub(crate) kind: char,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner as the host has it.
    pub(crate) uid: u32,
    /// Its group, as the host has it.
    pub(crate) gid: u32,
}

impl Node {
    pub(crate) fn owned(&self) -> Owned {
        Owned { uid: self.uid, gid: self.gid, mode: self.mode }
    }
}

/// Who owns a file, as the host has it, and for whom it opens (`st_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

impl Owned {
    pub(crate) fn is_directory(self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

/// A socket of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub(crate) struct Socket {
    /// Escaped.
    pub(crate) path: String,
    /// Its server does all that root can: a runtime, or a part of this daemon.
    pub(crate) of_root: bool,
    /// `None` where it could not be asked for.
    pub(crate) owned: Option<Owned>,
}

impl From<Socket> for String {
    fn from(socket: Socket) -> Self {
        socket.path
    }
}

/// Which devices may be opened, whatever nodes there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "list")]
pub(crate) enum DeviceRules {
    /// cgroup v1: the kernel's list.
    V1(Vec<String>),
    /// cgroup v2: a program, which the kernel does not tell as rules.
    #[serde(rename = "eBPF")]
    Ebpf,
}

/// A mount that shows something of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HostMount {
    /// Where it is inside, escaped.
    pub(crate) container_path: String,
    /// What of the host it is, escaped.
    pub(crate) host_path: String,
    /// Neither the mount nor its filesystem is read-only.
    pub(crate) writable: bool,
    /// Ids on it are those inside: root of a user namespace writes as root of the host.
    pub(crate) idmapped: bool,
    /// What is mounted in it arrives on the host.
    pub(crate) shared: bool,
    /// Sockets of the host that it reaches.
    pub(crate) sockets: Vec<Socket>,
    /// Where the search for sockets ended before all was seen.
    pub(crate) search_cut: Option<String>,
    /// Whether it shows this daemon's `data_dir` or `state_dir`, or is in them.
    pub(crate) of_daemon: bool,
    /// `None` where it could not be asked for.
    #[serde(skip)]
    pub(crate) owned: Option<Owned>,
}

/// What the daemon's record knows and the kernel does not show.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    /// The process.
    pub(crate) pid: i32,
    /// Its cgroup below each hierarchy's root.
    pub(crate) cgroup: String,
    /// The pod's uid at the kubelet, which names the directory of its volumes.
    pub(crate) pod_uid: String,
    /// The pod's directories of the daemon, with its hosts, hostname and resolv.conf; pods of earlier
    /// releases have those beside the monitor's socket.
    pub(crate) pod_dirs: Vec<String>,
    /// The daemon's sockets, without links in their paths.
    pub(crate) sockets: Vec<String>,
    /// The daemon's `state_dir` and `data_dir`, without links in their paths.
    pub(crate) daemon_dirs: Vec<String>,
    /// Devices that its spec asks for, by path inside.
    pub(crate) devices: Vec<String>,
    /// The pod's pause process, 0 when there is none: its user namespace is the pod's.
    pub(crate) pause: i32,
    /// Processes whose namespaces are the pod's: pause and the first of the other containers.
    pub(crate) of_pod: Vec<i32>,
    /// Ports of the host that lead into the pod.
    pub(crate) host_ports: Vec<i64>,
    /// Settings of the kernel that the pod asked for.
    pub(crate) sysctls: Vec<String>,
}

/// All that is known.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) pid: i32,
    /// The kernel's name of its pid namespace.
    pub(crate) pid_namespace: String,
    pub(crate) namespaces: BTreeMap<&'static str, Shared>,
    /// Threads of all processes of the container, the first process's first.
    pub(crate) threads: Vec<Thread>,
    /// Whether there were more threads than are looked at.
    pub(crate) more_threads: bool,
    pub(crate) uid_map: Vec<IdRange>,
    pub(crate) gid_map: Vec<IdRange>,
    pub(crate) lsm: Lsm,
    pub(crate) mounts: Table,
    pub(crate) host_mounts: Vec<HostMount>,
    pub(crate) nodes: Vec<Node>,
    /// Why parts of /dev were not looked at, escaped.
    pub(crate) unseen: Vec<String>,
    pub(crate) rules: DeviceRules,
    /// Sockets on the host's network that the container listens at.
    pub(crate) listening: Vec<String>,
    /// Of the paths of /proc and /sys that are judged, those that this kernel has.
    pub(crate) kernel_has: BTreeSet<&'static str>,
    pub(crate) host_ports: Vec<i64>,
    pub(crate) sysctls: Vec<String>,
}

/// The widest rights that any thread has.
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
    /// Whose a namespace of this kind is; a kind that the kernel lacks is everybody's.
    pub(crate) fn of(&self, kind: &str) -> Shared {
        self.namespaces.get(kind).copied().unwrap_or(Shared::Host)
    }

    /// Whether a user namespace stands between it and the host's root.
    pub(crate) fn is_mapped(&self) -> bool {
        let has_root = self.uid_map.iter().any(|range| range.inside_of(0).is_some());
        self.of("user") != Shared::Host && !has_root
    }

    /// `reach`, unless a user namespace is between.
    pub(crate) fn unless_mapped(&self, reach: Reach) -> Reach {
        if self.is_mapped() { Reach::None } else { reach }
    }

    /// The user inside whom an id of the host is.
    pub(crate) fn inside(&self, host: u32) -> Option<u32> {
        self.uid_map.iter().find_map(|range| range.inside_of(host))
    }

    /// Whether a thread runs as root of the container.
    pub(crate) fn has_root(&self) -> bool {
        let uids = self.threads.iter().flat_map(|thread| &thread.uids);
        uids.into_iter().any(|uid| self.inside(*uid) == Some(0))
    }

    /// The widest of all threads: who breaks in may come by any of them.
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

    /// What a program can come by: what threads have, and without no_new_privs what a file may give.
    pub(crate) fn within_reach(&self) -> Caps {
        let widest = self.widest();
        let held = widest.effective.union(widest.permitted);
        if widest.no_new_privs { held } else { held.union(widest.bounding) }
    }

    /// Whether it is, or can make itself, the host's own root: user 0, in the host's user namespace.
    pub(crate) fn is_host_root(&self) -> bool {
        let is_root = self.threads.iter().any(|thread| !thread.nested && thread.uids.contains(&0));
        self.of("user") == Shared::Host && (is_root || self.within_reach().has("SETUID"))
    }

    /// Whether a thread may use a file in the ways of `bits` (4 read, 2 write, 1 search), by its mode or
    /// by a capability. On a mount with mapped ids (`idmapped`) owners are those inside.
    pub(crate) fn may(&self, of: Owned, bits: u32, idmapped: bool) -> bool {
        let group = |host: u32| self.gid_map.iter().find_map(|range| range.inside_of(host));
        let by_mode = self.threads.iter().any(|thread| {
            let is = |id: &u32| {
                if idmapped { self.inside(*id) == Some(of.uid) } else { *id == of.uid }
            };
            let of_group =
                |id: &u32| if idmapped { group(*id) == Some(of.gid) } else { *id == of.gid };
            let (owns, in_group) = (thread.uids.iter().any(is), thread.gids.iter().any(of_group));
            // Its owner changes the mode.
            let bits_of_class = match (owns, in_group) {
                (true, _) if bits & 2 != 0 => 0o7,
                (true, _) => of.mode >> 6,
                (false, true) => of.mode >> 3,
                (false, false) => of.mode,
            };
            bits_of_class & bits == bits
        });
        let counts = !self.is_mapped() || idmapped || self.inside(of.uid).is_some();
        let held = self.within_reach();
        let names: &[&str] = match bits & 2 {
            0 => &["DAC_OVERRIDE", "DAC_READ_SEARCH", "SETUID"],
            _ => &["DAC_OVERRIDE", "SETUID", "CHOWN", "FOWNER"],
        };
        by_mode || counts && names.iter().any(|name| held.has(name))
    }

    /// What `privileged: true` leaves behind, whatever the spec called it.
    pub(crate) fn looks_privileged(&self) -> bool {
        let widest = self.widest();
        let sys = self.mounts.at("/sys");
        let sys_writable = sys.is_some_and(|mount| mount.fstype == "sysfs" && !mount.read_only);
        widest.seccomp == 0 && widest.bounding.has("SYS_ADMIN") && sys_writable
    }
}
