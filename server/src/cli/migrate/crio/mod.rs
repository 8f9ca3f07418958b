// SPDX-License-Identifier: Apache-2.0
//! Reads a CRI-O: crio.conf and its drop-ins, registries.conf, the images of containers/storage.

mod beside;
mod registries;
mod settings;
mod store;

use super::super::error::Result;
use super::findings::Findings;
use super::root::Root;
use super::toml_file::{merge, read as read_toml};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

const FILE: &str = "/etc/crio/crio.conf";
const DROP_INS: &str = "/etc/crio/crio.conf.d";
/// The configuration of containers/storage, and its default for `graphroot`.
const STORAGE: &str = "/etc/containers/storage.conf";
const GRAPH_ROOT: &str = "/var/lib/containers/storage";
/// The image of the pause program that CRI-O pulls, without a tag.
const PAUSE: &str = "registry.k8s.io/pause";

/// Reads all that a node has of CRI-O.
///
/// # Errors
/// A file cannot be read, or is not in CRI-O's form.
pub(crate) fn read(root: &Root) -> Result<Findings> {
    let mut found = Findings::default();
    let mut file = Table::new();
    let drop_ins = root.names(Path::new(DROP_INS))?;
    let drop_ins = drop_ins.iter().map(|name| Path::new(DROP_INS).join(name));
    for path in std::iter::once(PathBuf::from(FILE)).chain(drop_ins) {
        if let Some(table) = read_toml(root, &path)? {
            found.sources.push(path.display().to_string());
            merge(&mut file, table);
        }
    }
    found.socket = text(&file, &["crio", "api", "listen"]).map(str::to_owned);
    settings::translate(&file, &mut found);
    registries::translate(root, &mut found)?;
    beside::note(root, &file, &mut found)?;
    let place = graph_root(root, &file, &mut found)?;
    let pause = text(&file, &["crio", "image", "pause_image"]).unwrap_or(PAUSE);
    store::images(root, &place, pause, &mut found)?;
    Ok(found)
}

/// The directory of the images.
fn graph_root(root: &Root, file: &Table, found: &mut Findings) -> Result<PathBuf> {
    if let Some(own) = text(file, &["crio", "root"]) {
        return Ok(own.into());
    }
    let storage = read_toml(root, Path::new(STORAGE))?.unwrap_or_default();
    if !storage.is_empty() {
        found.sources.push(STORAGE.into());
    }
    let others = storage.get("storage").and_then(|of| of.get("options"));
    let others = others.and_then(|of| of.get("additionalimagestores")).and_then(Value::as_array);
    if others.is_some_and(|all| !all.is_empty()) {
        let why = "images in further stores are not taken over: `hull import` reads archives";
        found.lost("storage.options.additionalimagestores", why);
    }
    Ok(text(&storage, &["storage", "graphroot"]).unwrap_or(GRAPH_ROOT).into())
}

/// A string that is not empty.
fn text<'f>(file: &'f Table, path: &[&str]) -> Option<&'f str> {
    let (last, above) = path.split_last()?;
    let mut table = file;
    for name in above {
        table = table.get(*name)?.as_table()?;
    }
    table.get(*last)?.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of crio.conf(5), most with their defaults.
    const CONFIG: &str = r#"
[crio]
root = ""
storage_driver = "overlay"
log_dir = "/var/log/crio/pods"
clean_shutdown_file = "/var/lib/crio/clean.shutdown"
[crio.api]
listen = "/var/run/crio/crio.sock"
stream_address = "127.0.0.1"
stream_enable_tls = false
grpc_max_recv_msg_size = 83886080
[crio.runtime]
default_ulimits = ["nofile=1024:2048"]
no_pivot = false
conmon = ""
conmon_cgroup = "system.slice"
default_env = []
selinux = false
seccomp_profile = ""
apparmor_profile = "crio-default"
cgroup_manager = "systemd"
default_capabilities = ["CHOWN", "SETUID"]
default_sysctls = []
hooks_dir = ["/usr/share/containers/oci/hooks.d"]
default_mounts = []
pids_limit = -1
log_size_max = -1
log_level = "info"
cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
default_runtime = "crun"
drop_infra_ctr = true
[crio.runtime.runtimes.crun]
runtime_path = "/usr/libexec/crio/crun"
runtime_type = "oci"
allowed_annotations = ["io.containers.trace-syscall"]
[crio.image]
global_auth_file = "/var/lib/kubelet/config.json"
pause_image = "registry.k8s.io/pause:3.10"
pause_command = "/pause"
pinned_images = ["quay.io/a/b:1", "quay.io/all/*"]
signature_policy = ""
image_volumes = "mkdir"
[crio.network]
network_dir = "/etc/cni/net.d/"
plugin_dirs = ["/opt/cni/bin/"]
cni_default_network = ""
[crio.metrics]
enable_metrics = true
metrics_port = 9090
[crio.tracing]
enable_tracing = false
[crio.nri]
enable_nri = true
nri_listen = "/var/run/nri/nri.sock"
nri_plugin_dir = "/opt/nri/plugins"
nri_plugin_config_dir = "/etc/nri/conf.d"
nri_plugin_registration_timeout = "5s"
nri_plugin_request_timeout = "2s"
nri_disable_connections = false
[crio.stats]
stats_collection_period = 0
"#;

    #[test]
    fn each_field_is_taken_or_explained_and_drop_ins_win() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc/crio");
        std::fs::create_dir_all(etc.join("crio.conf.d")).unwrap();
        std::fs::write(etc.join("crio.conf"), CONFIG).unwrap();
        let more = "[crio.runtime]\ncgroup_manager = \"cgroupfs\"\n";
        std::fs::write(etc.join("crio.conf.d/99-driver.conf"), more).unwrap();
        let found = read(&Root::open(dir.path()).unwrap()).unwrap();
        let settings: Vec<String> =
            found.settings.iter().map(|(key, of)| format!("{key} = {}", of.value)).collect();
        assert_eq!(
            settings,
            [
                "cgroup.driver = \"cgroupfs\"",
                "image.docker_config = \"/var/lib/kubelet/config.json\"",
                "image.pinned = [\"quay.io/a/b:1\"]",
                "network.cni.bin_dirs = [\"/opt/cni/bin/\"]",
                "runtime.default_ulimits = [\"nofile=1024:2048\"]",
                "runtime.hooks_dir = [\"/usr/share/containers/oci/hooks.d\"]",
            ]
        );
        let lost: Vec<&str> = found.lost.iter().map(|of| of.name.as_str()).collect();
        for name in [
            "crio.runtime.default_runtime",
            "crio.runtime.runtimes.crun.allowed_annotations",
            "crio.runtime.default_capabilities",
            "crio.metrics.enable_metrics",
        ] {
            assert!(lost.contains(&name), "{name}: {lost:#?}");
        }
        assert!(found.lost.iter().any(|of| of.why.contains("quay.io/all/*")), "{:?}", found.lost);
        let leaves = CONFIG.lines().filter(|line| line.contains(" = ")).count();
        // Some of the pinned images are taken, and others not.
        let all = found.settings.len() + found.same.len() + found.lost.len();
        let there_is_no_store = 1;
        assert_eq!(all, leaves + 1 + there_is_no_store, "{found:#?}");
    }
}
