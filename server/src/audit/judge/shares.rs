// SPDX-License-Identifier: Apache-2.0
//! What it shares with others: namespaces, the host's files, sockets and ports, cgroups.

use super::finding::{Finding, NOT_PRIVILEGED, some_of};
use crate::audit::facts::{Facts, HostMount, Owned, Shared};
use crate::audit::mounts::{is_within, moved};
use crate::audit::reach::Reach;
use std::collections::BTreeMap;

/// Who writes here is root on the host soon: programs, their settings, what starts them.
const OF_ROOT: [&str; 14] = [
    "/bin",
    "/boot",
    "/etc",
    "/lib",
    "/lib64",
    "/opt",
    "/root",
    "/sbin",
    "/usr",
    "/var/lib/hull",
    "/var/lib/kubelet",
    "/var/spool/cron",
    "/run/hull",
    "/run/systemd",
];
/// Who reads here has credentials of the node and of its pods.
const SECRET: [&str; 5] = ["/etc", "/root", "/home", "/var/lib/kubelet", "/run/hull"];
pub(super) fn judge(facts: &Facts, all: &mut Vec<Finding>) {
    namespaces(facts, all);
    for mount in &facts.host_mounts {
        host_mount(facts, mount, all);
    }
    host_ports(facts, all);
    cgroups(facts, all);
}

fn host_ports(facts: &Facts, all: &mut Vec<Finding>) {
    if facts.host_ports.is_empty() {
        return;
    }
    let ports: Vec<String> = facts.host_ports.iter().map(ToString::to_string).collect();
    all.push(Finding {
        id: "host-ports",
        what: format!(
            "ports of the host lead to it: {}: whoever reaches the node reaches it",
            some_of(&ports, 8)
        ),
        reach: Reach::None,
        fix: "no ports[*].hostPort".into(),
    });
}

/// How far it gets by the host's own procfs, and why.
fn by_procfs(facts: &Facts) -> Option<&'static str> {
    let on_host = facts.of("user") == Shared::Host;
    if on_host && facts.within_reach().has("SYS_PTRACE") {
        Some(
            "; with CAP_SYS_PTRACE, /proc/<pid>/root of any process of the host leads to all files",
        )
    } else if facts.is_host_root() {
        // ptrace(2): same user, and no capability that the other has and it has not.
        Some(
            "; as root, /proc/<pid>/root of a process of the host's root that has no more capabilities than it \
             leads to all files, unless a security module forbids it",
        )
    } else {
        None
    }
}

fn namespaces(facts: &Facts, all: &mut Vec<Finding>) {
    let mut add = |id, what: String, reach, fix: &str| {
        all.push(Finding { id, what, reach, fix: fix.into() });
    };
    if facts.of("pid") == Shared::Host {
        let leads = by_procfs(facts);
        let what = format!(
            "the host's pid namespace: it sees every process of the node, and signals those of its user{}",
            leads.unwrap_or_default()
        );
        let reach = if leads.is_some() { Reach::Host } else { Reach::Node };
        add("host-pid", what, reach, "spec.hostPID: false");
    }
    if facts.of("net") == Shared::Host {
        let listens = match facts.listening.as_slice() {
            [] => String::new(),
            some => format!("; it listens at {}", some_of(some, 8)),
        };
        let what = format!(
            "the host's network: services on the node's loopback and its abstract sockets are within reach{listens}"
        );
        add("host-network", what, Reach::Node, "spec.hostNetwork: false");
    }
    if facts.of("ipc") == Shared::Host {
        let what = "the host's ipc namespace: shared memory of the node's processes";
        add("host-ipc", what.into(), Reach::Node, "spec.hostIPC: false");
    }
    if facts.of("mnt") == Shared::Host {
        let what = "the host's mount namespace: every file of the node";
        add(
            "host-mounts",
            what.into(),
            facts.unless_mapped(Reach::Host),
            "run it in a container again: restart the pod",
        );
    }
    if facts.of("pid") == Shared::Pod {
        let what = "one pid namespace for its pod: processes of the other containers, their environment and \
                    files by /proc/<pid>/root are within reach";
        add("shared-pid", what.into(), Reach::Pod, "spec.shareProcessNamespace: false");
    }
}

