// SPDX-License-Identifier: Apache-2.0
//! Every setting: its key, its description, and an example where it has no default. The annotated
//! default file and docs/config.md are generated from this table. The defaults themselves are in
//! [`settings`](super::settings), so that none is written twice.

pub(super) use super::key_names::{
    ANY_HANDLER, HANDLERS, MIRRORS, REGISTRY, in_table, is_handler, value_at,
};
use strsim::levenshtein;

/// A setting: its dotted key, its description, and an example.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    /// Shown, commented out, where there is no default.
    pub(super) example: &'static str,
    /// Whether the daemon takes over a new value while it runs.
    pub(super) takes: Takes,
}

/// How a new value of a setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// When the configuration is read again: for what begins from then on.
    AtOnce,
    /// When the daemon is restarted; pods run on meanwhile.
    WithRestart,
}

impl Key {
    /// An example as TOML; empty for a setting with a default.
    pub(super) fn example(&self) -> &'static str {
        self.example
    }

    /// The same setting, of which the running daemon takes over a new value.
    const fn live(mut self) -> Self {
        self.takes = Takes::AtOnce;
        self
    }
}

const fn key(name: &'static str, doc: &'static str) -> Key {
    Key { name, doc, example: "", takes: Takes::WithRestart }
}

/// One that a reload takes over at once.
const fn live(name: &'static str, doc: &'static str) -> Key {
    key(name, doc).live()
}

const fn unset(name: &'static str, example: &'static str, doc: &'static str) -> Key {
    Key { name, doc, example, takes: Takes::WithRestart }
}

