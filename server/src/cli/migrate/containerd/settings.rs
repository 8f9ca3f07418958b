// SPDX-License-Identifier: Apache-2.0
//! containerd's settings: which are Hull's, and why the others are not. Pure.
//!
//! The settings that `hull containerd` takes over are taken over here by the same code.

use super::super::findings::Findings;
use super::super::rules::Fate::{Key, Lost, LostIfOn, Milliseconds, Not, Same, Seconds};
use super::super::rules::{Rule, apply};
use crate::cli::containerd::{CRI_TABLES, flatten, take};
use toml::{Table, Value};

const NRI: &str = "io.containerd.nri.v1.nri";
const TASKS: &str = "io.containerd.service.v1.tasks-service";
const OWN_FILES: &str =
    "containerd's own files stay where they are; Hull's are in `data_dir` and `state_dir`";
const OWN_CALLS: &str = "it limits calls between parts of containerd";
const RUNTIME: &str = "Hull runs containers itself; a pod whose RuntimeClass has this handler is refused: give it \
                       no RuntimeClass, or configure a handler with this name (`[runtime.handlers.NAME]`)";
const CLASSES: &str = "a container whose class this node does not have is refused";
const RUNC: &str = "Hull runs containers itself";
const SESSIONS: &str =
    "sessions of exec, attach and port-forward are on loopback, by URLs that work once";
const NODE_KEYS: &str = "Hull does not decrypt images";

const TRACES: &str = "set `tracing.endpoint`; Hull's spans have other names: see docs/operate.md";

/// All settings of the plugin that sends traces.
const OF_TRACES: &[Rule] = &[("trace.", LostIfOn(TRACES))];

/// Settings outside of plugins.
const TOP: &[Rule] = &[
    ("root", Same(OWN_FILES)),
    ("state", Same(OWN_FILES)),
    ("temp", Same(OWN_FILES)),
    ("grpc.address", Same("Hull has a socket of its own, to which the kubelet is pointed")),
    ("grpc.uid", LostIfOn("only root can use Hull's socket")),
    ("grpc.gid", LostIfOn("only root can use Hull's socket")),
    ("grpc.max_recv_message_size", Same("Hull limits requests by `runtime.call_memory_bytes_max`")),
    ("grpc.max_send_message_size", Same("Hull limits requests by `runtime.call_memory_bytes_max`")),
    ("grpc.", LostIfOn("Hull's socket is not reachable by network")),
    ("ttrpc.", Same("only containerd's shims use it")),
    ("debug.level", Key("log.level")),
    ("debug.format", Key("log.format")),
    ("debug.", LostIfOn("Hull has no socket for profiles")),
    (
        "metrics.",
        LostIfOn("set `metrics.address`; Hull's metrics have other names: see docs/operate.md"),
    ),
    ("oom_score", LostIfOn("set OOMScoreAdjust= in a drop-in of hull.service")),
    ("cgroup.", LostIfOn("set Slice= in a drop-in of hull.service")),
    ("required_plugins", LostIfOn("Hull has no plugins of containerd")),
    (
        "disabled_plugins",
        LostIfOn("Hull has no plugins of containerd; NRI is off with `nri.enable = false`"),
    ),
    ("timeouts.", LostIfOn(OWN_CALLS)),
    ("stream_processors.", Lost(NODE_KEYS)),
    ("proxy_plugins.", Lost("Hull has no remote snapshotters: images are unpacked in `data_dir`")),
];

/// Settings of the service of tasks.
const OF_TASKS: &[Rule] = &[
    ("blockio_config_file", Key("runtime.blockio_config_file")),
    (
        "rdt_config_file",
        LostIfOn("Hull's RDT classes are the groups of resctrl, which an agent of the node makes"),
    ),
];

