// SPDX-License-Identifier: Apache-2.0
//! The configuration: what can be set, its defaults, and where each value came from.
//!
//! ```text
//! embedded defaults  <  FILE  <  FILE.d/*.toml, by name  <  flags of `hull serve`
//! ```
//!
//! The rule: a key that nobody knows is an error that names file, line and the nearest known key,
//! because a misspelt setting that is silently ignored is found out in production. What each key
//! means stands once, in [`keys`]; `hull config default` and docs/config.md come from there.
//!
//! Not here: what the parts do with their settings. [`parts`] hands each its own.

mod error;
pub(crate) mod keys;
mod layers;
mod nri;
mod parts;
#[cfg(test)]
mod tests;

pub(crate) use error::Error;
pub(crate) use layers::{Loaded, Origin};
pub(crate) use nri::Nri;

use crate::limits;
use crate::systemd::names;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Where the configuration is looked for when no file is named.
pub(crate) const FILE: &str = "/etc/hull/config.toml";

/// Longest path of a unix socket, in bytes: `sun_path` less the closing NUL.
const SOCKET_BYTES_MAX: usize = 107;
/// Longest state directory, in bytes: a monitor listens at `<state_dir>/run/<64 digits>/monitor.sock`.
const STATE_DIR_BYTES_MAX: usize = SOCKET_BYTES_MAX - "/run/".len() - 64 - "/monitor.sock".len();

/// Least memory for calls, in bytes: one message of 16 MiB, twice, and room to grow.
const CALL_MEMORY_BYTES_MIN: u64 = 48 << 20;

/// All that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) state_dir: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) log: Log,
    pub(crate) cgroup: Cgroup,
    pub(crate) network: Network,
    pub(crate) runtime: Runtime,
    pub(crate) nri: Nri,
    pub(crate) image: Image,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// `[cgroup]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cgroup {
    pub(crate) driver: Driver,
    pub(crate) parent: String,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Driver {
    Auto,
    Cgroupfs,
    Systemd,
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Network {
    pub(crate) mode: NetworkMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uplink: Option<String>,
    pub(crate) bridge: String,
    #[serde(with = "subnets")]
    pub(crate) pod_cidr: Vec<IpNet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    pub(crate) masquerade: bool,
    pub(crate) table: String,
    pub(crate) cni: Cni,
}

/// Who makes the pods' network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NetworkMode {
    Bridge,
    Macvlan,
    Ipvlan,
    Cni,
    None,
}

/// `[network.cni]`
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

/// `[runtime]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Runtime {
    pub(crate) shm_bytes: u64,
    pub(crate) seccomp_root: PathBuf,
    pub(crate) cdi_spec_dirs: Vec<PathBuf>,
    pub(crate) default_seccomp: DefaultSeccomp,
    pub(crate) exec_output_bytes_max: u64,
    pub(crate) exec_drain_s: u64,
    pub(crate) exec_syncs_max: usize,
    pub(crate) launch_timeout_s: u64,
    pub(crate) call_memory_bytes_max: u64,
}

/// The seccomp profile of a container that names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DefaultSeccomp {
    #[serde(rename = "runtime/default")]
    RuntimeDefault,
    #[serde(rename = "unconfined")]
    Unconfined,
}

/// `[image]`
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
    pub(crate) layer_bytes_max: u64,
    pub(crate) layer_entries_max: u64,
    pub(crate) layer_apparent_bytes_max: u64,
    pub(crate) layer_seconds_max: u64,
    pub(crate) archive_bytes_max: u64,
    pub(crate) keep_blobs: bool,
    pub(crate) registry: Vec<Registry>,
}

/// `[[image.registry]]`
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

impl Default for Cgroup {
    fn default() -> Self {
        Self { driver: Driver::Auto, parent: "/hull".into() }
    }
}