/// The settings, in the order in which they are shown.
pub(crate) const KEYS: &[Key] = &[
    key(
        "state_dir",
        "Directory of records, sockets and leased addresses of the running pods. Use a tmpfs: a reboot ends every pod, and should remove the records with them. At most 25 bytes long, because it holds sockets.",
    ),
    key(
        "data_dir",
        "Directory of images, their layers, and the writable layers of containers. Must not be on overlayfs.",
    ),
    key(
        "socket",
        "Unix socket on which the daemon serves CRI: the kubelet's --container-runtime-endpoint without `unix://`.",
    ),
    live(
        "log.level",
        "Log level: off, error, warn, info, debug or trace; and levels of modules, as in `info,hull_image=debug`. Libraries log from `warn` on, unless they are named as in `info,h2=debug`. `hull log-level` changes it for a time.",
    ),
    key(
        "log.format",
        "Log format: `text` for people, `json` for log collectors. The log goes to stderr, one line per event.",
    ),
    unset(
        "logs.rate_limit",
        "\"1m\"",
        "Limit on the rate of each container's log, in bytes per second, with a unit: k, m, g (powers of 1024). The pod's annotation `hull.run/log-rate-limit` sets a lower one for its containers, `hull.run/log-rate-limit.NAME` for one of them. Unset: none.",
    )
    .live(),
    unset(
        "logs.burst",
        "\"4m\"",
        "Bytes of log that a container may write at once before `rate_limit` takes effect. Annotation: `hull.run/log-burst`. Unset: what `rate_limit` allows in a second, at least 64k.",
    )
    .live(),
    live(
        "logs.over_rate",
        "Output that exceeds `rate_limit`. `drop`: whole lines are dropped, and a line of the log says how many; `wait`: it is read later, so that the container waits when its pipe is full. Annotation: `hull.run/log-over-rate`.",
    ),
    unset(
        "logs.size_max",
        "\"100m\"",
        "Limit on a file of a log, in bytes with a unit. What exceeds it is dropped until the kubelet or Hull rotates the log. Annotation: `hull.run/log-size-max`. Unset: none.",
    )
    .live(),
    unset(
        "logs.rotate_size",
        "\"10m\"",
        "Size at which Hull rotates a log: `0.log` becomes `0.log.1`, and so on. Only for containers that no kubelet made: kubelets rotate logs themselves. Unset: none is rotated.",
    )
    .live(),
    live(
        "logs.rotate_files",
        "Number of rotated files that are kept of each log, beside the current one.",
    ),
    live(
        "logs.journald",
        "Whether each line of output is sent to journald, too, with the names of container and pod as fields. journald is never waited for: lines that it does not take are counted as dropped. Only for containers that start from now on.",
    ),
    key("logs.journald_socket", "Socket of journald's native protocol.").live(),
    unset(
        "metrics.address",
        "\"127.0.0.1:9477\"",
        "Address and port on which the daemon serves its own metrics over TCP, at /metrics, beside the Unix socket `<state_dir>/metrics.sock` which is always there. An address that other machines reach needs `tls_cert`, `tls_key` and `client_ca`. Default: no TCP.",
    ),
    unset(
        "metrics.tls_cert",
        "\"/etc/hull/metrics.crt\"",
        "PEM file with the certificate of the metrics server, and those between it and its CA. Read at every connection, as are the two other files: new ones take effect at once. Default: no TLS.",
    ),
    unset(
        "metrics.tls_key",
        "\"/etc/hull/metrics.key\"",
        "PEM file with the key of `tls_cert`. Only root should be able to read it.",
    ),
    unset(
        "metrics.client_ca",
        "\"/etc/hull/metrics-ca.crt\"",
        "PEM file with the certificates of the CAs whose clients may read metrics. A client without a certificate of one of them is refused.",
    ),
    unset(
        "tracing.endpoint",
        "\"https://collector.example.org:4317\"",
        "Address of a collector of OpenTelemetry (OTLP over gRPC) that gets spans of verbs and their stages, in the traces of the kubelet's calls; `https://` is by TLS. Default: no traces.",
    ),
    unset(
        "tracing.ca_file",
        "\"/etc/hull/collector-ca.crt\"",
        "PEM file with certificates that are trusted for the collector besides those of the system: of CAs, or the collector's own. Read at every connection, as are the two other files.",
    ),
    unset(
        "tracing.client_cert",
        "\"/etc/hull/traces.crt\"",
        "PEM file with the certificate that Hull shows to the collector, and those between it and its CA. Default: none.",
    ),
    unset(
        "tracing.client_key",
        "\"/etc/hull/traces.key\"",
        "PEM file with the key of `client_cert`. Only root should be able to read it.",
    ),
    key(
        "tracing.sample_percent",
        "Share of the calls without a trace of their own that are traced, in percent: 0 to 100. The caller decides on calls that have one.",
    ),
    key(
        "cgroup.driver",
        "Driver that creates the cgroups of pods. `cgroupfs`: Hull creates them itself; `systemd`: Hull creates one scope per pod in the slice that the kubelet names; `auto`: `systemd` where systemd is the init and cgroups are v2, else `cgroupfs`. The kubelet adopts the driver from the runtime.",
    ),
    key(
        "cgroup.parent",
        "Parent cgroup of pods whose client names none, such as those of `hull run`. The systemd driver translates it to a slice: `/a/b-c` is `a-b_c.slice`.",
    ),
    key(
        "network.mode",
        "Pod network. `auto`: CNI plugins attach new pods where `network.cni.conf_dir` has a configuration, also one that arrives later, else `bridge`; `bridge`: Hull attaches pods to a bridge; `macvlan`, `ipvlan`: Hull gives pods links on `uplink`; `cni`: the CNI plugins of the cluster attach pods, and pods wait for their configuration; `none`: pods have only loopback. Pods stay on the network that they were attached to.",
    ),
    unset(
        "network.uplink",
        "\"eth0\"",
        "Link of the node on which `macvlan` and `ipvlan` create the links of pods. Unset: the link of the default route.",
    ),
    key(
        "network.bridge",
        "Name of the bridge of pods, or, with `macvlan` and `ipvlan`, of the node's own link on `uplink`. Created with the first pod.",
    ),
    unset(
        "network.pod_cidr",
        "[\"10.244.1.0/24\"]",
        "Subnets of the addresses of pods: one IPv4, one IPv6, or one of each. The first address is that of the bridge. Subnets that the kubelet announces replace them for new pods. Unset: an IPv4 subnet that no route of this host overlaps, 10.190.0.0/16 if possible.",
    ),
    key(
        "network.wait_for_pod_cidr",
        "Whether the built-in network waits for the subnets that the kubelet announces, without `pod_cidr`: until then NetworkReady is false, and only pods on the network of the host start. For clusters that allocate subnets to nodes.",
    ),
    unset(
        "network.mtu",
        "1450",
        "MTU of the links of pods, in bytes: 68 to 65535, with IPv6 subnets at least 1280. Unset: that of `uplink`, or of the link of the default route.",
    ),
    key(
        "network.masquerade",
        "Whether traffic from pods to other networks leaves with the address of the node. Traffic to `cluster_cidrs` never does.",
    ),
    unset(
        "network.cluster_cidrs",
        "[\"10.244.0.0/16\"]",
        "Subnets that see the own addresses of pods although `masquerade` is true: those of the pods of all nodes, at most 32. Default: none.",
    ),
    key(
        "network.table",
        "Name of the nftables table for Hull's rules. Hull changes no other table.",
    ),
    key(
        "network.cni.conf_dir",
        "Directory of CNI network configurations: *.conflist, *.conf and *.json. The first valid one in the order of names is the network of pods. Changes take effect without a restart.",
    ),
    key("network.cni.bin_dirs", "Directories of CNI plugins, searched in this order.").live(),
    live(
        "network.cni.networks_max",
        "Number of networks in `conf_dir` that each pod is attached to, at most: eth0, eth1 and so on, in the order of the file names.",
    ),
    unset(
        "network.cni.conf_template",
        "\"/etc/hull/cni.conflist.template\"",
        "Template for the CNI configuration that Hull writes to `conf_dir` as 10-hull.conflist when the kubelet announces the pod subnets of the node, unless another network is configured. `{{.PodCIDR}}` is replaced by the first subnet, `{{.PodCIDRRanges}}` by `ranges` for host-local.",
    ),
    key(
        "network.cni.netns_dir",
        "Directory in which the network namespaces of pods are pinned. CNI plugins and their agents expect them in /run/netns.",
    ),
    live(
        "network.cni.plugin_timeout_s",
        "Timeout of one call of a CNI plugin, in seconds. After it, the plugin and all processes that it started are killed.",
    ),
    live(
        "network.cni.gc_interval_s",
        "Interval between GC calls to plugins of CNI 1.1, which remove what belongs to no pod, in seconds. The daemon also calls them when it starts.",
    ),
    key("runtime.shm_bytes", "Size of the /dev/shm of each pod, in bytes.").live(),
    live(
        "runtime.seccomp_root",
        "Directory of seccomp profiles of type Localhost: that of the kubelet, `<root-dir>/seccomp`.",
    ),
    live(
        "runtime.cdi_spec_dirs",
        "Directories of specs of the container device interface (CDI): `*.json`, `*.yaml`. Read when a container requests a CDI device; if several directories define a device, the last one takes effect.",
    ),
    live(
        "runtime.hooks_dir",
        "Directories of OCI hooks for containers: files `*.json` of oci-hooks(5), as in `[\"/usr/share/containers/oci/hooks.d\", \"/etc/containers/oci/hooks.d\"]`. A file replaces one of the same name in an earlier directory. Read when a container is created; a file that cannot be used, or a directory that is missing, refuses every container. Files, directories and programs, and each directory and link on their paths, must be root's, and not writable by others.",
    ),
    live(
        "runtime.default_seccomp",
        "Seccomp profile of containers whose client names none: `unconfined`, the default of CRI (kubelets always name one), or `runtime/default`. Privileged containers are never confined.",
    ),
    live(
        "runtime.default_ulimits",
        "Limits of resources of containers (getrlimit(2)), as in `[\"nofile=1024:524288\"]`: name, soft and hard limit. Without an entry: nofile 1048576; memlock 8 MiB; stack 8 MiB, hard unlimited; nproc and core unlimited; else those of the kernel. Nothing comes from the limits of the daemon's service.",
    ),
    live(
        "runtime.exit_message_output",
        "Whether the message of a container that failed ends with the last lines of its output. Readers of pods may then see what is otherwise only in logs. The pod's annotation `hull.run/exit-message-output: \"true\"` does the same for one pod.",
    ),
    unset(
        "runtime.blockio_config_file",
        "\"/etc/hull/blockio.yaml\"",
        "File of classes of block I/O, in the format of containerd and CRI-O, which a pod chooses by the annotations `blockio.resources.beta.kubernetes.io/pod` and `blockio.resources.beta.kubernetes.io/container.NAME`. Read when a container that asks for a class is created. Unset: such a container is refused.",
    )
    .live(),
    live(
        "runtime.exec_output_bytes_max",
        "Limit on the output of one ExecSync, in bytes per stream. More is dropped, and a last line says so. Both streams together are cut to fit a response of 16 MiB, the limit of the kubelet's client. The exit code is always kept.",
    ),
    live(
        "runtime.exec_drain_s",
        "Time to wait for more output after an ExecSync command has exited, in seconds, if a process that it left behind keeps the pipe open.",
    ),
    live(
        "runtime.exec_syncs_max",
        "Limit on concurrent ExecSync commands of the node; half of it for each container. More are refused (RESOURCE_EXHAUSTED). The default exceeds the probes of 110 pods with three containers each.",
    ),
    live(
        "runtime.launch_timeout_s",
        "Timeout of the launch of a container or a command, until its program runs, in seconds: its mounts may be on slow storage. After it, the launch is killed.",
    ),
    live(
        "runtime.userns",
        "User namespaces of pods for which the kubelet maps none. `auto`: pods whose client says nothing get one, with their own 65536 ids of `subuid_file` and `subgid_file`; `always`: pods, too, whose client asks for the host's, as kubelets since 1.33 do for every pod without `hostUsers: false`; `off`: none. Pods on the host's network, with its processes or shared memory, and privileged ones are not mapped, unless their handler's `user_namespaces` are `always`.",
    ),
    unset(
        "runtime.userns_user",
        "\"containers\"",
        "User whose lines of `subuid_file` and `subgid_file` pods get their ids from. Unset: `hull`, or, where a file has no line of it, `containers`, the user of podman and CRI-O.",
    )
    .live(),
    live(
        "runtime.subuid_file",
        "File of subuid(5) with ids of users for `userns`. Read when a pod starts. Only root may be able to write to it; a line that cannot be read, or that overlaps with one of the user, refuses every pod to be mapped.",
    ),
    key("runtime.subgid_file", "File of subgid(5) with ids of groups for `userns`, as `subuid_file`.")
        .live(),
    unset(
        "runtime.writable_layer_size",
        "\"10g\"",
        "Limit on the writable layer of each container, in bytes on disk with a unit, by project quotas of the filesystem of `data_dir` (xfs mounted with `prjquota`, ext4 with the features `project` and `quota`, mounted with `prjquota`). The pod's annotation `hull.run/writable-layer-size` sets a lower one for its containers, `hull.run/writable-layer-size.NAME` for one of them. `hull check` says whether the filesystem has them. Unset: none.",
    )
    .live(),
    unset(
        "runtime.criu",
        "\"/usr/local/sbin/criu\"",
        "Program of CRIU, which checkpoints containers, by its absolute path. It, and each directory on its path, must be root's, and not writable by others. Default: the first `criu` in PATH; without one, no container is checkpointed.",
    )
    .live(),
    live(
        "runtime.call_memory_bytes_max",
        "Limit on the memory of all requests and ExecSync responses together, in bytes; at most 16 KiB of each message or stream are not counted. A request beyond it is refused (RESOURCE_EXHAUSTED), and a command whose output exceeds it is killed. The daemon itself needs about 30 MiB more. At least 48 MiB.",
    ),
    unset(
        "runtime.handlers.NAME.type",
        "\"hull\"",
        "Type of the runtime handler NAME, which a RuntimeClass names in `handler`. `hull`: Hull's own runtime, with the settings below in place of those of `[runtime]`. A pod keeps the settings that its handler had when it was started. The handlers `hull` and the empty one are always there, with the settings of `[runtime]`. Default: `hull`.",
    )
    .live(),
    unset(
        "runtime.handlers.NAME.default_seccomp",
        "\"runtime/default\"",
        "As `runtime.default_seccomp`, for containers of this handler. Default: that.",
    )
    .live(),
    unset(
        "runtime.handlers.NAME.seccomp_profile",
        "\"strict.json\"",
        "Seccomp profile that `RuntimeDefault` means for containers of this handler: a file below `runtime.seccomp_root`, or an absolute path. A file that cannot be used refuses the container. Default: Hull's own profile.",
    )
    .live(),
    unset(
        "runtime.handlers.NAME.cgroup_writable",
        "true",
        "Whether containers may write to /sys/fs/cgroup, to create cgroups below their own. `true` needs `user_namespaces` to be `always`, as only files that are delegated belong to the root of a user namespace, and cgroup v2, as the cgroup namespace is private only there; a node without it refuses pods of this handler. `false`: it is read-only also for pods with a user namespace. Default: writable for pods with a user namespace, with cgroup v2.",
    )
    .live(),
    unset(
        "runtime.handlers.NAME.user_namespaces",
        "\"always\"",
        "Pods with a user namespace. `pod`: those that request one; `always`: all, with ids of `runtime.subuid_file` and `runtime.subgid_file` where the pod requests none, also if it is privileged or on the host's network; their volumes are mounted with mapped ids. Pods that share the pid or ipc namespace of the host are refused then. Default: `pod`.",
    )
    .live(),
    unset(
        "runtime.handlers.NAME.network",
        "\"none\"",
        "Network of the pods: `none`, only loopback; else the name of a CNI network in `network.cni.conf_dir`. Pods on the network of the host are refused then. Default: the network of the node.",
    )
    .live(),
    unset(
        "runtime.handlers.NAME.shm_bytes",
        "268435456",
        "As `runtime.shm_bytes`, for pods of this handler. Default: that.",
    )
    .live(),
    unset(
        "runtime.handlers.NAME.default_ulimits",
        "[\"nofile=1024:4096\"]",
        "As `runtime.default_ulimits`, for containers of this handler. Default: that.",
    )
    .live(),
    unset(
        "runtime.handlers.NAME.pids_max",
        "512",
        "Limit on the processes and threads of each container that has no limit of its own. Default: none, beside that of the pod.",
    )
    .live(),
    unset(
        "runtime.handlers.NAME.writable_layer_size",
        "\"10g\"",
        "As `runtime.writable_layer_size`, for containers of this handler. Default: that.",
    )
    .live(),
    key(
        "nri.enable",
        "Whether plugins of the node resource interface (NRI) are called for pods and containers.",
    ),
    key(
        "nri.socket",
        "Unix socket on which NRI plugins connect. Only root can connect: a plugin can change anything of a container.",
    ),
    key(
        "nri.disable_connections",
        "Whether only pre-installed plugins are used, and plugins cannot connect.",
    ),
    key(
        "nri.plugin_path",
        "Directory of pre-installed plugins: programs with names like `10-example`. They start and stop with the daemon.",
    ),
    key(
        "nri.plugin_config_path",
        "Directory of the configuration of pre-installed plugins: `10-example.conf`, else `example.conf`.",
    ),
    live(
        "nri.registration_timeout_ms",
        "Timeout of the registration of a plugin, and of its synchronization, in milliseconds. After it, the plugin is disconnected.",
    ),
    live(
        "nri.request_timeout_ms",
        "Timeout of one call to a plugin, in milliseconds. After it, the plugin is disconnected and the pod goes on without it, unless the plugin requested another policy.",
    ),
    key("image.concurrent_layers", "Number of layers that one pull downloads at the same time.").live(),
    key("image.pinned", "Images that the garbage collection of the kubelet must keep, by name.").live(),
    unset(
        "image.config_path",
        "\"/etc/containerd/certs.d\"",
        "Directory of registry settings in containerd's layout, `<host>/hosts.toml`. Read at every pull; overrides `[[image.registry]]`. Default: none.",
    )
    .live(),
    unset(
        "image.docker_config",
        "\"/root/.docker/config.json\"",
        "Docker's `config.json`, with credentials and credential helpers for pulls without credentials of their own. Read at every pull. Default: none.",
    )
    .live(),
    unset(
        "image.policy",
        "\"/etc/hull/policy.toml\"",
        "File that says which repositories are accepted, rejected, or must be signed, and with which keys. Default: all are accepted.",
    )
    .live(),
    live(
        "image.stall_s",
        "Time after which a connection to a registry that transfers almost nothing counts as stalled and is replaced, in seconds. Time spent unpacking does not count.",
    ),
    live(
        "image.layer_bytes_max",
        "Limit on the size of a decompressed layer, in bytes. A larger layer is rejected as a decompression bomb.",
    ),
    live(
        "image.keep_blobs",
        "Whether compressed layers are kept, too, in `<data_dir>/blobs`, for tools that share them with other nodes. Their disk space is not reported as that of images. Hull itself needs them only to export layers that replace their own entries.",
    ),
    key("image.layer_entries_max", "Limit on the number of entries in the archive of a layer.").live(),
    live(
        "image.layer_apparent_bytes_max",
        "Limit on the total length of the sparse files of a layer, in bytes, including holes. Holes take no disk space.",
    ),
    live(
        "image.layer_seconds_max",
        "Limit on the CPU time of one thread that decompresses, unpacks or verifies a layer, in seconds. Time spent waiting for network or disk does not count.",
    ),
    live(
        "image.archive_bytes_max",
        "Limit on the size of an imported archive, in bytes, compressed and decompressed. The archive is in `data_dir` during the import.",
    ),
    unset(
        "image.registry.host",
        "\"registry.example:5000\"",
        "Registry that this entry configures, as written in image names.",
    )
    .live(),
    unset(
        MIRRORS,
        "[\"https://mirror.example/v2\"]",
        "Mirrors, as base URLs, that are tried before the registry itself, in this order. Default: none.",
    )
    .live(),
    unset(
        "image.registry.plain_http",
        "false",
        "Whether to use HTTP without TLS. Loopback addresses may always use it. Default: false.",
    )
    .live(),
    unset(
        "image.registry.skip_verify",
        "false",
        "Whether to accept any TLS certificate. Default: false.",
    )
    .live(),
    unset(
        "image.registry.ca_file",
        "\"/etc/hull/registry-ca.pem\"",
        "PEM file with certificates to trust for this registry, in addition to those of the system.",
    )
    .live(),
];

/// The known key nearest to a misspelt one, if it is near enough.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = &*in_table(name);
    let near = KEYS.iter().map(|key| (levenshtein(name, key.name), key.name)).min()?;
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    if near.0 <= 2 + name.len() / 8 {
        return Some(near.1);
    }
    // In the wrong section, or in none.
    KEYS.iter().find(|key| last(key.name) == last(name)).map(|key| key.name)
}
