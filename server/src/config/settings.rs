// SPDX-License-Identifier: Apache-2.0
//! The settings as types, one per section, with their defaults. What each one means is in [`keys`](super::keys).

use super::handlers::{DefaultSeccomp, Handler};
use super::logs::Logs;
use super::size::{self, Size};
use crate::limits;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// All settings of the configuration, section by section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) state_dir: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) log: Log,
    pub(crate) logs: Logs,
    pub(crate) metrics: Metrics,
    pub(crate) tracing: Tracing,
    pub(crate) cgroup: Cgroup,
    pub(crate) network: Network,
    pub(crate) runtime: Runtime,
    pub(crate) nri: Nri,
    pub(crate) image: Image,
}

/// The section `[log]` of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

/// The section `[metrics]` of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metrics {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca: Option<PathBuf>,
}

/// The section `[tracing]` of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tracing {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_key: Option<PathBuf>,
    pub(crate) sample_percent: u64,
}

/// Format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The section `[cgroup]` of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cgroup {
    pub(crate) driver: Driver,
    pub(crate) parent: String,
}

/// Driver that creates the cgroups of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Driver {
    Auto,
    Cgroupfs,
    Systemd,
}

/// The section `[network]` of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Network {
    pub(crate) mode: NetworkMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uplink: Option<String>,
    pub(crate) bridge: String,
    /// Empty: not set.
    #[serde(
        serialize_with = "subnets::serialize",
        deserialize_with = "subnets::at_least_one",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) pod_cidr: Vec<IpNet>,
    pub(crate) wait_for_pod_cidr: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    pub(crate) masquerade: bool,
    #[serde(with = "subnets", skip_serializing_if = "Vec::is_empty")]
    pub(crate) cluster_cidrs: Vec<IpNet>,
    pub(crate) table: String,
    pub(crate) cni: Cni,
}

/// How pods are attached to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NetworkMode {
    Auto,
    Bridge,
    Macvlan,
    Ipvlan,
    Cni,
    None,
}

/// The section `[network.cni]` of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cni {
    pub(crate) conf_dir: PathBuf,
    pub(crate) bin_dirs: Vec<PathBuf>,
    pub(crate) networks_max: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conf_template: Option<PathBuf>,
    pub(crate) netns_dir: PathBuf,
    pub(crate) plugin_timeout_s: u64,
    pub(crate) gc_interval_s: u64,
}

/// The section `[runtime]` of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Runtime {
    #[serde(deserialize_with = "size::deserialize")]
    pub(crate) shm_bytes: u64,
    pub(crate) seccomp_root: PathBuf,
    pub(crate) cdi_spec_dirs: Vec<PathBuf>,
    pub(crate) hooks_dir: Vec<PathBuf>,
    pub(crate) default_seccomp: DefaultSeccomp,
    pub(crate) default_ulimits: Vec<String>,
    pub(crate) exit_message_output: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) blockio_config_file: Option<PathBuf>,
    #[serde(deserialize_with = "size::deserialize")]
    pub(crate) exec_output_bytes_max: u64,
    pub(crate) exec_drain_s: u64,
    pub(crate) exec_syncs_max: usize,
    pub(crate) launch_timeout_s: u64,
    pub(crate) userns: Userns,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) userns_user: Option<String>,
    pub(crate) subuid_file: PathBuf,
    pub(crate) subgid_file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) writable_layer_size: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) criu: Option<PathBuf>,
    #[serde(deserialize_with = "size::deserialize")]
    pub(crate) call_memory_bytes_max: u64,
    /// The runtime handlers beside Hull's own, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) handlers: BTreeMap<String, Handler>,
}

/// Which pods get a user namespace by Hull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Userns {
    /// Those of `hull run --userns auto` alone.
    Off,
    /// Those whose client says nothing about user namespaces.
    Auto,
    /// Those, too, whose client asks for the host's.
    Always,
}

/// The section `[nri]` of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Nri {
    pub(crate) enable: bool,
    pub(crate) socket: PathBuf,
    pub(crate) disable_connections: bool,
    pub(crate) plugin_path: PathBuf,
    pub(crate) plugin_config_path: PathBuf,
    pub(crate) registration_timeout_ms: u64,
    pub(crate) request_timeout_ms: u64,
}

/// The section `[image]` of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Image {
    pub(crate) concurrent_layers: usize,
    pub(crate) pinned: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config_path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) docker_config: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PathBuf>,
    pub(crate) stall_s: u64,
    #[serde(deserialize_with = "size::deserialize")]
    pub(crate) layer_bytes_max: u64,
    pub(crate) layer_entries_max: u64,
    #[serde(deserialize_with = "size::deserialize")]
    pub(crate) layer_apparent_bytes_max: u64,
    pub(crate) layer_seconds_max: u64,
    #[serde(deserialize_with = "size::deserialize")]
    pub(crate) archive_bytes_max: u64,
    pub(crate) keep_blobs: bool,
    pub(crate) registry: Vec<Registry>,
}

