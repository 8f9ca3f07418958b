// SPDX-License-Identifier: Apache-2.0
//! CRI-O's settings: which are Hull's, and why the others are not. Pure.

use super::super::findings::Findings;
use super::super::rules::Fate::{Key, Lost, LostIfOn, Milliseconds, Same};
use super::super::rules::{Rule, apply};
use super::super::toml_file::strings;
use crate::cli::containerd::flatten;
use toml::{Table, Value};

const RUNTIME: &str = "Hull runs containers itself; a pod whose RuntimeClass has this handler is refused: give it \
                       no RuntimeClass, or configure a handler with this name (`[runtime.handlers.NAME]`)";
const SESSIONS: &str =
    "sessions of exec, attach and port-forward are on loopback, by URLs that work once";
const MONITOR: &str = "Hull has a monitor of its own per pod";
const PAUSE: &str = "Hull has a pause program of its own";
const FILES: &str =
    "CRI-O's own files stay where they are; Hull's are in `data_dir` and `state_dir`";

/// Settings by their dotted names; a name with a dot at its end stands for all below it.
const RULES: &[Rule] = &[
    ("crio.root", Same(FILES)),
    ("crio.runroot", Same(FILES)),
    ("crio.imagestore", LostIfOn("images in a store of their own are not taken over")),
    ("crio.storage_driver", Same("Hull's layers are stacked by overlayfs")),
    ("crio.storage_option", LostIfOn("Hull has no options for its layers")),
    ("crio.log_dir", Same("the kubelet names the directory of logs")),
    ("crio.version_file", Same(FILES)),
    ("crio.version_file_persist", Same(FILES)),
    ("crio.clean_shutdown_file", Same(FILES)),
    ("crio.internal_wipe", Same("Hull removes what has no record whenever it starts")),
    (
        "crio.internal_repair",
        Same("Hull compares layers with their lists of files: `hull images verify`"),
    ),
    ("crio.api.listen", Same("Hull has a socket of its own, to which the kubelet is pointed")),
    (
        "crio.api.grpc_max_recv_msg_size",
        Same("Hull limits requests by `runtime.call_memory_bytes_max`"),
    ),
    (
        "crio.api.grpc_max_send_msg_size",
        Same("Hull limits requests by `runtime.call_memory_bytes_max`"),
    ),
    ("crio.api.stream_address", Same(SESSIONS)),
    ("crio.api.stream_port", Same(SESSIONS)),
    ("crio.api.stream_idle_timeout", Same("Hull ends sessions whose client does not answer")),
    ("crio.api.", LostIfOn(SESSIONS)),
    ("crio.runtime.cgroup_manager", Key("cgroup.driver")),
    ("crio.runtime.default_ulimits", Key("runtime.default_ulimits")),
    ("crio.runtime.cdi_spec_dirs", Key("runtime.cdi_spec_dirs")),
    ("crio.runtime.log_level", Key("log.level")),
    ("crio.runtime.default_runtime", Lost(RUNTIME)),
    ("crio.runtime.runtimes.", LostIfOn(RUNTIME)),
    ("crio.runtime.conmon", Same(MONITOR)),
    ("crio.runtime.conmon_cgroup", Same(MONITOR)),
    ("crio.runtime.conmon_env", Same(MONITOR)),
    ("crio.runtime.container_exits_dir", Same(MONITOR)),
    ("crio.runtime.container_attach_socket_dir", Same(MONITOR)),
    ("crio.runtime.container_min_memory", Same(MONITOR)),
    ("crio.runtime.ctr_stop_timeout", Same("the kubelet names the grace period of each pod")),
    ("crio.runtime.drop_infra_ctr", Same(PAUSE)),
    ("crio.runtime.infra_ctr_cpuset", LostIfOn("the pause program has the CPUs of its pod")),
    ("crio.runtime.shared_cpuset", LostIfOn("Hull has no CPUs that are shared by annotation")),
    ("crio.runtime.namespaces_dir", Same("namespaces of CNI are in `network.cni.netns_dir`")),
    ("crio.runtime.pinns_path", Same("Hull pins namespaces itself")),
    ("crio.runtime.decryption_keys_path", LostIfOn("Hull does not decrypt images")),
    ("crio.runtime.selinux", LostIfOn("Hull does not label containers for SELinux")),
    ("crio.runtime.hostnetwork_disable_selinux", Same("it has a meaning with SELinux alone")),
    (
        "crio.runtime.seccomp_profile",
        LostIfOn("name the file in the pods: type Localhost, below `runtime.seccomp_root`"),
    ),
    (
        "crio.runtime.privileged_seccomp_profile",
        LostIfOn("privileged containers are never confined"),
    ),
    (
        "crio.runtime.apparmor_profile",
        Same("containers have Hull's default profile where AppArmor is on"),
    ),
    (
        "crio.runtime.default_capabilities",
        Lost("containers have the usual default capabilities; name others in the pods"),
    ),
    (
        "crio.runtime.add_inheritable_capabilities",
        LostIfOn("containers have no inheritable capabilities"),
    ),
    ("crio.runtime.default_sysctls", LostIfOn("name sysctls in the pods")),
    ("crio.runtime.default_env", LostIfOn("name environment variables in the pods")),
    ("crio.runtime.default_mounts", LostIfOn("name mounts in the pods, or in a CDI file")),
    ("crio.runtime.default_mounts_file", LostIfOn("name mounts in the pods, or in a CDI file")),
    ("crio.runtime.allowed_devices", LostIfOn("name devices in a CDI file")),
    ("crio.runtime.additional_devices", LostIfOn("name devices in a CDI file")),
    (
        "crio.runtime.device_ownership_from_security_context",
        LostIfOn("devices keep the owner that they have on the host"),
    ),
    ("crio.runtime.hooks_dir", Key("runtime.hooks_dir")),
    ("crio.runtime.pids_limit", Same("the kubelet limits processes: `podPidsLimit`")),
    ("crio.runtime.log_to_journald", Key("logs.journald")),
    ("crio.runtime.log_filter", LostIfOn("select modules by `log.level`")),
    ("crio.runtime.read_only", LostIfOn("set readOnlyRootFilesystem in the pods")),
    ("crio.runtime.no_pivot", LostIfOn("Hull always changes the root by pivot_root")),
    (
        "crio.runtime.uid_mappings",
        LostIfOn("set hostUsers: false in the pods; the kubelet assigns the ids"),
    ),
    (
        "crio.runtime.gid_mappings",
        LostIfOn("set hostUsers: false in the pods; the kubelet assigns the ids"),
    ),
    ("crio.runtime.minimum_mappable_uid", Same("the kubelet assigns the ids of user namespaces")),
    ("crio.runtime.minimum_mappable_gid", Same("the kubelet assigns the ids of user namespaces")),
    ("crio.runtime.enable_pod_events", Same("Hull sends events to a kubelet that requests them")),
    (
        "crio.runtime.enable_criu_support",
        Same("Hull uses CRIU where it is installed: `runtime.criu`"),
    ),
    (
        "crio.runtime.irqbalance_config_file",
        Same("it belongs to annotations for interrupts, which Hull does not have"),
    ),
    (
        "crio.runtime.irqbalance_config_restore_file",
        Same("it belongs to annotations for interrupts, which Hull does not have"),
    ),
    (
        "crio.runtime.rdt_config_file",
        LostIfOn("Hull's RDT classes are the groups of resctrl, which an agent of the node makes"),
    ),
    ("crio.runtime.blockio_config_file", Key("runtime.blockio_config_file")),
    (
        "crio.runtime.blockio_reload",
        Same("Hull reads the file whenever a container asks for a class"),
    ),
    (
        "crio.runtime.absent_mount_sources_to_reject",
        LostIfOn("a missing source of a mount is created or refused as the kubelet requests"),
    ),
    ("crio.runtime.timezone", LostIfOn("name the variable TZ in the pods")),
    ("crio.runtime.bind_mount_prefix", LostIfOn("paths of the host are used as they are")),
    ("crio.runtime.workloads.", Lost("Hull has no resources by annotation")),
    ("crio.image.global_auth_file", Key("image.docker_config")),
    ("crio.image.pause_image", Same(PAUSE)),
    ("crio.image.pause_image_auth_file", Same(PAUSE)),
    ("crio.image.pause_command", Same(PAUSE)),
    ("crio.image.default_transport", Same("Hull pulls from registries")),
    (
        "crio.image.signature_policy",
        LostIfOn("write the rules to `image.policy`: docs/security.md has its form"),
    ),
    (
        "crio.image.signature_policy_dir",
        LostIfOn("write the rules to `image.policy`: docs/security.md has its form"),
    ),
    (
        "crio.image.insecure_registries",
        LostIfOn("write `skip_verify = true` into the hosts.toml of each"),
    ),
    ("crio.image.registries", LostIfOn("Hull completes short names with docker.io")),
    ("crio.image.short_name_mode", Same("Hull completes short names with docker.io")),
    ("crio.image.image_volumes", Same("volumes of an image are directories of the container")),
    ("crio.image.big_files_temporary_dir", Same("images are unpacked in `data_dir`")),
    ("crio.image.auto_reload_registries", Same("hosts.toml is read at every pull")),
    (
        "crio.image.pull_progress_timeout",
        Same("Hull replaces stalled connections: `image.stall_s`"),
    ),
    ("crio.image.", LostIfOn("Hull has no such setting")),
    ("crio.network.network_dir", Key("network.cni.conf_dir")),
    ("crio.network.plugin_dirs", Key("network.cni.bin_dirs")),
    (
        "crio.network.cni_default_network",
        LostIfOn("the first configuration by name is the network: rename its file"),
    ),
    (
        "crio.metrics.enable_metrics",
        LostIfOn("set `metrics.address`; Hull's metrics have other names: see docs/operate.md"),
    ),
    ("crio.metrics.", Same("it belongs to CRI-O's own metrics")),
    (
        "crio.tracing.enable_tracing",
        LostIfOn(
            "set `tracing.endpoint` and `tracing.sample_percent`; Hull's spans have other names: see docs/operate.md",
        ),
    ),
    ("crio.tracing.", Same("it belongs to CRI-O's own traces")),
    ("crio.stats.", Same("Hull reads usage when it is requested")),
    ("crio.nri.enable_nri", Key("nri.enable")),
    ("crio.nri.nri_listen", Key("nri.socket")),
    ("crio.nri.nri_plugin_dir", Key("nri.plugin_path")),
    ("crio.nri.nri_plugin_config_dir", Key("nri.plugin_config_path")),
    ("crio.nri.nri_plugin_registration_timeout", Milliseconds("nri.registration_timeout_ms")),
    ("crio.nri.nri_plugin_request_timeout", Milliseconds("nri.request_timeout_ms")),
    ("crio.nri.nri_disable_connections", Key("nri.disable_connections")),
];

