// SPDX-License-Identifier: Apache-2.0
//! The CNI protocol: the environment and stdin of a plugin, the result or error on its stdout.
//!
//! Pure: runs nothing. The specification is CNI 1.1, sections 2 to 5.

use super::conf::Plugin;
use super::version::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fmt;
use std::path::Path;

/// Longest error message of a plugin that is reported, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A command of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attaches a pod.
    Add,
    /// Detaches a pod.
    Del,
    /// Checks that a pod is still attached correctly.
    Check,
    /// Checks that pods can be attached.
    Status,
    /// Removes resources that belong to no pod.
    Gc,
    /// Reports the supported versions.
    Version,
}

impl Verb {
    /// The value of `CNI_COMMAND`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// An attachment: a link of a pod. The same for ADD, CHECK and DEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target<'t> {
    pub(super) container: &'t str,
    /// The path of the network namespace; empty when it is gone.
    pub(super) netns: &'t str,
    pub(super) if_name: &'t str,
    /// `CNI_ARGS`.
    pub(super) args: &'t str,
    /// The marker file of the running call.
    pub(super) call: &'t Path,
}

/// The environment variables for a plugin.
pub(super) fn environment(
    verb: Verb,
    path: &str,
    target: Option<&Target<'_>>,
) -> Vec<(&'static str, String)> {
    let mut env = vec![("CNI_COMMAND", verb.text().to_owned()), ("CNI_PATH", path.to_owned())];
    if let Some(target) = target {
        env.push(("CNI_CONTAINERID", target.container.to_owned()));
        env.push(("CNI_NETNS", target.netns.to_owned()));
        env.push(("CNI_IFNAME", target.if_name.to_owned()));
        env.push(("CNI_ARGS", target.args.to_owned()));
    }
    env
}

/// Input for a plugin besides its own configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct PluginInput<'t> {
    /// The capability arguments; a plugin gets those that it declares.
    pub(super) capabilities: Option<&'t Map<String, Value>>,
    pub(super) prev_result: Option<Value>,
    /// For GC: the existing attachments.
    pub(super) valid: Option<&'t [ValidAttachment]>,
}

/// An existing attachment, which GC must keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(super) container: String,
    #[serde(rename = "ifname")]
    pub(super) if_name: String,
}

/// Builds the JSON object that a plugin reads from stdin.
pub(super) fn request(
    network: &str,
    version: Version,
    plugin: &Plugin,
    input: &PluginInput<'_>,
) -> Vec<u8> {
    let reserved = |key: &String| {
        key.starts_with("cni.dev/") || matches!(key.as_str(), "capabilities" | "runtimeConfig")
    };
    let mut object: Map<String, Value> = plugin
        .object
        .iter()
        .filter(|(key, _)| !reserved(key))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    object.insert("name".into(), json!(network));
    object.insert("cniVersion".into(), json!(version.text()));
    if let Some(capabilities) = input.capabilities {
        let declared: Map<String, Value> = capabilities
            .iter()
            .filter(|(name, _)| plugin.has(name))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if !declared.is_empty() {
            object.insert("runtimeConfig".into(), Value::Object(declared));
        }
    }
    if let Some(result) = &input.prev_result {
        object.insert("prevResult".into(), result.clone());
    }
    if let Some(valid) = input.valid {
        object.insert("cni.dev/valid-attachments".into(), json!(valid));
    }
    // Serializing a map with string keys cannot fail.
    serde_json::to_vec(&object).unwrap_or_default()
}

/// The error result of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    /// The error code: below 100 from the specification, from 100 the plugin's own.
    pub code: u64,
    /// The message, truncated and on one line.
    pub message: String,
}

#[derive(Deserialize)]
struct ErrorResult {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

/// Parses an error result; `None` if the output is something else.
pub(super) fn error_result(answer: &[u8]) -> Option<PluginError> {
    let object: ErrorResult = serde_json::from_slice(answer).ok()?;
    let message = match (object.msg.as_str(), object.details.as_str()) {
        ("", "") => return None,
        (msg, "") => msg.to_owned(),
        ("", details) => details.to_owned(),
        (msg, details) => format!("{msg}; {details}"),
    };
    Some(PluginError { code: object.code, message: one_line(&message) })
}

/// Parses the response to VERSION.
pub(super) fn versions(answer: &[u8]) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Spoken {
        #[serde(rename = "supportedVersions")]
        supported: Vec<String>,
    }
    let spoken: Spoken = serde_json::from_slice(answer).map_err(|err| err.to_string())?;
    Ok(spoken.supported)
}

/// Truncates plugin output to one line without control characters, for an error message.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for letter in text.trim().chars() {
        if line.len() >= MESSAGE_BYTES_MAX {
            line.push('…');
            break;
        }
        line.push(if letter.is_control() { ' ' } else { letter });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(object: Value) -> Plugin {
        let object = object.as_object().unwrap().clone();
        Plugin { program: "portmap".into(), object, file: "/etc/cni/net.d/10-a.conflist".into() }
    }

    fn written(plugin: &Plugin, input: &PluginInput<'_>) -> Value {
        serde_json::from_slice(&request("pods", Version::V1_0_0, plugin, input)).unwrap()
    }

    #[test]
    fn a_plugin_gets_what_it_declares_and_its_own_settings_unchanged() {
        let plugin = plugin(json!({
            "type": "portmap", "snat": {"deep": [1, 2]}, "capabilities": {"portMappings": true, "dns": false},
            "runtimeConfig": {"mac": "forged"}, "cni.dev/valid-attachments": [], "name": "other", "cniVersion": "0.1.0",
        }));
        let capabilities = json!({"portMappings": [{"hostPort": 80}], "dns": {}, "mac": "x"});
        let input = PluginInput {
            capabilities: capabilities.as_object(),
            prev_result: Some(json!({"ips": []})),
            valid: None,
        };
        let expected = json!({
            "type": "portmap", "snat": {"deep": [1, 2]}, "name": "pods", "cniVersion": "1.0.0",
            "runtimeConfig": {"portMappings": [{"hostPort": 80}]}, "prevResult": {"ips": []},
        });
        assert_eq!(written(&plugin, &input), expected);
        let valid = [ValidAttachment { container: "abc".into(), if_name: "eth0".into() }];
        let input = PluginInput { valid: Some(&valid), ..PluginInput::default() };
        let gc = written(&plugin, &input);
        assert_eq!(
            gc["cni.dev/valid-attachments"],
            json!([{"containerID": "abc", "ifname": "eth0"}])
        );
        assert_eq!(gc.get("runtimeConfig"), None);
    }

    #[test]
    fn errors_become_one_line() {
        let output =
            br#"{"cniVersion": "1.0.0", "code": 11, "msg": "no\nroom", "details": "try\tlater"}"#;
        let expected = PluginError { code: 11, message: "no room; try later".into() };
        assert_eq!(error_result(output), Some(expected));
        for none in [&b""[..], b"{}", b"garbage", br#"{"code": "eleven"}"#, br#"{"ips": []}"#] {
            assert_eq!(error_result(none), None);
        }
        assert!(one_line(&"x".repeat(100_000)).len() < 2000);
    }
}