/// Settings of the NRI plugin.
const OF_NRI: &[Rule] = &[
    ("disable", Not("nri.enable")),
    ("socket_path", Key("nri.socket")),
    ("plugin_path", Key("nri.plugin_path")),
    ("plugin_config_path", Key("nri.plugin_config_path")),
    ("plugin_registration_timeout", Milliseconds("nri.registration_timeout_ms")),
    ("plugin_request_timeout", Milliseconds("nri.request_timeout_ms")),
    ("disable_connections", Key("nri.disable_connections")),
];

/// Settings of the CRI plugin that [`take`] does not know.
const OF_CRI: &[Rule] = &[
    ("unset_seccomp_profile", Key("runtime.default_seccomp")),
    ("drain_exec_sync_io_timeout", Seconds("runtime.exec_drain_s")),
    ("enable_criu", Same("Hull uses CRIU where it is installed: `runtime.criu`")),
    ("disable_pause_image_pull", Same("Hull has a pause program of its own")),
    ("runtime_platforms.", Lost("Hull pulls images for this machine")),
    ("stats_retention_period", Same("Hull reads usage when it is requested")),
    ("stats_collect_period", Same("Hull reads usage when it is requested")),
    ("disable_snapshot_annotations", Same("only remote snapshotters read them")),
    ("use_local_image_pull", Same("pulls are Hull's own")),
    ("image_pull_with_sync_fs", Same("Hull always waits until an image is on the disk")),
    ("image_pull_progress_timeout", Same("Hull replaces stalled connections: `image.stall_s`")),
    ("max_container_log_line_size", Same("Hull splits lines as the kubelet expects it, at 16 KiB")),
    ("discard_unpacked_layers", Same("Hull stores no compressed layers: `image.keep_blobs`")),
    ("selinux_category_range", Same("it has a meaning with SELinux alone")),
    ("enable_selinux", LostIfOn("Hull does not label containers for SELinux")),
    ("image_decryption.", Lost(NODE_KEYS)),
    ("disable_tcp_service", Same(SESSIONS)),
    ("stream_server_address", Same(SESSIONS)),
    ("stream_server_port", Same(SESSIONS)),
    ("stream_idle_timeout", Same("Hull ends sessions whose client does not answer")),
    ("enable_tls_streaming", LostIfOn(SESSIONS)),
    ("x509_key_pair_streaming.", LostIfOn(SESSIONS)),
    ("containerd.runtimes.runc.sandboxer", Same(RUNC)),
    (
        "containerd.runtimes.runc.cgroup_writable",
        LostIfOn(
            "in Hull, containers of pods with a user namespace can write to their cgroups, on cgroup v2",
        ),
    ),
    ("containerd.runtimes.runc.", LostIfOn(RUNC)),
    ("containerd.runtimes.", Lost(RUNTIME)),
    ("containerd.default_runtime_name", Lost(RUNTIME)),
    ("containerd.snapshotter", Lost("Hull's layers are stacked by overlayfs")),
    ("snapshotter", Lost("Hull's layers are stacked by overlayfs")),
    ("containerd.ignore_rdt_not_enabled_errors", LostIfOn(CLASSES)),
    ("containerd.ignore_blockio_not_enabled_errors", LostIfOn(CLASSES)),
    ("cni.setup_serially", Same("Hull attaches the networks of a pod in their order")),
    ("cni.use_internal_loopback", Same("Hull brings loopback up itself")),
    ("cni.ip_pref", LostIfOn("the order of a pod's addresses is that of the plugin's result")),
    (
        "netns_mounts_under_state_dir",
        LostIfOn("set `network.cni.netns_dir` to a directory below `state_dir`"),
    ),
    ("disable_apparmor", LostIfOn("give the pods the AppArmor profile `Unconfined`")),
    ("disable_proc_mount", LostIfOn("pods may request procMount, which the API server grants")),
    (
        "disable_hugetlb_controller",
        Same("Hull sets limits of huge pages where the kernel has them"),
    ),
    ("disable_cgroup", LostIfOn("Hull needs cgroups")),
    (
        "device_ownership_from_security_context",
        LostIfOn("devices keep the owner that they have on the host"),
    ),
    (
        "ignore_image_defined_volumes",
        LostIfOn("volumes of an image are directories of the container"),
    ),
    ("ignore_deprecation_warnings", Same("it concerns containerd's own messages")),
    (
        "enable_unprivileged_ports",
        LostIfOn(
            "pods may bind all ports; that is off with the sysctl \
                                            net.ipv4.ip_unprivileged_port_start=1024 of a pod",
        ),
    ),
    ("registry.headers.", Lost("write them as `header` into the hosts.toml of each registry")),
];

