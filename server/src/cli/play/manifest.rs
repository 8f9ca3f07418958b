// SPDX-License-Identifier: Apache-2.0
//! Pod manifests: the part of `core/v1` Pod that a node can run without a cluster. [`unsupported`](super::unsupported)
//! says of the rest what to do instead.
//!
//! The rule: a field that is not here is an error that names it, because a pod without it would be another pod.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A document of a manifest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
    /// Both were compared when the document was found to be a pod.
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
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

/// The namespace of a document without one.
const NAMESPACE: &str = "default";

impl Metadata {
    /// The namespace, or the default one.
    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(NAMESPACE)
    }
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
    pub(super) env: Vec<EnvVar>,
    #[serde(default)]
    pub(super) env_from: Vec<EnvFrom>,
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
    #[serde(default)]
    pub(super) sub_path: Option<String>,
}

/// A variable of the environment.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EnvVar {
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) value_from: Option<ValueFrom>,
}

/// The source of a variable's value: one of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ValueFrom {
    pub(super) config_map_key_ref: Option<KeyRef>,
    pub(super) secret_key_ref: Option<KeyRef>,
    pub(super) field_ref: Option<FieldRef>,
    pub(super) resource_field_ref: Option<ResourceField>,
}

/// One value of a ConfigMap or Secret.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyRef {
    pub(super) name: String,
    pub(super) key: String,
    #[serde(default)]
    pub(super) optional: bool,
}

/// A field of the pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FieldRef {
    pub(super) field_path: String,
    /// The version of the pod's interface, of which there is one.
    #[serde(default, rename = "apiVersion")]
    _api_version: Option<String>,
}

/// A request or limit of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ResourceField {
    pub(super) container_name: Option<String>,
    pub(super) resource: String,
    pub(super) divisor: Option<Quantity>,
}

/// Variables from all values of a ConfigMap or Secret: one of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EnvFrom {
    pub(super) prefix: Option<String>,
    pub(super) config_map_ref: Option<NameRef>,
    pub(super) secret_ref: Option<NameRef>,
}

/// A ConfigMap or Secret.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameRef {
    pub(super) name: String,
    #[serde(default)]
    pub(super) optional: bool,
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
    pub(super) config_map: Option<ConfigMapVolume>,
    pub(super) secret: Option<SecretVolume>,
    #[serde(rename = "downwardAPI")]
    pub(super) downward_api: Option<DownwardVolume>,
    pub(super) projected: Option<ProjectedVolume>,
}

impl Volume {
    /// The number of kinds that it has; a volume is of one.
    pub(super) fn kinds(&self) -> usize {
        let kinds = [
            self.host_path.is_some(),
            self.empty_dir.is_some(),
            self.config_map.is_some(),
            self.secret.is_some(),
            self.downward_api.is_some(),
            self.projected.is_some(),
        ];
        kinds.into_iter().filter(|is| *is).count()
    }

    /// Whether its files are written here, and are not the pod's to change.
    pub(super) fn has_own_files(&self) -> bool {
        self.host_path.is_none() && self.empty_dir.is_none()
    }
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
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EmptyDir {
    /// Only the disk, the default.
    #[serde(default)]
    pub(super) medium: String,
    pub(super) size_limit: Option<Quantity>,
}

/// Files with the values of a ConfigMap.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConfigMapVolume {
    pub(super) name: String,
    pub(super) items: Option<Vec<KeyToPath>>,
    pub(super) default_mode: Option<Mode>,
    #[serde(default)]
    pub(super) optional: bool,
}

/// Files with the values of a Secret.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SecretVolume {
    pub(super) secret_name: String,
    pub(super) items: Option<Vec<KeyToPath>>,
    pub(super) default_mode: Option<Mode>,
    #[serde(default)]
    pub(super) optional: bool,
}

/// Files with facts of the pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DownwardVolume {
    #[serde(default)]
    pub(super) items: Vec<DownwardItem>,
    pub(super) default_mode: Option<Mode>,
}

/// Files of several sources in one directory; of two with one path, the later one counts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ProjectedVolume {
    #[serde(default)]
    pub(super) sources: Vec<Projection>,
    pub(super) default_mode: Option<Mode>,
}

/// One source of a projected volume: one of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Projection {
    pub(super) config_map: Option<ProjectedKeys>,
    pub(super) secret: Option<ProjectedKeys>,
    #[serde(rename = "downwardAPI")]
    pub(super) downward_api: Option<ProjectedFields>,
}

/// Values of a ConfigMap or Secret in a projected volume.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProjectedKeys {
    pub(super) name: String,
    pub(super) items: Option<Vec<KeyToPath>>,
    #[serde(default)]
    pub(super) optional: bool,
}

/// Facts of the pod in a projected volume.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProjectedFields {
    #[serde(default)]
    pub(super) items: Vec<DownwardItem>,
}

/// A value, and its path in the volume.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyToPath {
    pub(super) key: String,
    pub(super) path: String,
    pub(super) mode: Option<Mode>,
}

/// A fact, and its path in the volume.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DownwardItem {
    pub(super) path: String,
    pub(super) field_ref: Option<FieldRef>,
    pub(super) resource_field_ref: Option<ResourceField>,
    pub(super) mode: Option<Mode>,
}

/// Permissions of a file as they are written: octal digits with a leading zero, as YAML of Kubernetes has them, or a
/// decimal number.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Mode(String);

impl Mode {
    /// The permissions; none if they are not between 0 and 0777.
    pub(super) fn bits(&self) -> Option<u32> {
        let bits = match self.0.strip_prefix("0o").or_else(|| self.0.strip_prefix('0')) {
            Some(octal) if !octal.is_empty() => u32::from_str_radix(octal, 8),
            _ => self.0.parse(),
        };
        bits.ok().filter(|bits| *bits <= 0o777)
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(to)
    }
}
