// SPDX-License-Identifier: Apache-2.0
//! What is said to a plugin and what it answers: the environment, the object on stdin, the result or
//! error on stdout.
//!
//! Pure: nothing is run here. The specification is CNI 1.1, sections 2 to 5.

use super::conf::Plugin;
use super::version::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fmt;
use std::path::Path;

/// Longest message of a plugin that is passed on, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A verb of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach a pod.
    Add,
    /// Detach it.
    Del,
    /// Find out whether it is still attached as it should be.
    Check,
    /// Find out whether pods can be attached.
    Status,
    /// Take away what belongs to no pod.
    Gc,
    /// Tell the versions that are spoken.
    Version,
}

impl Verb {
    /// As it stands in `CNI_COMMAND`.
    pub(super) fn text(self) -> &'static str {
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
    /// Empty when there is none any more.
    pub(super) netns: &'t str,
    pub(super) if_name: &'t str,
    /// `CNI_ARGS`.
    pub(super) args: &'t str,
    /// Where the call is marked while it is under way.
    pub(super) call: &'t Path,
}

/// The variables that a plugin is given.
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

/// What a plugin is told beside its own configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Told<'t> {
    /// Capability arguments, of which a plugin gets those that it declares.
    pub(super) capabilities: Option<&'t Map<String, Value>>,
    pub(super) prev_result: Option<Value>,
    /// For GC: attachments that are there.
    pub(super) valid: Option<&'t [Valid]>,
}

/// An attachment that GC must leave alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Valid {
    #[serde(rename = "containerID")]
    pub(super) container: String,
    #[serde(rename = "ifname")]
    pub(super) if_name: String,
}

/// The object that a plugin reads from stdin.
pub(super) fn request(
    network: &str,
    version: Version,
    plugin: &Plugin,
    told: &Told<'_>,
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
    if let Some(capabilities) = told.capabilities {
        let declared: Map<String, Value> = capabilities
            .iter()
            .filter(|(name, _)| plugin.has(name))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if !declared.is_empty() {
            object.insert("runtimeConfig".into(), Value::Object(declared));
        }
    }
    if let Some(result) = &told.prev_result {
        object.insert("prevResult".into(), result.clone());
    }
    if let Some(valid) = told.valid {
        object.insert("cni.dev/valid-attachments".into(), json!(valid));
    }
    // A map with text keys always can be written.
    serde_json::to_vec(&object).unwrap_or_default()
}

/// What a plugin says when it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Of the specification below 100, the plugin's own from there.
    pub code: u64,
    /// What it said, on one line, shortened.
    pub message: String,
}

#[derive(Deserialize)]
struct RefusalObject {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

/// Reads an error object. `None` when the answer is none.
pub(super) fn refusal(answer: &[u8]) -> Option<Refusal> {
    let object: RefusalObject = serde_json::from_slice(answer).ok()?;
    let message = match (object.msg.as_str(), object.details.as_str()) {
        ("", "") => return None,
        (msg, "") => msg.to_owned(),
        ("", details) => details.to_owned(),
        (msg, details) => format!("{msg}; {details}"),
    };
    Some(Refusal { code: object.code, message: one_line(&message) })
}

/// The versions of an answer to VERSION.
pub(super) fn versions(answer: &[u8]) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Spoken {
        #[serde(rename = "supportedVersions")]
        supported: Vec<String>,
    }
    let spoken: Spoken = serde_json::from_slice(answer).map_err(|err| err.to_string())?;
    Ok(spoken.supported)
}

/// The start of what a plugin said, for a sentence: without line breaks and control characters.
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
        Plugin { program: "portmap".into(), object }
    }

    fn written(plugin: &Plugin, told: &Told<'_>) -> Value {
        serde_json::from_slice(&request("pods", Version::V1_0_0, plugin, told)).unwrap()
    }

    #[test]
    fn a_plugin_gets_what_it_declares_and_its_own_settings_unchanged() {
        let plugin = plugin(json!({
            "type": "portmap", "snat": {"deep": [1, 2]}, "capabilities": {"portMappings": true, "dns": false},
            "runtimeConfig": {"mac": "forged"}, "cni.dev/valid-attachments": [], "name": "other", "cniVersion": "0.1.0",
        }));
        let capabilities = json!({"portMappings": [{"hostPort": 80}], "dns": {}, "mac": "x"});
        let told = Told {
            capabilities: capabilities.as_object(),
            prev_result: Some(json!({"ips": []})),
            valid: None,
        };
        let expected = json!({
            "type": "portmap", "snat": {"deep": [1, 2]}, "name": "pods", "cniVersion": "1.0.0",
            "runtimeConfig": {"portMappings": [{"hostPort": 80}]}, "prevResult": {"ips": []},
        });
        assert_eq!(written(&plugin, &told), expected);
        let valid = [Valid { container: "abc".into(), if_name: "eth0".into() }];
        let told = Told { valid: Some(&valid), ..Told::default() };
        let gc = written(&plugin, &told);
        assert_eq!(
            gc["cni.dev/valid-attachments"],
            json!([{"containerID": "abc", "ifname": "eth0"}])
        );
        assert_eq!(gc.get("runtimeConfig"), None);
    }

    #[test]
    fn errors_become_one_line() {
        let said =
            br#"{"cniVersion": "1.0.0", "code": 11, "msg": "no\nroom", "details": "try\tlater"}"#;
        let expected = Refusal { code: 11, message: "no room; try later".into() };
        assert_eq!(refusal(said), Some(expected));
        for none in [&b""[..], b"{}", b"garbage", br#"{"code": "eleven"}"#, br#"{"ips": []}"#] {
            assert_eq!(refusal(none), None);
        }
        assert!(one_line(&"x".repeat(100_000)).len() < 2000);
    }
}