/// Sorts all settings but those of registries into the lists.
pub(super) fn translate(file: &Table, found: &mut Findings) {
    for (key, value) in
        file.iter().filter(|(key, _)| !matches!(key.as_str(), "version" | "imports"))
    {
        let Some(plugins) = value.as_table().filter(|_| key == "plugins") else {
            let mut leaves = Vec::new();
            flatten(value, key, &mut leaves);
            let error = Value::from("error");
            for (key, value) in leaves {
                // The names of levels are the same but for these.
                let is_fatal = matches!(value.as_str(), Some("fatal" | "panic"));
                let value = if is_fatal && key == "debug.level" { &error } else { value };
                if !apply(TOP, &key, &key, value, found) {
                    found.lost(&key, "Hull has no such part");
                }
            }
            continue;
        };
        for (plugin, value) in plugins {
            of_plugin(plugin, value, found);
        }
    }
}

fn of_plugin(plugin: &str, value: &Value, found: &mut Findings) {
    let is_cri = CRI_TABLES.contains(&plugin);
    let mut leaves = Vec::new();
    flatten(value, "", &mut leaves);
    for (key, value) in leaves {
        // Their names have dots, so they are read from the table itself.
        if is_cri && is_of_registry(&key) {
            continue;
        }
        let shown = format!("plugins.\"{plugin}\".{key}");
        let is_trace = plugin.starts_with("io.containerd.tracing.processor.v1.");
        let is_known = if is_trace {
            apply(OF_TRACES, "trace.", &shown, value, found)
        } else if is_cri {
            of_cri(&key, &shown, value, found) || apply(OF_CRI, &key, &shown, value, found)
        } else {
            plugin == NRI && apply(OF_NRI, &key, &shown, value, found)
                || plugin == TASKS && apply(OF_TASKS, &key, &shown, value, found)
        };
        if !is_known {
            let why = if is_cri { "Hull has no such setting" } else { "Hull has no such part" };
            found.lost(&shown, why);
        }
    }
}

/// Whether a setting is one of those that [`registries`](super::registries) translates.
fn is_of_registry(key: &str) -> bool {
    ["registry.config_path", "registry.mirrors", "registry.configs"]
        .iter()
        .any(|of| key.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// Applies what `hull containerd` does with a setting; false if it ignores it.
fn of_cri(key: &str, shown: &str, value: &Value, found: &mut Findings) -> bool {
    let mut set = Vec::new();
    if !take(key, value, &mut set) {
        return false;
    }
    if set.is_empty() {
        found.same(shown, "Hull does so by itself, or does not need it");
    }
    for setting in set {
        let (own, text) = setting.split_once('=').unwrap_or((&setting, ""));
        let parsed = toml::from_str::<Table>(&format!("value = {text}"));
        match parsed.ok().and_then(|mut table| table.remove("value")) {
            Some(value) => found.set(shown, own, &value),
            None => found.lost(shown, "its value has a line break"),
        }
    }
    true
}

/// The tables of the CRI plugin, of all versions of the schema.
pub(super) fn cri_tables(file: &Table) -> impl Iterator<Item = &Table> {
    let plugins = file.get("plugins").and_then(Value::as_table);
    CRI_TABLES.iter().filter_map(move |name| plugins?.get(*name)?.as_table())
}
