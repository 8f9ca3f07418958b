// SPDX-License-Identifier: Apache-2.0
//! Security contexts and the view of the node, as a kubelet hands them over.

use crate::{container, started};
use hull_tests::cri::text;
use serde_json::json;
use std::fs;

#[tokio::test]
async fn selinux_options_do_not_keep_a_pod_from_a_node_without_selinux() {
    if fs::metadata("/sys/fs/selinux/enforce").is_ok() {
        println!("this host has SELinux: the labels are tested as values");
        return;
    }
    let Some(node) = started().await else { return };
    let mut own = container("own", &["echo", "runs"]);
    own["securityContext"] = json!({"seLinuxOptions": {"type": "spc_t"}});
    node.apply(
        "labelled",
        &json!({
            "restartPolicy": "Never",
            "securityContext": {"seLinuxOptions": {"level": "s0:c123,c456"}},
            "containers": [own, container("of-pod", &["echo", "runs"])],
        }),
    );
    node.pod_in("labelled", "Succeeded").await;
    for name in ["own", "of-pod"] {
        assert_eq!(text(&node.logs("labelled", name), "stdout"), "runs\n", "{name}");
    }
}

/// Tests of Kubernetes itself look for a mount of cgroup2.
#[tokio::test]
async fn a_container_of_a_hybrid_node_takes_it_for_cgroup_v1() {
    let Some(node) = started().await else { return };
    let script =
        "grep -c ' cgroup2 ' /proc/mounts; ls -d /sys/fs/cgroup/unified 2>/dev/null; echo end";
    let container = container("c", &["sh", "-c", script]);
    node.apply("cgroups", &json!({"restartPolicy": "Never", "containers": [container]}));
    node.pod_in("cgroups", "Succeeded").await;
    let is_v2 = fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok();
    let expected = if is_v2 { "1\nend\n" } else { "0\nend\n" };
    assert_eq!(text(&node.logs("cgroups", "c"), "stdout"), expected);
}
