// SPDX-License-Identifier: Apache-2.0
//! The runtimes of the testbed: the programs that each needs, and its configuration.
//!
//! All have the same kind of network: a bridge with addresses of the node's own and host ports; Hull by
//! itself and, where that is asked for by its label, by plugins too; the others by the plugins bridge, host-local and portmap. What is not set is the runtime's default.

use super::place::{Place, without_v2};
use hull_tests::{ExpectExt as _, paths};
use std::path::PathBuf;

/// A runtime that can take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runtime {
    Hull,
    /// With plugins, as the others.
    HullCni,
    ContainerdRunc,
    ContainerdCrun,
    Crio,
}

/// Where `scripts/baselines` puts what it builds.
fn baselines() -> PathBuf {
    paths::root().join(".cache/baselines")
}

/// A program of `scripts/baselines`, else one that is installed.
fn program(name: &str) -> Option<PathBuf> {
    let installed =
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"].map(PathBuf::from);
    let mut dirs = vec![baselines()];
    dirs.extend(installed);
    dirs.into_iter().map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn found(name: &str) -> String {
    program(name).or_fail(format!("find {name}")).display().to_string()
}

/// The folder of the network plugins.
fn plugins() -> Option<PathBuf> {
    let dirs = [baselines().join("cni"), "/opt/cni/bin".into(), "/usr/lib/cni".into()];
    dirs.into_iter().find(|dir| dir.join("portmap").is_file())
}

impl Runtime {
    /// Those that can be started here, Hull first.
    pub(super) fn found() -> Vec<Self> {
        let all =
            [Self::Hull, Self::HullCni, Self::ContainerdRunc, Self::ContainerdCrun, Self::Crio];
        all.into_iter().filter(|runtime| runtime.is_there()).collect()
    }

    /// Whether it takes part only when its label is named.
    pub(super) fn is_extra(self) -> bool {
        self == Self::HullCni
    }

    fn is_there(self) -> bool {
        let needs: &[&str] = match self {
            Self::Hull => return true,
            Self::HullCni => &["iptables"],
            Self::ContainerdRunc => &["containerd", "containerd-shim-runc-v2", "runc", "iptables"],
            Self::ContainerdCrun => &["containerd", "containerd-shim-runc-v2", "crun", "iptables"],
            Self::Crio => &["crio", "pinns", "conmon", "crun", "iptables"],
        };
        plugins().is_some() && needs.iter().all(|name| program(name).is_some())
    }

    /// Name in the report.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Hull => "Hull",
            Self::HullCni => "Hull, CNI",
            Self::ContainerdRunc => "containerd+runc",
            Self::ContainerdCrun => "containerd+crun",
            Self::Crio => "CRI-O+crun",
        }
    }

    /// Its bridge and the second byte of its subnet.
    fn network(self) -> (&'static str, u8) {
        match self {
            Self::Hull => ("hullbench", 201),
            Self::HullCni => ("hclbench", 205),
            Self::ContainerdRunc => ("cdrbench", 202),
            Self::ContainerdCrun => ("cdcbench", 203),
            Self::Crio => ("criobench", 204),
        }
    }

    /// Writes its configuration and its programs.
    pub(super) fn prepare(self, pause: &str) -> Place {
        let name = match self {
            Self::Hull => "hull",
            Self::HullCni => "hull-cni",
            Self::ContainerdRunc => "containerd-runc",
            Self::ContainerdCrun => "containerd-crun",
            Self::Crio => "crio",
        };
        let place = Place { name };
        let dir = place.dir().display().to_string();
        if self != Self::Hull {
            place.write("net.d/10-bench.conflist", &self.conflist(&dir));
        }
        let command: Vec<String> = match self {
            Self::Hull | Self::HullCni => {
                place.write("hull.toml", &self.hull(&place, &dir));
                let program = paths::hull().display().to_string();
                [&program, "serve", "--config", &format!("{dir}/hull.toml")]
                    .map(String::from)
                    .into()
            }
            Self::ContainerdRunc | Self::ContainerdCrun => {
                let oci = found(if self == Self::ContainerdRunc { "runc" } else { "crun" });
                place.write("containerd.toml", &containerd(&place, &dir, &oci, pause));
                let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", baselines().display());
                let config = format!("{dir}/containerd.toml");
                ["env", &path, &found("containerd"), "--config", &config].map(String::from).into()
            }
            Self::Crio => {
                place.write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
                let (host, _) = pause.split_once('/').or_fail("find the registry");
                let registries = format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n");
                place.write("home/.config/containers/registries.conf", &registries);
                place.write("storage.conf", &format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{dir}/storage\"\nrunroot = \"{dir}/run\"\n"));
                place.write("crio.toml", &crio(&place, &dir, pause));
                let env = [
                    format!("HOME={dir}/home"),
                    format!("CONTAINERS_STORAGE_CONF={dir}/storage.conf"),
                ];
                let (config, none) = (format!("{dir}/crio.toml"), format!("{dir}/none.d"));
                [
                    "env",
                    &env[0],
                    &env[1],
                    &found("crio"),
                    "--config",
                    &config,
                    "--config-dir",
                    &none,
                ]
                .map(String::from)
                .into()
            }
        };
        let mut all = Vec::new();
        if matches!(self, Self::ContainerdCrun | Self::Crio) {
            all = without_v2();
        }
        all.extend(command);
        place.write_programs(&all);
        place
    }

    fn conflist(self, dir: &str) -> String {
        let (bridge, subnet) = self.network();
        serde_json::json!({
            "cniVersion": "1.0.0",
            "name": "bench",
            "plugins": [
                {
                    "type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": true,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local", "dataDir": format!("{dir}/addresses"),
                        "ranges": [[{"subnet": format!("10.{subnet}.0.0/16")}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        })
        .to_string()
    }

    fn hull(self, place: &Place, dir: &str) -> String {
        let (bridge, subnet) = self.network();
        let network = if self == Self::HullCni {
            format!(
                "mode = \"cni\"\n[network.cni]\nconf_dir = \"{dir}/net.d\"\nbin_dirs = [{:?}]\n",
                plugin_dir()
            )
        } else {
            format!(
                "mode = \"bridge\"\nbridge = \"{bridge}\"\npod_cidr = [\"10.{subnet}.0.0/16\"]\n"
            )
        };
        format!(
            "state_dir = \"/run/{name}\"\ndata_dir = \"{dir}/data\"\nsocket = {socket:?}\n\
             [cgroup]\nparent = {pods:?}\n\
             [nri]\nsocket = \"/run/{name}/nri.sock\"\n\
             [network]\n{network}",
            name = place.name,
            socket = place.socket(),
            pods = place.pods(),
        )
    }
}

fn plugin_dir() -> String {
    plugins().or_fail("find the network plugins").display().to_string()
}

/// containerd 2. The OOM score is left alone where it may not be lowered.
fn containerd(place: &Place, dir: &str, oci: &str, pause: &str) -> String {
    format!(
        r#"version = 3
root = "{dir}/root"
state = "{dir}/state"
[grpc]
address = {socket:?}
[plugins.'io.containerd.internal.v1.opt']
path = "{dir}/opt"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{plugins}"]
conf_dir = "{dir}/net.d"
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "bench"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.bench]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.bench.options]
BinaryName = "{oci}"
Root = "{dir}/oci"
SystemdCgroup = false
"#,
        socket = place.socket(),
        plugins = plugin_dir(),
    )
}

fn crio(place: &Place, dir: &str, pause: &str) -> String {
    format!(
        r#"[crio]
root = "{dir}/storage"
runroot = "{dir}/run"
storage_driver = "overlay"
log_dir = "{dir}/pod-logs"
version_file = "{dir}/version"
version_file_persist = ""
clean_shutdown_file = "{dir}/clean"
[crio.api]
listen = {socket:?}
stream_address = "127.0.0.1"
stream_port = "0"
[crio.runtime]
default_runtime = "crun"
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
apparmor_profile = "unconfined"
pinns_path = "{pinns}"
namespaces_dir = "{dir}/namespaces"
container_exits_dir = "{dir}/exits"
container_attach_socket_dir = "{dir}/attach"
hooks_dir = []
irqbalance_config_file = ""
[crio.runtime.runtimes.crun]
runtime_path = "{crun}"
runtime_type = "oci"
runtime_root = "{dir}/oci"
monitor_path = "{conmon}"
[crio.image]
pause_image = "{pause}"
pause_command = "/pause"
signature_policy = "{dir}/policy.json"
[crio.network]
network_dir = "{dir}/net.d"
plugin_dirs = ["{plugins}"]
"#,
        socket = place.socket(),
        pinns = found("pinns"),
        crun = found("crun"),
        conmon = found("conmon"),
        plugins = plugin_dir(),
    )
}