/// One entry of `[[image.registry]]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Registry {
    pub(crate) host: String,
    pub(crate) mirrors: Vec<String>,
    pub(crate) plain_http: bool,
    pub(crate) skip_verify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/run/hull".into(),
            data_dir: "/var/lib/hull".into(),
            socket: "/run/hull/hull.sock".into(),
            log: Log::default(),
            logs: Logs::default(),
            metrics: Metrics::default(),
            tracing: Tracing::default(),
            cgroup: Cgroup::default(),
            network: Network::default(),
            runtime: Runtime::default(),
            nri: Nri::default(),
            image: Image::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            endpoint: None,
            ca_file: None,
            client_cert: None,
            client_key: None,
            sample_percent: 1,
        }
    }
}

impl Default for Cgroup {
    fn default() -> Self {
        Self { driver: Driver::Auto, parent: "/hull".into() }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            mode: NetworkMode::Auto,
            uplink: None,
            bridge: "hull0".into(),
            pod_cidr: Vec::new(),
            wait_for_pod_cidr: false,
            mtu: None,
            masquerade: true,
            cluster_cidrs: Vec::new(),
            table: "hull".into(),
            cni: Cni::default(),
        }
    }
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            networks_max: 1,
            conf_template: None,
            netns_dir: "/run/netns".into(),
            plugin_timeout_s: hull_network::limits::PLUGIN_TIMEOUT_S.default,
            gc_interval_s: 600,
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            shm_bytes: 64 << 20,
            seccomp_root: "/var/lib/kubelet/seccomp".into(),
            cdi_spec_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            hooks_dir: Vec::new(),
            default_seccomp: DefaultSeccomp::Unconfined,
            default_ulimits: Vec::new(),
            exit_message_output: false,
            blockio_config_file: None,
            exec_output_bytes_max: limits::EXEC_OUTPUT_BYTES.default,
            exec_drain_s: limits::EXEC_DRAIN_S.default,
            exec_syncs_max: limits::EXEC_SYNCS.count(),
            launch_timeout_s: limits::LAUNCH_S.default,
            userns: Userns::Off,
            userns_user: None,
            subuid_file: "/etc/subuid".into(),
            subgid_file: "/etc/subgid".into(),
            writable_layer_size: None,
            criu: None,
            call_memory_bytes_max: limits::CALL_MEMORY_BYTES.default,
            handlers: BTreeMap::new(),
        }
    }
}

impl Default for Nri {
    fn default() -> Self {
        Self {
            enable: true,
            socket: "/var/run/nri/nri.sock".into(),
            disable_connections: false,
            plugin_path: "/opt/nri/plugins".into(),
            plugin_config_path: "/etc/nri/conf.d".into(),
            registration_timeout_ms: hull_nri::limits::REGISTRATION_TIMEOUT_MS.default,
            request_timeout_ms: hull_nri::limits::REQUEST_TIMEOUT_MS.default,
        }
    }
}

impl Default for Image {
    fn default() -> Self {
        let hull_image::Limits { bytes, entries, apparent_bytes, seconds, archive_bytes } =
            hull_image::Limits::default();
        Self {
            concurrent_layers: 4,
            pinned: Vec::new(),
            config_path: None,
            docker_config: None,
            policy: None,
            stall_s: hull_image::limits::STALL_S.default,
            layer_bytes_max: bytes,
            layer_entries_max: entries,
            layer_apparent_bytes_max: apparent_bytes,
            layer_seconds_max: seconds,
            archive_bytes_max: archive_bytes,
            keep_blobs: false,
            registry: Vec::new(),
        }
    }
}

/// Subnets as strings, such as `10.244.1.0/24`.
mod subnets {
    use ipnet::IpNet;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(nets: &[IpNet], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(nets.iter().map(ToString::to_string))
    }

    /// As [`deserialize`], without an empty list: a setting without a value stays out of the file.
    pub(super) fn at_least_one<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
        let nets = deserialize(from)?;
        if nets.is_empty() {
            let why = "it must name one IPv4 subnet, one IPv6 subnet, or one of each";
            return Err(D::Error::custom(why));
        }
        Ok(nets)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                D::Error::custom(format!("`{text}` is not a subnet such as 10.244.1.0/24"))
            })
        };
        texts.iter().map(parse).collect()
    }
}
