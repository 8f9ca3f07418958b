// SPDX-License-Identifier: Apache-2.0
//! Every setting: its key, its description, and an example where it has no default. The annotated
//! default file and docs/config.md are generated from this table. The defaults themselves are in
//! [`settings`](super::settings), so that none is written twice.

use strsim::levenshtein;

/// A setting: its dotted key, its description, and an example.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    /// Shown, commented out, where there is no default.
    pub(super) example: &'static str,
}

const fn key(name: &'static str, doc: &'static str) -> Key {
    Key { name, doc, example: "" }
}

const fn unset(name: &'static str, example: &'static str, doc: &'static str) -> Key {
    Key { name, doc, example }
}

/// The settings, in the order in which they are shown.
pub(crate) const KEYS: &[Key] = &[
    key(
        "state_dir",
        "Records, sockets and addresses of what runs now. Best on a tmpfs: a reboot ends every pod, and with the files go the records of them. At most 25 bytes long, because sockets lie in it.",
    ),
    key(
        "data_dir",
        "Images, their layers, and the writable layers of containers. Must not lie on overlayfs itself.",
    ),
    key(
        "socket",
        "Unix socket on which CRI is served; the kubelet's --container-runtime-endpoint without `unix://`.",
    ),
    key(
        "log.level",
        "What the daemon logs: off, error, warn, info, debug or trace; or by module, as in `info,hull=debug`.",
    ),
    key(
        "log.format",
        "`text` for people, `json` for collectors. Lines go to stderr, one per event.",
    ),
    key(
        "cgroup.driver",
        "Who makes cgroups of pods: `cgroupfs` is hull itself, `systemd` makes one scope per pod in the slice that the kubelet names. `auto` is systemd where that is the init and cgroups are v2, else hull. A kubelet asks and follows.",
    ),
    key(
        "cgroup.parent",
        "Parent cgroup of pods whose creator names none, such as those of `hull run`. The systemd driver makes a slice of it: `/a/b-c` is `a-b_c.slice`.",
    ),
    key(
        "network.mode",
        "Who makes the pods' network: `bridge`, hull itself; `macvlan` or `ipvlan`, hull with links on `uplink` instead of a bridge; `cni`, the network plugins of the cluster; or `none`: pods have loopback alone.",
    ),
    unset(
        "network.uplink",
        "\"eth0\"",
        "Link of the node that pods' links are made on with `macvlan` and `ipvlan`. Unset: the one with the default route.",
    ),
    key(
        "network.bridge",
        "Name of the bridge that pods are attached to, or of the node's own link on `uplink`. Made at the first attach.",
    ),
    key(
        "network.pod_cidr",
        "Subnets that pod addresses come from: one IPv4, one IPv6, or one of each. The first address is the bridge's.",
    ),
    unset(
        "network.mtu",
        "1450",
        "MTU of pod links, in bytes. Unset: that of `uplink`, or of the interface with the default route.",
    ),
    key(
        "network.masquerade",
        "Whether traffic from pods to other networks gets the node's address.",
    ),
    key(
        "network.table",
        "Name of the nftables table that hull keeps its rules in, and touches no other.",
    ),
    key(
        "network.cni.conf_dir",
        "Where network plugins are configured: *.conflist, *.conf and *.json. The first usable one by name is the pods' network. Read again when a file changes.",
    ),
    key("network.cni.bin_dirs", "Where the plugins' programs are, looked through in this order."),
    key(
        "network.cni.networks_max",
        "How many networks of `conf_dir` a pod is attached to: eth0, eth1 and so on, in the order of their files.",
    ),
    unset(
        "network.cni.conf_template",
        "\"/etc/hull/cni.conflist.template\"",
        "Written to `conf_dir` as 10-hull.conflist when the kubelet tells the node's pod subnets, unless another network is there: `{{.PodCIDR}}` stands for the first subnet, `{{.PodCIDRRanges}}` for host-local's `ranges`.",
    ),
    key(
        "network.cni.netns_dir",
        "Where pods' network namespaces are pinned for plugins and their agents, which expect them in /run/netns.",
    ),
    key(
        "network.cni.plugin_timeout_s",
        "How long one call of a plugin may take, in seconds. It is killed then, with all it started.",
    ),
    key(
        "network.cni.gc_interval_s",
        "How often plugins of CNI 1.1 are asked to take away what belongs to no pod, in seconds; they are asked when hull starts as well.",
    ),
    key("runtime.shm_bytes", "Size of each pod's /dev/shm, in bytes."),
    key(
        "runtime.seccomp_root",
        "Directory of seccomp profiles of type Localhost: the kubelet's, `<root-dir>/seccomp`.",
    ),
    key(
        "runtime.cdi_spec_dirs",
        "Directories of the device files (`*.json`, `*.yaml`) of the container device interface (CDI). Read when a container asks for a device; of the same device in several, the last directory's counts.",
    ),
    key(
        "runtime.default_seccomp",
        "Seccomp profile of containers whose caller names none: `unconfined` (as CRI has it; kubelets always name one) or `runtime/default`. Privileged containers are never confined.",
    ),
    key(
        "runtime.exec_output_bytes_max",
        "Most output kept of one ExecSync, per stream, in bytes; the rest is dropped, and a line at the end says so. Both streams together are cut to fit an answer of 16 MiB, which is all that kubelets' clients take; the exit code is kept.",
    ),
    key(
        "runtime.exec_drain_s",
        "How long output is still awaited after an ExecSync command has ended, in seconds, when a process it left behind holds the pipe open.",
    ),
    key(
        "runtime.exec_syncs_max",
        "Most commands of ExecSync at a time on this node, and half of that in one container. Further ones are refused (RESOURCE_EXHAUSTED). The default is more than all probes of 110 pods with three containers each.",
    ),
    key(
        "runtime.launch_timeout_s",
        "How long the launch of a container or a command may take until its program runs, in seconds: its mounts may be on slow storage. Then it is killed.",
    ),
    key(
        "runtime.call_memory_bytes_max",
        "Most memory that requests and answers of ExecSync may hold at a time, in bytes; what is small (16 KiB per message or stream) does not count. Who comes beyond that is refused (RESOURCE_EXHAUSTED), a command that writes beyond it is killed. The daemon itself needs about 30 MiB beside it. At least 48 MiB.",
    ),
    key(
        "nri.enable",
        "Whether plugins of the node resource interface (NRI) have a say in pods and containers.",
    ),
    key(
        "nri.socket",
        "Unix socket on which plugins connect. Root alone can: a plugin can do anything to a container.",
    ),
    key(
        "nri.disable_connections",
        "Whether only pre-installed plugins are used, and nobody can connect.",
    ),
    key(
        "nri.plugin_path",
        "Directory of pre-installed plugins, programs named like `10-example`. Started with the daemon, and ended with it.",
    ),
    key(
        "nri.plugin_config_path",
        "Directory of the pre-installed plugins' configuration: `10-example.conf`, else `example.conf`.",
    ),
    key(
        "nri.registration_timeout_ms",
        "How long a plugin may take to register, and again to take in what runs already, in milliseconds. Then it is let go.",
    ),
    key(
        "nri.request_timeout_ms",
        "How long a plugin may take to answer a call, in milliseconds. Then it is let go and the pod goes on without it, unless the plugin itself asked for another policy.",
    ),
    key("image.concurrent_layers", "Layers fetched at a time, per pull."),
    key("image.pinned", "Images that the kubelet's garbage collection must leave alone, by name."),
    unset(
        "image.config_path",
        "\"/etc/containerd/certs.d\"",
        "Directory of registries' settings in containerd's layout, `<host>/hosts.toml`. Read at every pull; goes before `[[image.registry]]`. Default: none.",
    ),
    unset(
        "image.docker_config",
        "\"/root/.docker/config.json\"",
        "Docker's `config.json`, with accounts and credential helpers for pulls that bring no credentials. Read at every pull. Default: none.",
    ),
    unset(
        "image.policy",
        "\"/etc/hull/policy.toml\"",
        "File that says which repositories are accepted, rejected, or must be signed and by whom. Default: all are accepted.",
    ),
    key(
        "image.stall_s",
        "How long hardly a byte may come before a connection to a registry counts as stalled and is made anew, in seconds. Time spent unpacking does not count.",
    ),
    key(
        "image.layer_bytes_max",
        "Most bytes that a layer may inflate to. More is taken for a bomb.",
    ),
    key(
        "image.keep_blobs",
        "Keep layers as they travel too, in `<data_dir>/blobs`, for tools that share them with other nodes. They take disk that is not counted as the images'; Hull itself needs them only to export layers that replace their own entries.",
    ),
    key("image.layer_entries_max", "Most entries of a layer's archive."),
    key(
        "image.layer_apparent_bytes_max",
        "Most bytes that the sparse files of a layer are long together, holes included. Holes take no disk.",
    ),
    key(
        "image.layer_seconds_max",
        "Most seconds of processor time that a thread may take to inflate, unpack or look through a layer. Waiting for the network or the disk does not count.",
    ),
    key(
        "image.archive_bytes_max",
        "Most bytes of an archive that is imported, and that a compressed one may inflate to. They lie in `data_dir` until it is imported.",
    ),
    unset(
        "image.registry.host",
        "\"registry.example:5000\"",
        "Registry that the entry is about, as it stands in image names.",
    ),
    unset(
        "image.registry.mirrors",
        "[\"https://mirror.example/v2\"]",
        "Asked before the registry itself, in this order: base URLs. Default: none.",
    ),
    unset(
        "image.registry.plain_http",
        "false",
        "Speak HTTP without TLS. Loopback addresses may do so without this. Default: false.",
    ),
    unset("image.registry.skip_verify", "false", "Accept any TLS certificate. Default: false."),
    unset(
        "image.registry.ca_file",
        "\"/etc/hull/registry-ca.pem\"",
        "Certificates to trust for this registry besides the system's, PEM.",
    ),
];

/// Keys inside `[[image.registry]]` start with this.
pub(super) const REGISTRY: &str = "image.registry";

/// The known key nearest to `name`, when one is near enough to be meant.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let near = KEYS.iter().map(|key| (levenshtein(name, key.name), key.name)).min()?;
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    if near.0 <= 2 + name.len() / 8 {
        return Some(near.1);
    }
    // In the wrong section, or in none.
    KEYS.iter().find(|key| last(key.name) == last(name)).map(|key| key.name)
}

/// A value in TOML, by dotted key.
pub(super) fn value_at<'t>(table: &'t toml::Table, key: &str) -> Option<&'t toml::Value> {
    let (first, rest) = match key.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (key, None),
    };
    let value = table.get(first)?;
    match rest {
        Some(rest) => value_at(value.as_table()?, rest),
        None => Some(value),
    }
}
