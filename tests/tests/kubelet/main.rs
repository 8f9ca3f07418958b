// SPDX-License-Identifier: Apache-2.0
//! Pods through a real kubelet: static pods of a kubelet without an API server. Each file has one theme.

#![allow(clippy::unwrap_used, reason = "also helpers of tests fail by panicking")]
#![allow(clippy::print_stdout, reason = "which host cannot have a test")]

mod lifecycle;
mod monitoring;
mod network;
mod pulls;
mod restarts;
mod security;
mod termination;
mod volumes;

use hull_tests::kubernetes::standalone::{Settings, Standalone};
use hull_tests::{fixture, paths};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::OnceLock;

/// A node with Hull and a kubelet; `None` where there is no kubelet and none can be built, which is said.
async fn started() -> Option<Standalone> {
    started_with(json!({})).await
}

/// The same, with these settings of the kubelet.
async fn started_with(kubelet: Value) -> Option<Standalone> {
    started_as(Settings { kubelet, ..Settings::default() }).await
}

/// The same, with these settings of both.
async fn started_as(settings: Settings) -> Option<Standalone> {
    static LACKS: OnceLock<bool> = OnceLock::new();
    let lacks = LACKS.get_or_init(|| {
        let script = paths::root().join("scripts/kubernetes");
        let built = Command::new(script).arg("kubelet").output();
        !built.is_ok_and(|output| output.status.success())
    });
    if *lacks {
        paths::cannot_run("kubelet", "a kubelet (`make kubelet`, which needs Go)");
        return None;
    }
    Some(Standalone::start_with(settings).await)
}

/// A container of a pod's spec, of the busybox image.
fn container(name: &str, command: &[&str]) -> Value {
    json!({
        "name": name,
        "image": fixture::busybox(),
        "imagePullPolicy": "IfNotPresent",
        "command": command,
    })
}
