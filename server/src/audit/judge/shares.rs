// SPDX-License-Identifier: Apache-2.0
//! Resources shared with others: namespaces; files, sockets and ports of the host; cgroups.

use super::finding::{Finding, NOT_PRIVILEGED, some_of};
use crate::audit::facts::{Facts, FileOwner, HostMount, NamespaceOwner};
use crate::audit::mounts::{is_within, moved};
use crate::audit::reach::Reach;
use std::collections::BTreeMap;

/// Directories of the host whose writer becomes root: programs, their configuration, and what starts them.
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
/// Directories of the host with credentials of the node and its pods.
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
            "host ports lead to it: {}: every client that reaches the node reaches it",
            some_of(&ports, 8)
        ),
        reach: Reach::None,
        hint: "no ports[*].hostPort".into(),
    });
}

/// The route to the host through its own procfs, if there is one.
fn by_procfs(facts: &Facts) -> Option<&'static str> {
    let on_host = facts.namespace("user") == NamespaceOwner::Host;
    if on_host && facts.acquirable_capabilities().has("SYS_PTRACE") {
        Some("; with CAP_SYS_PTRACE, /proc/<pid>/root of any host process leads to all files")
    } else if facts.is_host_root() {
        // ptrace(2): the same user, and the other has no capability that this one lacks.
        Some(
            "; as root, /proc/<pid>/root of a host process of root with no more capabilities than its own \
             leads to all files, unless a security module forbids it",
        )
    } else {
        None
    }
}

fn namespaces(facts: &Facts, all: &mut Vec<Finding>) {
    let mut add = |id, what: String, reach, hint: &str| {
        all.push(Finding { id, what, reach, hint: hint.into() });
    };
    if facts.namespace("pid") == NamespaceOwner::Host {
        let leads = by_procfs(facts);
        let what = format!(
            "it is in the pid namespace of the host: it sees every process of the node, and can signal those of its user{}",
            leads.unwrap_or_default()
        );
        let reach = if leads.is_some() { Reach::Host } else { Reach::Node };
        add("host-pid", what, reach, "spec.hostPID: false");
    }
    if facts.namespace("net") == NamespaceOwner::Host {
        let listens = match facts.listening.as_slice() {
            [] => String::new(),
            some => format!("; it listens on {}", some_of(some, 8)),
        };
        let what = format!(
            "it is on the host network: services on the loopback of the node and its abstract sockets are reachable{listens}"
        );
        add("host-network", what, Reach::Node, "spec.hostNetwork: false");
    }
    if facts.namespace("ipc") == NamespaceOwner::Host {
        let what = "it is in the IPC namespace of the host: shared memory of the processes of the node is accessible";
        add("host-ipc", what.into(), Reach::Node, "spec.hostIPC: false");
    }
    if facts.namespace("mnt") == NamespaceOwner::Host {
        let what = "it is in the mount namespace of the host: every file of the node is visible";
        add("host-mounts", what.into(), facts.unless_mapped(Reach::Host), "restart the pod");
    }
    if facts.namespace("pid") == NamespaceOwner::Pod {
        let what = "its pod shares one pid namespace: processes of the other containers, their environment, and \
                    their files through /proc/<pid>/root are accessible";
        add("shared-pid", what.into(), Reach::Pod, "spec.shareProcessNamespace: false");
    }
}

fn host_mount(facts: &Facts, mount: &HostMount, all: &mut Vec<Finding>) {
    let HostMount { container_path, host_path, writable, .. } = mount;
    // On an idmapped mount, root of the container is root of the files; on others it is nobody.
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
        true if mount.of_daemon => (Reach::Host, "state of all pods, which the daemon trusts"),
        true if covers(&OF_ROOT) => (Reach::Host, "files that root of the host executes or trusts"),
        true => (Reach::Node, "files that programs and pods with the same path trust"),
        false if procfs.is_some() => (Reach::Host, "the processes of the node"),
        false if of_kernel => (Reach::Node, "kernel information about the whole node"),
        false if mount.of_daemon => (Reach::Node, "images, files and records of other pods"),
        false if covers(&SECRET) => (Reach::Node, "credentials of the node and its pods"),
        false => (Reach::None, "nothing known to be secret"),
    };
    let (reach, but) = match mount.owned {
        Some(owned) if !of_kernel => by_owner(facts, mount, owned, reach),
        _ => (reach, ""),
    };
    let hint = if *writable {
        format!(
            "volumeMounts[{container_path}].readOnly: true with recursiveReadOnly: Enabled, or a volume that is not hostPath"
        )
    } else {
        format!("a volume that is not hostPath at {container_path}")
    };
    let cut = mount
        .search_cut
        .as_ref()
        .map_or(String::new(), |cut| format!(". The audit is incomplete: {cut}"));
    let what = format!(
        "{host_path} of the host at {container_path}, {access}: {why}{but}{}{cut}",
        procfs.unwrap_or_default()
    );
    all.push(Finding { id: "host-path", what, reach: as_root(reach), hint });
    if mount.shared && facts.widest().bounding.has("SYS_ADMIN") {
        all.push(Finding {
            id: "mounts-reach-host",
            what: format!("mounts that it makes below {container_path} appear on the host, too"),
            reach: as_root(Reach::Host),
            hint: format!("volumeMounts[{container_path}].mountPropagation: None"),
        });
    }
}

