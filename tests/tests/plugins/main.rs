// SPDX-License-Identifier: Apache-2.0
//! NRI plugins, made with the Go library that users' plugins are made with.

mod adjustments;
mod failures;
mod joining;

use hull_tests::plugin::program;
use hull_tests::{ExpectExt as _, Node, paths};
use serde_json::{Value, json};
use std::fs;

pub(crate) const NOTHING: Value = Value::Null;

/// Goes on only where the plugin is built.
pub(crate) fn can_run(test: &str) -> bool {
    let there = program().is_some();
    if !there {
        paths::cannot_run(test, "the plugin for tests (`make tools`)");
    }
    there
}

pub(crate) fn memory(limit: i64) -> Value {
    json!({"memory": {"limit": {"value": limit.to_string()}}})
}

pub(crate) fn update(container: &str, resources: Value) -> Value {
    json!({"containerId": container, "linux": {"resources": resources}})
}

/// A container's memory limit as its cgroup has it.
pub(crate) async fn memory_limit(node: &Node, container: &str) -> String {
    let pid = node.cri().pid(container).await;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).or_fail("read its cgroups");
    for line in groups.lines() {
        let of = line.splitn(3, ':').collect::<Vec<_>>();
        let [_, controllers, path] = of[..] else { continue };
        for (hierarchy, file) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/unified", "memory.max"),
        ] {
            if controllers.is_empty() || controllers.split(',').any(|name| name == "memory") {
                let file = format!("{hierarchy}{path}/{file}");
                if let Ok(text) = fs::read_to_string(file) {
                    return text.trim().to_owned();
                }
            }
        }
    }
    panic!("no memory limit of {container} in {groups}")
}