impl Default for Network {
    fn default() -> Self {
        let pods = Ipv4Net::new_assert(Ipv4Addr::new(10, 88, 0, 0), 16);
        Self {
            mode: NetworkMode::Bridge,
            uplink: None,
            bridge: "hull0".into(),
            pod_cidr: vec![pods.into()],
            mtu: None,
            masquerade: true,
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
            default_seccomp: DefaultSeccomp::Unconfined,
            exec_output_bytes_max: limits::EXEC_OUTPUT_BYTES.default,
            exec_drain_s: limits::EXEC_DRAIN_S.default,
            exec_syncs_max: limits::EXEC_SYNCS.count(),
            launch_timeout_s: limits::LAUNCH_S.default,
            call_memory_bytes_max: limits::CALL_MEMORY_BYTES.default,
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

impl Config {
    /// Reads `path`, or [`FILE`] when there is one, and the drop-in files beside it.
    pub(crate) fn load(path: Option<&Path>) -> Result<Loaded, Error> {
        layers::load(path, &[])
    }

    /// Likewise, with `KEY=VALUE` settings of the command line on top.
    pub(crate) fn load_with(path: Option<&Path>, set: &[String]) -> Result<Loaded, Error> {
        layers::load(path, set)
    }

    /// What is wrong with the values as such: the key and why.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let absolute = [
            ("state_dir", &self.state_dir),
            ("data_dir", &self.data_dir),
            ("socket", &self.socket),
            ("runtime.seccomp_root", &self.runtime.seccomp_root),
        ];
        let cdi = self.runtime.cdi_spec_dirs.iter().map(|dir| ("runtime.cdi_spec_dirs", dir));
        for (key, path) in absolute.into_iter().chain(cdi) {
            if !path.is_absolute() {
                return Err((key, format!("`{}` is no absolute path", path.display())));
            }
        }
        let lengths = [
            ("state_dir", &self.state_dir, STATE_DIR_BYTES_MAX),
            ("socket", &self.socket, SOCKET_BYTES_MAX),
        ];
        for (key, path, most) in lengths {
            if path.as_os_str().len() > most {
                let why = format!(
                    "`{}` has more than {most} bytes: sockets there would not fit (unix(7))",
                    path.display()
                );
                return Err((key, why));
            }
        }
        let parent = &self.cgroup.parent;
        let is_path = parent.starts_with('/')
            && parent.len() >= 2
            && !parent.split('/').any(|part| part == "..");
        let is_slice = self.cgroup.driver != Driver::Cgroupfs && names::slice(parent).is_ok();
        if !is_path && !is_slice {
            return Err((
                "cgroup.parent",
                format!(
                    "`{parent}` is no absolute path below the root, and no slice for the systemd driver"
                ),
            ));
        }
        // A single answer of the most output has to fit.
        if self.runtime.call_memory_bytes_max < CALL_MEMORY_BYTES_MIN {
            let why = format!("at least {CALL_MEMORY_BYTES_MIN} bytes are needed for one call");
            return Err(("runtime.call_memory_bytes_max", why));
        }
        if self.runtime.exec_syncs_max == 0 {
            let why = "at least 1 command must run at a time".into();
            return Err(("runtime.exec_syncs_max", why));
        }
        if self.runtime.launch_timeout_s == 0 {
            let why = "at least 1 s must be waited for a program".into();
            return Err(("runtime.launch_timeout_s", why));
        }
        self.check_network()?;
        self.nri.check()?;
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        // `hull=debug,tonic=warn` is a filter by module.
        if !levels.contains(&self.log.level.as_str()) && !self.log.level.contains('=') {
            return Err((
                "log.level",
                format!("`{}` is none of {}", self.log.level, levels.join(", ")),
            ));
        }
        self.image.check()
    }

    fn check_network(&self) -> Result<(), (&'static str, String)> {
        let subnets = &self.network.pod_cidr;
        let of_v6 = subnets.iter().filter(|net| net.addr().is_ipv6()).count();
        if subnets.is_empty() || of_v6 > 1 || subnets.len() - of_v6 > 1 {
            return Err((
                "network.pod_cidr",
                "it must name one IPv4 subnet, one IPv6 subnet, or one of each".into(),
            ));
        }
        let cni = &self.network.cni;
        let dirs = [&cni.conf_dir, &cni.netns_dir];
        if let Some(dir) = dirs.into_iter().chain(&cni.bin_dirs).find(|dir| !dir.is_absolute()) {
            return Err(("network.cni", format!("`{}` is no absolute path", dir.display())));
        }
        if cni.networks_max == 0 || cni.plugin_timeout_s == 0 || cni.gc_interval_s == 0 {
            return Err(("network.cni", "numbers there are at least 1".into()));
        }
        // IFNAMSIZ less the closing NUL.
        let name = &self.network.bridge;
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
            return Err((
                "network.bridge",
                format!("`{name}` is no name for a link: 1 to 15 letters"),
            ));
        }
        Ok(())
    }
}

impl Image {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.concurrent_layers == 0 {
            return Err((
                "image.concurrent_layers",
                "at least 1 layer must be fetched at a time".into(),
            ));
        }
        if self.stall_s == 0 {
            return Err(("image.stall_s", "at least 1 s must be waited for bytes".into()));
        }
        let paths = [
            ("image.config_path", &self.config_path),
            ("image.docker_config", &self.docker_config),
            ("image.policy", &self.policy),
        ];
        for (key, path) in paths {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                return Err((key, format!("`{}` is no absolute path", path.display())));
            }
        }
        match self.registry.iter().find(|registry| registry.host.is_empty()) {
            Some(_) => Err(("image.registry", "an entry has no `host`".into())),
            None => Ok(()),
        }
    }
}

/// Subnets as the text that people write.
mod subnets {
    use ipnet::IpNet;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(nets: &[IpNet], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(nets.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let parse = |text: &String| {
            text.parse()
                .map_err(|_| D::Error::custom(format!("`{text}` is no subnet like 10.88.0.0/16")))
        };
        texts.iter().map(parse).collect()
    }
}
