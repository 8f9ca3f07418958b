// SPDX-License-Identifier: Apache-2.0
//! The settings for CNI.

use std::path::PathBuf;
use std::time::Duration;

/// Settings for CNI.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory of network configurations.
    pub conf_dir: PathBuf,
    /// The directories of plugins, in search order.
    pub bin_dirs: Vec<PathBuf>,
    /// The number of networks that a pod is attached to, in file name order: eth0, eth1, …
    pub networks_max: usize,
    /// A template that is filled in with the kubelet's subnets and written to `conf_dir`.
    pub conf_template: Option<PathBuf>,
    /// The time limit for one plugin call.
    pub plugin_timeout: Duration,
    /// The directory in which pods' network namespaces are pinned.
    pub netns_dir: PathBuf,
    /// The directory for records.
    pub state_dir: PathBuf,
}