fn host_mount(facts: &Facts, mount: &HostMount, all: &mut Vec<Finding>) {
    let HostMount { container_path, host_path, writable, .. } = mount;
    // On an idmapped mount root inside is root there; elsewhere it is nobody.
    let as_root = |reach| if mount.idmapped { reach } else { facts.unless_mapped(reach) };
    host_sockets(facts, mount, all);
    let access = if *writable { "writable" } else { "read-only" };
    let covers = |list: &[&str]| {
        list.iter().any(|path| is_within(host_path, path) || is_within(path, host_path))
    };
    let of_kernel = ["/proc", "/sys", "/dev"].iter().any(|path| is_within(host_path, path));
    let procfs = if shows_processes(host_path) { by_procfs(facts) } else { None };
    let (reach, why) = match writable {
        true if of_kernel => (Reach::Host, "settings and devices of the machine"),
        true if mount.of_daemon => {
            (Reach::Host, "what this daemon keeps of every pod and believes")
        }
        true if covers(&OF_ROOT) => (Reach::Host, "what root of the host executes or believes"),
        true => (Reach::Node, "what programs and pods that use the same path believe"),
        false if procfs.is_some() => (Reach::Host, "the processes of the node"),
        false if of_kernel => (Reach::Node, "what the kernel tells of all of the node"),
        false if mount.of_daemon => (Reach::Node, "images, files and records of other pods"),
        false if covers(&SECRET) => (Reach::Node, "credentials of the node and its pods"),
        false => (Reach::None, "nothing that is known to be secret"),
    };
    let (reach, but) = match mount.owned {
        Some(owned) if !of_kernel => by_owner(facts, mount, owned, reach),
        _ => (reach, ""),
    };
    let fix = if *writable {
        format!(
            "volumeMounts[{container_path}].readOnly: true with recursiveReadOnly: Enabled, or a volume that is not hostPath"
        )
    } else {
        format!("a volume that is not hostPath at {container_path}")
    };
    let cut =
        mount.search_cut.as_ref().map_or(String::new(), |cut| format!(". Not all was seen: {cut}"));
    let what = format!(
        "{host_path} of the host at {container_path}, {access}: {why}{but}{}{cut}",
        procfs.unwrap_or_default()
    );
    all.push(Finding { id: "host-path", what, reach: as_root(reach), fix });
    if mount.shared && facts.widest().bounding.has("SYS_ADMIN") {
        all.push(Finding {
            id: "mounts-reach-host",
            what: format!("what it mounts below {container_path} is mounted on the host too"),
            reach: as_root(Reach::Host),
            fix: format!("volumeMounts[{container_path}].mountPropagation: None"),
        });
    }
}

/// /proc itself, or a process in it.
fn shows_processes(host_path: &str) -> bool {
    let Some(below) = moved(host_path, "/proc", "/") else { return false };
    let first = below.trim_start_matches('/').split('/').next().unwrap_or_default();
    first.bytes().all(|byte| byte.is_ascii_digit())
}

/// `reach`, as far as modes and owners let it go there.
fn by_owner(facts: &Facts, mount: &HostMount, owned: Owned, reach: Reach) -> (Reach, &'static str) {
    let may = |bits| facts.may(owned, bits, mount.idmapped);
    let wanted = if mount.writable { 2 } else { 4 };
    match owned.is_directory() {
        true if !may(1) => (Reach::None, "; its mode keeps it from all of that"),
        // What lies in it may be its own, or everybody's.
        true if mount.writable && !may(2) => (
            reach.min(Reach::Node),
            "; as far as files in it are open to its user, since the directory is not",
        ),
        false if !(may(wanted) || mount.writable && may(4)) => {
            (Reach::None, "; its mode keeps it from that")
        }
        false if !may(wanted) => (reach.min(Reach::Node), "; its mode lets it only be read"),
        true | false => (reach, ""),
    }
}

fn host_sockets(facts: &Facts, mount: &HostMount, all: &mut Vec<Finding>) {
    let container_path = &mount.container_path;
    let mut by = BTreeMap::<Reach, Vec<String>>::new();
    for socket in &mount.sockets {
        // Who connects has to write, unix(7).
        let opens = socket.owned.is_none_or(|owned| facts.may(owned, 2, mount.idmapped));
        let reach = match (opens, socket.of_root) {
            (false, _) => Reach::None,
            (true, true) => Reach::Host,
            (true, false) => Reach::Node,
        };
        by.entry(reach).or_default().push(socket.path.clone());
    }
    for (reach, paths) in by.into_iter().rev() {
        let said = match reach {
            Reach::None => "Their modes keep it from connecting",
            Reach::Pod | Reach::Node | Reach::Host => {
                "Read-only mounts do not keep from connecting"
            }
        };
        all.push(Finding {
            id: "host-socket",
            what: format!(
                "sockets of the host by {container_path}: {}. {said}",
                some_of(&paths, 6)
            ),
            reach,
            fix: format!("take away the hostPath volume at {container_path}"),
        });
    }
}

fn cgroups(facts: &Facts, all: &mut Vec<Finding>) {
    let is_open = |fstype: &str| {
        let mut visible = facts.mounts.visible();
        visible.any(|mount| mount.fstype == fstype && !mount.read_only)
    };
    // In a user namespace what is writable is what was given to it, and not its limits.
    if facts.is_mapped() || !is_open("cgroup") && !is_open("cgroup2") {
        return;
    }
    let (reach, why) = if is_open("cgroup") && facts.widest().bounding.has("SYS_ADMIN") {
        (Reach::Host, "a release agent is executed by the host's root")
    } else {
        (Reach::Node, "limits, of others as well where they can be seen")
    };
    all.push(Finding {
        id: "cgroup-writable",
        what: format!("cgroups are writable: {why}"),
        reach,
        fix: NOT_PRIVILEGED.into(),
    });
}
