// SPDX-License-Identifier: Apache-2.0
//! RuntimeClasses on a cluster: a pod of a handler that its nodes have, one of a handler that they do not have, and one
//! without a class.
//!
//! A kubelet without an API server knows no RuntimeClasses, so this is not a test of one machine.

use super::layout::{self, Layout};
use super::machine::Machine;
use crate::eventually::{blocking, with_long_timeout};
use crate::expect::ExpectExt;
use crate::shell::say;
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// The handler of every node of a cluster with Hull, as Hull's configuration has it.
pub const HANDLER: &str = "[runtime.handlers.sandboxed]\nuser_namespaces = \"always\"\n";
/// The classes, and the pods of each.
const OBJECTS: &str = include_str!("../../kubernetes/manifests/runtime-class.yaml");
/// The namespace of the pods.
const NAMESPACE: &str = "runtime-classes";
/// Longest wait for a pod, which pulls an image first.
const POD_MAX: Duration = Duration::from_secs(120);

/// Runs the pods, and says what is not as it should be. Nothing of them is left.
#[must_use]
pub fn check(hub: &Machine, layout: &Layout) -> bool {
    let file = layout::root().join("runtime-class.yaml");
    fs::write(&file, OBJECTS).or_fail("write the objects");
    let file = file.display().to_string();
    let _output = layout::kubectl(hub, layout, &["apply", "-f", &file]).good();
    let found = [
        ("the nodes name the handler and its features", features(hub, layout)),
        ("a pod of the handler has a user namespace", maps(hub, layout, "sandboxed", is_mapped)),
        ("a pod without a class has none", maps(hub, layout, "plain", |map| !is_mapped(map))),
        ("a pod of an unknown handler says which there are", unknown(hub, layout)),
    ];
    let _output = layout::kubectl(hub, layout, &["delete", "-f", &file, "--wait=true"]).good();
    let mut good = true;
    for (what, result) in found {
        match result {
            Ok(()) => say(&format!("ok: {what}")),
            Err(why) => {
                good = false;
                say(&format!("FAILED: {what}: {why}"));
            }
        }
    }
    good
}

/// Asks kubectl until `check` accepts what it prints.
fn until(
    hub: &Machine,
    layout: &Layout,
    words: &[&str],
    check: impl Fn(&str) -> bool,
) -> Result<(), String> {
    blocking(with_long_timeout(POD_MAX), || {
        let ran = layout::kubectl(hub, layout, words);
        if ran.code == 0 && check(&ran.stdout) {
            Ok(())
        } else {
            Err(format!("{}{}", ran.stdout, ran.stderr))
        }
    })
}

fn features(hub: &Machine, layout: &Layout) -> Result<(), String> {
    until(hub, layout, &["get", "nodes", "-o", "json"], |text| {
        let list: Value = serde_json::from_str(text).unwrap_or_default();
        let nodes = list["items"].as_array().cloned().unwrap_or_default();
        let has = |node: &Value| {
            let handlers = node["status"]["runtimeHandlers"].as_array().cloned();
            handlers.unwrap_or_default().iter().any(|handler| {
                handler["name"] == "sandboxed" && handler["features"]["userNamespaces"] == true
            })
        };
        !nodes.is_empty() && nodes.iter().all(has)
    })
}

/// Checks the map of users that a pod prints.
fn maps(
    hub: &Machine,
    layout: &Layout,
    pod: &str,
    check: impl Fn(&str) -> bool,
) -> Result<(), String> {
    until(hub, layout, &["logs", "-n", NAMESPACE, pod], |text| {
        !text.trim().is_empty() && check(text)
    })
}

/// Whether root is another user outside.
fn is_mapped(map: &str) -> bool {
    map.split_whitespace().nth(1).is_some_and(|host| host != "0")
}

fn unknown(hub: &Machine, layout: &Layout) -> Result<(), String> {
    let events =
        ["get", "events", "-n", NAMESPACE, "--field-selector", "involvedObject.name=unknown"];
    until(hub, layout, &[&events[..], &["-o", "yaml"]].concat(), |text| {
        text.contains("`no-such-handler`") && text.contains("`sandboxed`")
    })
}
