// SPDX-License-Identifier: Apache-2.0
//! A file of device specifications, JSON or YAML. CDI specification 1.1, "CDI JSON Specification".
//!
//! The rule: an unknown field makes the file invalid, because a device may need it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest file that is read, in bytes. A file with every GPU of a large machine has some hundred KiB.
pub(super) const FILE_BYTES_MAX: u64 = crate::limits::CDI_FILE_BYTES.default;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    /// Not used: fields of unknown versions are refused by name.
    #[serde(rename = "cdiVersion")]
    _version: String,
    /// Vendor and class of the devices: `vendor.com/class`.
    pub(super) kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Device>,
    /// Edits that are applied once to a container with any of the devices.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// The changes of a container's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) net_devices: Vec<serde_json::Value>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
    pub(super) intel_rdt: Option<serde_json::Value>,
    #[serde(rename = "additionalGids")]
    pub(super) additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct DeviceNode {
    /// Path in the container.
    pub(super) path: String,
    /// Path on the host; empty if it is the same.
    pub(super) host_path: String,
    /// `b`, `c`, `u` or `p`; empty for the type on the host.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    pub(super) file_mode: Option<u32>,
    /// Some of `r`, `w`, `m`; empty for all.
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// A program of the host that runs at one point of the container's life.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Hook {
    /// The point, as the runtime spec names it.
    pub(super) hook_name: HookName,
    pub(super) path: String,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    /// Its time limit in seconds; `None` for the default.
    pub(super) timeout: Option<u32>,
}

/// The points at which a hook can run.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum HookName {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) options: Vec<String>,
}

impl File {
    /// Parses the text of a file. The file's extension gives the format.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let file: Self = if path.extension().is_some_and(|of| of == "json") {
            serde_json::from_str(text).map_err(|err| err.to_string())?
        } else {
            // Without the lines around the place of an error: messages are of one line.
            serde_saphyr::from_str(text).map_err(|err| err.without_snippet().to_string())?
        };
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        let good = self
            .kind
            .split_once('/')
            .is_some_and(|(vendor, class)| is_name(vendor, b"_.-") && is_name(class, b"_-"));
        if !good {
            return Err(format!("`kind: {}` is not of the form vendor.com/class", self.kind));
        }
        for device in &self.devices {
            if !is_name(&device.name, b"_.:-") {
                return Err(format!("`{}` is not a valid device name", device.name));
            }
        }
        let all = self.devices.iter().map(|device| &device.container_edits);
        all.chain([&self.container_edits]).try_for_each(Edits::check)
    }
}

impl Edits {
    fn check(&self) -> Result<(), String> {
        let env = self.hooks.iter().flat_map(|hook| &hook.env);
        for variable in self.env.iter().chain(env) {
            if variable.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
                return Err(format!("`{variable}` is not NAME=VALUE"));
            }
        }
        for hook in &self.hooks {
            absolute(&hook.path)?;
            if hook.timeout == Some(0) {
                return Err(format!("the timeout of hook `{}` is not greater than 0", hook.path));
            }
            if hook.args.iter().chain(&hook.env).any(|text| text.contains('\0')) {
                return Err(format!("hook `{}` has a NUL in its arguments", hook.path));
            }
        }
        for node in &self.device_nodes {
            absolute(&node.path)?;
            if !node.host_path.is_empty() {
                absolute(&node.host_path)?;
            }
            if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
                return Err(format!("`{}` is not a device type", node.kind));
            }
            if !node.permissions.chars().all(|of| "rwm".contains(of)) {
                return Err(format!("`{}` are not device permissions", node.permissions));
            }
        }
        self.mounts.iter().try_for_each(|mount| {
            absolute(&mount.container_path)?;
            // The source of a tmpfs is only a name.
            if mount.is_bind() { absolute(&mount.host_path) } else { Ok(()) }
        })
    }

    /// The first edit that is not supported.
    pub(super) fn unsupported(&self) -> Option<&'static str> {
        [
            ("network devices of the host", !self.net_devices.is_empty()),
            ("RDT settings", self.intel_rdt.is_some()),
        ]
        .into_iter()
        .find_map(|(what, asked)| asked.then_some(what))
    }
}

impl Mount {
    pub(super) fn is_bind(&self) -> bool {
        matches!(self.kind.as_str(), "" | "bind" | "none")
    }
}

fn absolute(path: &str) -> Result<(), String> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(())
    } else {
        Err(format!("`{path}` is not an absolute path"))
    }
}

/// Whether `text` has 1 to 253 letters and digits, with `inner` characters between them.
fn is_name(text: &str, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes.len() <= 253
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || inner.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "---\ncdiVersion: 0.6.0\nkind: vendor.com/gpu\ndevices:\n  - name: \"0\"\n    containerEdits:\n      deviceNodes:\n        - path: /dev/gpu0\n          hostPath: /dev/null\n          permissions: rw\ncontainerEdits:\n  env:\n    - GPU=yes\n  mounts:\n    - hostPath: /usr/lib/gpu\n      containerPath: /usr/lib/gpu\n      options: [ro, nosuid]\n";

    #[test]
    fn json_and_yaml_are_parsed() {
        let yaml = File::parse(Path::new("gpu.yaml"), YAML).unwrap();
        assert_eq!(yaml.kind, "vendor.com/gpu");
        assert_eq!(yaml.devices[0].container_edits.device_nodes[0].host_path, "/dev/null");
        assert_eq!(yaml.container_edits.mounts[0].options, ["ro", "nosuid"]);
        let json = r#"{"cdiVersion":"1.1.0","kind":"v.com/c","annotations":{"a":"b"},"devices":[{"name":"all","containerEdits":{"additionalGids":[5],"deviceNodes":[{"path":"/dev/a","type":"c","major":1,"minor":3,"fileMode":438}]}}]}"#;
        let json = File::parse(Path::new("v.json"), json).unwrap();
        assert_eq!(json.devices[0].container_edits.device_nodes[0].file_mode, Some(0o666));
    }

    #[test]
    fn invalid_values_are_errors() {
        for (from, to, why) in [
            ("vendor.com/gpu", "gpu", "vendor.com/class"),
            ("GPU=yes", "GPU", "NAME=VALUE"),
            ("/dev/gpu0", "dev/gpu0", "absolute"),
            ("/usr/lib/gpu\n      options", "usr/gpu\n      options", "absolute"),
            ("  env:\n", "  hooks:\n    - hookName: later\n      path: /x\n  env:\n", "later"),
            ("  env:\n", "  hooks:\n    - hookName: poststop\n      path: x\n  env:\n", "absolute"),
            (
                "  env:\n",
                "  hooks:\n    - hookName: poststop\n      path: /x\n      timeout: 0\n  env:\n",
                "greater than 0",
            ),
            ("\"0\"", "\"-\"", "not a valid device name"),
            ("permissions: rw", "permissions: rx", "permissions"),
            ("permissions: rw", "colour: red", "colour"),
        ] {
            let bad = YAML.replace(from, to);
            assert_ne!(bad, YAML, "{from}");
            let err = File::parse(Path::new("a.yaml"), &bad).unwrap_err();
            assert!(err.contains(why), "{to}: {err}");
        }
    }
}
