// SPDX-License-Identifier: Apache-2.0
//! What it shares with others: namespaces, the host's files and sockets, devices, cgroups.

use super::{Finding, NOT_PRIVILEGED, some_of};
use crate::audit::facts::{DeviceRules, Facts, HostMount, Node, Reach, Shared};
use crate::audit::mounts::is_within;
use crate::audit::status::may_open;
use std::collections::BTreeMap;

/// Names of sockets whose servers do all that root can.
const RUNTIMES: [&str; 7] = [
    "docker.sock",
    "containerd.sock",
    "crio.sock",
    "hull.sock",
    "podman.sock",
    "cri-dockerd.sock",
    "buildkitd.sock",
];
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
/// Nodes that every container has: null, zero, full, random, urandom, tty, console, ptmx.
const STANDARD: [(u32, u32); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
/// Major numbers of terminals in a devpts.
const TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

pub(super) fn judge(facts: &Facts, all: &mut Vec<Finding>) {
    namespaces(facts, all);
    for mount in &facts.host_mounts {
        host_mount(facts, mount, all);
    }
    nodes(facts, all);
    rules(facts, all);
    cgroups(facts, all);
}

fn namespaces(facts: &Facts, all: &mut Vec<Finding>) {
    let mut add = |id, what: String, reach, fix: &str| {
        all.push(Finding { id, what, reach, fix: fix.into() });
    };
    if facts.of("pid") == Shared::Host {
        let what = "the host's pid namespace: it sees every process of the node, and signals those of its user";
        add("host-pid", what.into(), Reach::Node, "spec.hostPID: false");
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
    if !mount.sockets.is_empty() {
        let is_runtime =
            |path: &String| RUNTIMES.iter().any(|name| path.ends_with(&format!("/{name}")));
        let reach = if mount.sockets.iter().any(is_runtime) { Reach::Host } else { Reach::Node };
        all.push(Finding {
            id: "host-socket",
            what: format!(
                "sockets of the host by {container_path}: {}. Read-only mounts do not keep from connecting",
                some_of(&mount.sockets, 6)
            ),
            reach: as_root(reach),
            fix: format!("take away the hostPath volume at {container_path}"),
        });
    }
    let access = if *writable { "writable" } else { "read-only" };
    let covers = |list: &[&str]| {
        list.iter().any(|path| is_within(host_path, path) || is_within(path, host_path))
    };
    let of_kernel = ["/proc", "/sys", "/dev"].iter().any(|path| is_within(host_path, path));
    let (reach, why) = match writable {
        true if of_kernel => (Reach::Host, "settings and devices of the machine"),
        true if covers(&OF_ROOT) => (Reach::Host, "what root of the host executes or believes"),
        true => (Reach::Node, "what programs and pods that use the same path believe"),
        false if of_kernel => (Reach::Node, "what the kernel tells of all of the node"),
        false if covers(&SECRET) => (Reach::Node, "credentials of the node and its pods"),
        false => (Reach::None, "nothing that is known to be secret"),
    };
    let fix = if *writable {
        format!(
            "volumeMounts[{container_path}].readOnly: true with recursiveReadOnly: Enabled, or a volume that is not hostPath"
        )
    } else {
        format!("a volume that is not hostPath at {container_path}")
    };
    let what = format!("{host_path} of the host at {container_path}, {access}: {why}");
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

/// How far a device leads whose node can be opened.
fn worth(node: &Node) -> Reach {
    match (node.kind, node.major, node.minor) {
        // Memory, ports, and devices handed over whole (vfio).
        ('b', ..) | ('c', 1, 1 | 2 | 4) | ('c', 10, 196) => Reach::Host,
        // FUSE, kvm, tun, each of which has its own world.
        ('c', 10, 200 | 229 | 232) => Reach::None,
        _ => Reach::Node,
    }
}

fn nodes(facts: &Facts, all: &mut Vec<Finding>) {
    let is_usual = |node: &&Node| {
        node.kind == 'c'
            && (STANDARD.contains(&(node.major, node.minor)) || TERMINALS.contains(&node.major))
    };
    let opens = |node: &&Node| match &facts.rules {
        DeviceRules::V1(rules) => may_open(rules, node.kind, node.major, node.minor),
        DeviceRules::Ebpf => true,
    };
    let mut by = BTreeMap::<Reach, Vec<String>>::new();
    for node in facts.nodes.iter().filter(|node| !is_usual(node)).filter(opens) {
        // In a user namespace a node opens for its owner, or for everybody.
        let closed =
            facts.is_mapped() && facts.inside(node.uid).is_none() && node.mode & 0o006 == 0;
        let reach = if closed { Reach::None } else { worth(node) };
        by.entry(reach)
            .or_default()
            .push(format!("{} ({} {}:{})", node.path, node.kind, node.major, node.minor));
    }
    for (reach, list) in by.into_iter().rev() {
        let fix = if facts.looks_privileged() {
            NOT_PRIVILEGED.into()
        } else {
            "take away the device: the hostPath, or the device plugin's or CDI's claim".to_owned()
        };
        let what = format!("device nodes: {}", some_of(&list, 5));
        all.push(Finding { id: "devices", what, reach, fix });
    }
}

/// Rules matter without nodes as well: who may make nodes makes those that he wants.
fn rules(facts: &Facts, all: &mut Vec<Finding>) {
    let DeviceRules::V1(rules) = &facts.rules else { return };
    let widest = facts.widest();
    let makes_nodes = widest.bounding.has("MKNOD") && !facts.is_mapped();
    if may_open(rules, 'b', u32::MAX, u32::MAX) && makes_nodes {
        all.push(Finding {
            id: "device-rules",
            what: format!(
                "device rules let every device be opened ({}), and it may make nodes",
                some_of(rules, 3)
            ),
            reach: Reach::Host,
            fix: NOT_PRIVILEGED.into(),
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
