// SPDX-License-Identifier: Apache-2.0
//! Pod manifests: the part of `core/v1` Pod that a node can run without a cluster.
//!
//! The rule: a field that is not here is an error that names it, because a pod without it would be another pod.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A document of a manifest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pod {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
    /// Added by a cluster.
    #[serde(default, rename = "status")]
    _status: serde_json::Value,
}

/// Names of a pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: Option<String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    /// Added by a cluster.
    #[serde(default, rename = "creationTimestamp")]
    _creation_timestamp: serde_json::Value,
}

/// The specification of a pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) containers: Vec<Container>,
    #[serde(default)]
    pub(super) init_containers: Vec<Container>,
    #[serde(default)]
    pub(super) volumes: Vec<Volume>,
    #[serde(default)]
    pub(super) host_network: bool,
    #[serde(default, rename = "hostPID")]
    pub(super) host_pid: bool,
    #[serde(default, rename = "hostIPC")]
    pub(super) host_ipc: bool,
    #[serde(default)]
    pub(super) share_process_namespace: bool,
    #[serde(default)]
    pub(super) hostname: Option<String>,
    #[serde(default)]
    pub(super) host_aliases: Vec<HostAlias>,
    #[serde(default)]
    pub(super) restart_policy: Option<String>,
    #[serde(default)]
    pub(super) runtime_class_name: Option<String>,
    #[serde(default)]
    pub(super) dns_config: Option<Dns>,
    #[serde(default)]
    pub(super) security_context: PodSecurity,
    /// `ClusterFirst`, which `kubectl run --dry-run` writes, is the node's DNS where there is no cluster.
    #[serde(default)]
    pub(super) dns_policy: Option<String>,
    /// Seconds that the containers get to end when the pod is removed or stopped.
    #[serde(default)]
    pub(super) termination_grace_period_seconds: Option<u32>,
}

/// Names of an address, for /etc/hosts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostAlias {
    pub(super) ip: String,
    #[serde(default)]
    pub(super) hostnames: Vec<String>,
}

/// DNS of a pod.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Dns {
    #[serde(default)]
    pub(super) nameservers: Vec<String>,
    #[serde(default)]
    pub(super) searches: Vec<String>,
    #[serde(default)]
    pub(super) options: Vec<NameValue>,
}

/// A name with a value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameValue {
    pub(super) name: String,
    #[serde(default)]
    pub(super) value: Option<String>,
}

/// Security settings of all containers of a pod.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PodSecurity {
    pub(super) run_as_user: Option<i64>,
    pub(super) run_as_group: Option<i64>,
    #[serde(default)]
    pub(super) supplemental_groups: Vec<i64>,
    #[serde(default)]
    pub(super) sysctls: Vec<NameValue>,
}

/// One container of the pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    #[serde(default)]
    pub(super) image_pull_policy: Option<String>,
    #[serde(default)]
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) working_dir: Option<String>,
    #[serde(default)]
    pub(super) env: Vec<NameValue>,
    #[serde(default)]
    pub(super) ports: Vec<Port>,
    #[serde(default)]
    pub(super) resources: Resources,
    #[serde(default)]
    pub(super) volume_mounts: Vec<VolumeMount>,
    #[serde(default)]
    pub(super) security_context: Security,
    #[serde(default)]
    pub(super) stdin: bool,
    #[serde(default)]
    pub(super) stdin_once: bool,
    #[serde(default)]
    pub(super) tty: bool,
}

/// A port of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Port {
    pub(super) container_port: u16,
    #[serde(default)]
    pub(super) host_port: u16,
    #[serde(default, rename = "hostIP")]
    pub(super) host_ip: String,
    #[serde(default)]
    pub(super) protocol: Option<String>,
    /// For services of a cluster.
    #[serde(default, rename = "name")]
    _name: Option<String>,
}

/// Limits and requests, by resource.
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Resources {
    #[serde(default)]
    pub(super) limits: BTreeMap<String, Quantity>,
    #[serde(default)]
    pub(super) requests: BTreeMap<String, Quantity>,
}

/// A quantity, which YAML may have as a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Quantity {
    Whole(i64),
    Fraction(f64),
    Text(String),
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(to),
            Self::Fraction(number) => number.fmt(to),
            Self::Text(text) => text.fmt(to),
        }
    }
}

/// A volume in a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct VolumeMount {
    pub(super) name: String,
    pub(super) mount_path: String,
    #[serde(default)]
    pub(super) read_only: bool,
    #[serde(default)]
    pub(super) mount_propagation: Option<String>,
}

/// Security settings of a container.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Security {
    #[serde(default)]
    pub(super) privileged: bool,
    #[serde(default)]
    pub(super) read_only_root_filesystem: bool,
    pub(super) allow_privilege_escalation: Option<bool>,
    pub(super) run_as_user: Option<i64>,
    pub(super) run_as_group: Option<i64>,
    #[serde(default)]
    pub(super) capabilities: Capabilities,
}

/// Capabilities of a container.
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Capabilities {
    #[serde(default)]
    pub(super) add: Vec<String>,
    #[serde(default)]
    pub(super) drop: Vec<String>,
}

/// A volume of a pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) host_path: Option<HostPath>,
    pub(super) empty_dir: Option<EmptyDir>,
}

/// A path of the host.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostPath {
    pub(super) path: String,
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
}

/// A directory that goes with the pod.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmptyDir {}
