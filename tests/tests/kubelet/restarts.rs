// SPDX-License-Identifier: Apache-2.0
//! Hull and the kubelet restarted under a running pod.

use crate::started;
use hull_tests::cri::text;
use hull_tests::fixture;
use nix::sys::signal::Signal;
use serde_json::json;

#[tokio::test]
async fn a_static_pod_runs_through_restarts_of_hull_and_kubelet_and_ends() {
    let Some(mut node) = started().await else { return };
    let script = "echo started; trap 'echo ended; exit 0' TERM; while :; do sleep 0.1; done";
    node.apply("web", &json!({
        "containers": [{"name": "c", "image": fixture::busybox(), "command": ["sh", "-c", script]}],
    }));
    let pod = node.pod_in("web", "Running").await;
    let id = &pod["status"]["containerStatuses"][0]["containerID"];
    assert!(pod["status"]["podIP"].as_str().is_some_and(|ip| ip.starts_with("10.217.0.")), "{pod}");
    assert_eq!(text(&node.logs("web", "c"), "stdout"), "started\n");

    node.end_hull(Signal::SIGKILL);
    node.end_kubelet(Signal::SIGKILL);
    node.start_hull().await;
    node.start_kubelet().await;
    let again = node.pod_in("web", "Running").await;
    assert_eq!(&again["status"]["containerStatuses"][0]["containerID"], id);
    let summary = node.summary();
    assert_eq!(summary["pods"][0]["podRef"]["name"], "web-node", "{summary}");
    node.stop("web").await;
}
