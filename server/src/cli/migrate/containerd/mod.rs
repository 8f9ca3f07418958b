// SPDX-License-Identifier: Apache-2.0
//! Reads a containerd: its configuration with imports, its registries, its images.
//!
//! ```text
//! config → settings → (registries) → findings
//! store ─ images by name from meta.db, their blobs from the content store
//! ```

mod config;
mod registries;
mod settings;
mod store;

use super::super::error::Result;
use super::findings::Findings;
use super::root::Root;
use std::path::Path;
use toml::{Table, Value};

/// The directory of containerd's files, unless its configuration names another.
const ROOT: &str = "/var/lib/containerd";

/// Reads all that a node has of containerd.
///
/// # Errors
/// A file cannot be read, or is not in containerd's form.
pub(crate) fn read(root: &Root) -> Result<Findings> {
    let mut found = Findings::default();
    let file = config::load(root, &mut found)?;
    let address = file.get("grpc").and_then(|of| of.get("address")).and_then(Value::as_str);
    found.socket = address.filter(|of| !of.is_empty()).map(str::to_owned);
    settings::translate(&file, &mut found);
    registries::translate(root, &file, &mut found)?;
    let place = file.get("root").and_then(Value::as_str).filter(|place| !place.is_empty());
    let place = Path::new(place.unwrap_or(ROOT));
    store::images(root, place, sandbox_image(&file), &mut found)?;
    Ok(found)
}

/// The image of the pause program, which Hull does not need.
fn sandbox_image(file: &Table) -> Option<&str> {
    settings::cri_tables(file).find_map(|table| {
        let pinned = table.get("pinned_images").and_then(|of| of.get("sandbox"));
        pinned.or_else(|| table.get("sandbox_image"))?.as_str()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of containerd's documentation with their defaults, in version 3.
    const DEFAULTS_3: &str = r#"
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
temp = ""
disabled_plugins = []
required_plugins = []
oom_score = 0
imports = []
[grpc]
address = "/run/containerd/containerd.sock"
tcp_address = ""
uid = 0
gid = 0
max_recv_message_size = 16777216
[ttrpc]
address = ""
[debug]
address = ""
level = ""
format = ""
[metrics]
address = ""
grpc_histogram = false
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
disable_snapshot_annotations = true
discard_unpacked_layers = false
max_concurrent_downloads = 3
image_pull_progress_timeout = "5m0s"
stats_collect_period = 10
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.10.1"
[plugins."io.containerd.cri.v1.images".registry]
config_path = ""
[plugins."io.containerd.cri.v1.images".image_decryption]
key_model = "node"
[plugins."io.containerd.cri.v1.runtime"]
enable_selinux = false
selinux_category_range = 1024
max_container_log_line_size = 16384
disable_apparmor = false
restrict_oom_score_adj = false
disable_proc_mount = false
unset_seccomp_profile = ""
tolerate_missing_hugetlb_controller = true
device_ownership_from_security_context = false
ignore_image_defined_volumes = false
netns_mounts_under_state_dir = false
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
enable_cdi = true
cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
drain_exec_sync_io_timeout = "0s"
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = ""
SystemdCgroup = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dir = ""
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
max_conf_num = 1
conf_template = ""
[plugins."io.containerd.nri.v1.nri"]
disable = false
socket_path = "/var/run/nri/nri.sock"
plugin_path = "/opt/nri/plugins"
plugin_config_path = "/etc/nri/conf.d"
plugin_registration_timeout = "5s"
plugin_request_timeout = "2s"
disable_connections = false
[plugins."io.containerd.gc.v1.scheduler"]
pause_threshold = 0.02
[timeouts]
"io.containerd.timeout.shim.cleanup" = "5s"
"#;

    fn node(config: &str) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/containerd")).unwrap();
        std::fs::write(dir.path().join("etc/containerd/config.toml"), config).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn each_default_of_version_3_is_taken_or_explained() {
        let (_dir, root) = node(DEFAULTS_3);
        let found = read(&root).unwrap();
        let settings: Vec<String> =
            found.settings.iter().map(|(key, of)| format!("{key} = {}", of.value)).collect();
        assert_eq!(
            settings,
            [
                "cgroup.driver = \"systemd\"",
                "image.concurrent_layers = 3",
                "network.cni.bin_dirs = [\"/opt/cni/bin\"]",
            ]
        );
        let lost: Vec<&str> = found.lost.iter().map(|of| of.name.as_str()).collect();
        // Of containerd's own parts, and nothing of the node.
        assert!(
            lost.iter().all(|name| name.contains("gc.v1.scheduler")
                || name.starts_with("timeouts.")
                || name.contains("image_decryption")),
            "{lost:#?}"
        );
        // No leaf of the file is in none of the lists.
        let leaves = DEFAULTS_3.lines().filter(|line| line.contains(" = ")).count();
        let passed_over = ["version", "imports"].len();
        let there_is_no_store = 1;
        let all = found.settings.len() + found.same.len() + found.lost.len();
        assert_eq!(all, leaves - passed_over + there_is_no_store, "{found:#?}");
    }

    #[test]
    fn version_2_with_mirrors_becomes_hosts_files_without_secrets() {
        let (_dir, root) = node(
            r#"
version = 2
[debug]
level = "debug"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.9"
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "/etc/cni/special"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "kata"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
runtime_type = "io.containerd.kata.v2"
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
endpoint = ["https://mirror.example:5000", "ftp://old.example",
            "http://me:hunter2@m.example", "https://registry-1.docker.io"]
[plugins."io.containerd.grpc.v1.cri".registry.configs."mirror.example:5000".tls]
insecure_skip_verify = true
[plugins."io.containerd.grpc.v1.cri".registry.configs."mirror.example:5000".auth]
password = "hunter2"
[plugins."io.containerd.nri.v1.nri"]
disable = true
"#,
        );
        let found = read(&root).unwrap();
        let value = |key: &str| found.settings.get(key).map(|of| of.value.as_str());
        assert_eq!(value("image.config_path"), Some("\"/etc/hull/certs.d\""));
        assert_eq!(value("network.cni.conf_dir"), Some("\"/etc/cni/special\""));
        assert_eq!(value("nri.enable"), Some("false"));
        assert_eq!(value("log.level"), Some("\"debug\""));
        assert_eq!(found.files.len(), 2, "{:?}", found.files);
        let docker = &found.files.iter().find(|of| of.path.ends_with("docker.io/hosts.toml"));
        let text = &docker.unwrap().text;
        assert!(
            text.contains("[host.\"https://mirror.example:5000\"]\nskip_verify = true"),
            "{text}"
        );
        let lost = format!("{:?}", found.lost);
        for part in [
            "default_runtime_name",
            "runtimes.kata",
            ".auth.password",
            "endpoint ftp://old.example",
            "endpoint http://m.example",
        ] {
            assert!(lost.contains(part), "{part}: {lost}");
        }
        assert!(!format!("{found:?}").contains("hunter2"), "a secret is shown");
    }

    #[test]
    fn the_default_directory_of_registries_is_used_if_it_has_files() {
        let (dir, root) = node("version = 3\n");
        let directory = dir.path().join("etc/docker/certs.d/r.example");
        std::fs::create_dir_all(directory).unwrap();
        let found = read(&root).unwrap();
        assert_eq!(found.settings["image.config_path"].value, "\"/etc/docker/certs.d\"");
    }

    #[test]
    fn a_node_without_a_file_has_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let found = read(&Root::open(dir.path()).unwrap()).unwrap();
        assert!(found.settings.is_empty() && found.lost.is_empty(), "{found:?}");
    }
}
