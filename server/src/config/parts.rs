// SPDX-License-Identifier: Apache-2.0
//! The settings of each part of the daemon, converted to its own type.

use super::settings::{Config, NetworkMode, Registry};
use std::time::Duration;

impl Config {
    /// The settings of the image store.
    pub(crate) fn images(&self) -> hull_image::Config {
        let registry = |of: &Registry| hull_image::Registry {
            host: of.host.clone(),
            mirrors: of.mirrors.clone(),
            plain_http: of.plain_http,
            skip_verify: of.skip_verify,
            ca_file: of.ca_file.clone(),
        };
        hull_image::Config {
            root: self.data_dir.clone(),
            remote: hull_image::Remote {
                registries: self.image.registry.iter().map(registry).collect(),
                config_path: self.image.config_path.clone(),
                docker_config: self.image.docker_config.clone(),
                stall: Duration::from_secs(self.image.stall_s),
                ..hull_image::Remote::default()
            },
            concurrent_layers: self.image.concurrent_layers,
            pinned: self.image.pinned.clone(),
            limits: hull_image::Limits {
                bytes: self.image.layer_bytes_max,
                entries: self.image.layer_entries_max,
                apparent_bytes: self.image.layer_apparent_bytes_max,
                seconds: self.image.layer_seconds_max,
                archive_bytes: self.image.archive_bytes_max,
            },
            policy: self.image.policy.clone(),
            keep_blobs: self.image.keep_blobs,
        }
    }

    /// The time limits of NRI plugins.
    pub(crate) fn plugin_timeouts(&self) -> hull_nri::Timeouts {
        hull_nri::Timeouts {
            registration: Duration::from_millis(self.nri.registration_timeout_ms),
            request: Duration::from_millis(self.nri.request_timeout_ms),
        }
    }

    /// The network of new pods.
    pub(crate) fn network_mode(&self) -> hull_network::Mode {
        match self.network.mode {
            NetworkMode::Auto => hull_network::Mode::Auto,
            NetworkMode::Bridge | NetworkMode::Macvlan | NetworkMode::Ipvlan => {
                hull_network::Mode::Builtin
            }
            NetworkMode::Cni => hull_network::Mode::Cni,
            NetworkMode::None => hull_network::Mode::None,
        }
    }

    /// The settings of the built-in network.
    pub(crate) fn bridge(&self) -> hull_network::Config {
        hull_network::Config {
            link_mode: match self.network.mode {
                NetworkMode::Auto | NetworkMode::Bridge | NetworkMode::Cni | NetworkMode::None => {
                    hull_network::LinkMode::Bridge
                }
                NetworkMode::Macvlan => hull_network::LinkMode::Macvlan,
                NetworkMode::Ipvlan => hull_network::LinkMode::Ipvlan,
            },
            uplink: self.network.uplink.clone(),
            bridge: self.network.bridge.clone(),
            pod_cidr: self.network.pod_cidr.clone(),
            wait_for_pod_cidr: self.network.wait_for_pod_cidr,
            mtu: self.network.mtu,
            masquerade: self.network.masquerade,
            cluster_cidrs: self.network.cluster_cidrs.clone(),
            table: self.network.table.clone(),
            state_dir: self.state_dir.join("network"),
        }
    }

    /// The settings of CNI plugins.
    pub(crate) fn cni(&self) -> hull_network::cni::Config {
        let of = &self.network.cni;
        hull_network::cni::Config {
            conf_dir: of.conf_dir.clone(),
            bin_dirs: of.bin_dirs.clone(),
            networks_max: of.networks_max,
            conf_template: of.conf_template.clone(),
            plugin_timeout: Duration::from_secs(of.plugin_timeout_s),
            netns_dir: of.netns_dir.clone(),
            state_dir: self.state_dir.join("cni"),
        }
    }
}