/// Sorts all settings into the lists.
pub(super) fn translate(file: &Table, found: &mut Findings) {
    let mut leaves = Vec::new();
    for (key, value) in file {
        flatten(value, key, &mut leaves);
    }
    let error = Value::from("error");
    for (key, value) in leaves {
        // The names of levels are the same but for these.
        let is_fatal = matches!(value.as_str(), Some("fatal" | "panic"));
        let value = if is_fatal && key == "crio.runtime.log_level" { &error } else { value };
        if key == "crio.image.pinned_images" {
            pinned(&key, value, found);
        } else if key == "crio.runtime.seccomp_use_default_when_empty" {
            let profile =
                if value.as_bool() == Some(true) { "runtime/default" } else { "unconfined" };
            found.set(&key, "runtime.default_seccomp", &profile.into());
        } else if key == "crio.runtime.log_size_max" && value.as_integer().is_some_and(|of| of > 0)
        {
            let why = "set `logs.size_max`: what exceeds it is dropped until the kubelet rotates the log, \
                       where CRI-O begins the file again";
            found.lost(&key, why);
        } else if key == "crio.runtime.log_size_max" {
            found.same(&key, "it sets no limit, as in Hull");
        } else if !apply(RULES, &key, &key, value, found) {
            found.lost(&key, "Hull has no such setting");
        }
    }
}

/// Names are taken; patterns have no counterpart.
fn pinned(key: &str, value: &Value, found: &mut Findings) {
    let (patterns, names): (Vec<String>, Vec<String>) =
        strings(value).into_iter().partition(|name| name.contains('*'));
    for pattern in patterns {
        let pattern = hull_sys::text::shown(pattern, 256);
        found.lost(key, format!("`image.pinned` takes names, and no patterns such as {pattern}"));
    }
    let names: Vec<Value> = names.into_iter().map(Value::from).collect();
    found.set(key, "image.pinned", &Value::Array(names));
}
