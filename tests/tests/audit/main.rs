// SPDX-License-Identifier: Apache-2.0
//! `hull audit`: its findings in containers of every shape, and what a hostile container can do to it.

mod levels;
mod processes;
mod reach;

use hull_proto::cri::{self as api, NamespaceMode};
use hull_tests::cri::{idle, pod_namespaces, security};
use hull_tests::{Cri, ExpectExt as _, Node};
use serde_json::Value;

/// Where the ids of pods with a user namespace begin on the host.
pub(crate) const FIRST: u32 = 200_000;

pub(crate) fn maps() -> Vec<api::IdMapping> {
    vec![api::IdMapping { host_id: FIRST, container_id: 0, length: 65_536 }]
}

pub(crate) fn mapped(cri: &Cri, name: &str) -> api::PodSandboxConfig {
    let mut config = cri.pod_config(name);
    pod_namespaces(&mut config).userns_options =
        Some(api::UserNamespace { mode: NamespaceMode::Pod.into(), uids: maps(), gids: maps() });
    config
}

/// A container as the pod security standard `restricted` requires it.
pub(crate) fn restricted(name: &str, image: &str) -> api::ContainerConfig {
    let mut config = idle(name, image);
    let context = security(&mut config);
    context.no_new_privs = true;
    context.run_as_user = Some(api::Int64Value { value: 1000 });
    context.run_as_group = Some(api::Int64Value { value: 1000 });
    context.capabilities =
        Some(api::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    confined(config)
}

/// With the default seccomp profile, as kubelets ask for it.
pub(crate) fn confined(mut config: api::ContainerConfig) -> api::ContainerConfig {
    security(&mut config).seccomp = Some(api::SecurityProfile {
        profile_type: api::security_profile::ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    });
    config
}

/// The report of one container.
pub(crate) fn audit(node: &Node, name: &str) -> Value {
    let text = node.hull(&["audit", "-o", "json", name]).good();
    let report: Value = serde_json::from_str(&text).or_fail(format!("read {text}"));
    assert_eq!(report["version"], 1);
    let containers = report["containers"].as_array().or_fail("find containers");
    assert_eq!(containers.len(), 1, "{text}");
    containers[0].clone()
}

/// Findings of this id, as `reach: what`.
pub(crate) fn found(report: &Value, id: &str) -> Vec<String> {
    let findings = report["findings"].as_array().or_fail("find findings");
    let these = findings.iter().filter(|finding| finding["id"] == id);
    let text =
        |finding: &Value, field: &str| finding[field].as_str().or_fail(field.to_owned()).to_owned();
    these
        .map(|finding| {
            assert!(!text(finding, "fix").is_empty(), "{finding}");
            format!("{}: {}", text(finding, "reach"), text(finding, "what"))
        })
        .collect()
}

pub(crate) fn ids(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().or_fail("find findings");
    findings.iter().map(|finding| finding["id"].as_str().unwrap_or_default().to_owned()).collect()
}