/// Whether the path is /proc itself, or a process in it.
fn shows_processes(host_path: &str) -> bool {
    let Some(below) = moved(host_path, "/proc", "/") else { return false };
    let first = below.trim_start_matches('/').split('/').next().unwrap_or_default();
    first.bytes().all(|byte| byte.is_ascii_digit())
}

/// Limits `reach` by owner and mode of the file, with a remark for the finding.
fn by_owner(
    facts: &Facts,
    mount: &HostMount,
    owned: FileOwner,
    reach: Reach,
) -> (Reach, &'static str) {
    let may = |bits| facts.may_access(owned, bits, mount.idmapped);
    let wanted = if mount.writable { 2 } else { 4 };
    match owned.is_directory() {
        true if !may(1) => (Reach::None, "; but its mode denies access"),
        // Files in it may belong to the user of the container, or be open to all users.
        true if mount.writable && !may(2) => (
            reach.min(Reach::Node),
            "; but only files in it that are open to its user, as the directory is not",
        ),
        false if !(may(wanted) || mount.writable && may(4)) => {
            (Reach::None, "; but its mode denies access")
        }
        false if !may(wanted) => (reach.min(Reach::Node), "; but its mode allows only reading"),
        true | false => (reach, ""),
    }
}

fn host_sockets(facts: &Facts, mount: &HostMount, all: &mut Vec<Finding>) {
    let container_path = &mount.container_path;
    let mut by = BTreeMap::<Reach, Vec<String>>::new();
    for socket in &mount.sockets {
        // connect(2) requires write permission, unix(7).
        let opens = socket.owned.is_none_or(|owned| facts.may_access(owned, 2, mount.idmapped));
        let reach = match (opens, socket.of_root) {
            (false, _) => Reach::None,
            (true, true) => Reach::Host,
            (true, false) => Reach::Node,
        };
        by.entry(reach).or_default().push(socket.path.clone());
    }
    for (reach, paths) in by.into_iter().rev() {
        let note = match reach {
            Reach::None => "Their modes deny connections",
            Reach::Pod | Reach::Node | Reach::Host => {
                "A read-only mount does not prevent connections"
            }
        };
        all.push(Finding {
            id: "host-socket",
            what: format!(
                "host sockets are reachable by {container_path}: {}. {note}",
                some_of(&paths, 6)
            ),
            reach,
            hint: format!("remove the hostPath volume at {container_path}"),
        });
    }
}

fn cgroups(facts: &Facts, all: &mut Vec<Finding>) {
    // In its own cgroup namespace, the same holds with `nsdelegate`; with CAP_SYS_ADMIN it could mount another view.
    let is_alone = facts.namespace("cgroup") != NamespaceOwner::Host
        && !facts.widest().bounding.has("SYS_ADMIN");
    let is_open = |fstype: &str| {
        let open = facts.mounts.visible().filter(|of| of.fstype == fstype && !of.read_only);
        open.filter(|mount| !(is_alone && mount.ns_delegate)).count() > 0
    };
    // In a user namespace, only the delegated cgroups are writable, not their limits.
    if facts.is_mapped() || !is_open("cgroup") && !is_open("cgroup2") {
        return;
    }
    let (reach, why) = if is_open("cgroup") && facts.widest().bounding.has("SYS_ADMIN") {
        (Reach::Host, "root of the host executes a release agent")
    } else {
        (Reach::Node, "its limits can be changed, and those of other cgroups that it sees")
    };
    all.push(Finding {
        id: "cgroup-writable",
        what: format!("cgroups are writable: {why}"),
        reach,
        hint: NOT_PRIVILEGED.into(),
    });
}
