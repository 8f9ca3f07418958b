// SPDX-License-Identifier: Apache-2.0
//! The figures that a kubelet gives: `/stats/summary` and `/metrics/cadvisor`, from each of its sources.

use crate::{container, started, started_with};
use hull_tests::ExpectExt as _;
use hull_tests::eventually::eventually_within;
use hull_tests::kubernetes::standalone::Standalone;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

/// cAdvisor reads every cgroup once in ten to fifteen seconds.
const FIGURES_MAX: Duration = Duration::from_secs(90);
const CPU: &str = "container_cpu_usage_seconds_total";
const RECEIVED: &str = "container_network_receive_bytes_total";

/// A pod that uses a share of a processor, and receives something over its network.
fn busy(node: &Standalone) {
    let mut main = container("main", &["sh", "-c", "while :; do :; done"]);
    main["resources"] = json!({"limits": {"cpu": "100m", "memory": "64Mi"}});
    node.apply("busy", &json!({"terminationGracePeriodSeconds": 0, "containers": [main]}));
}

/// The series of `name` that have these labels; without their timestamps.
fn series(text: &str, name: &str, labels: &[(&str, &str)]) -> Vec<(String, f64)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    let found = lines.filter_map(|line| {
        let (given, values) = line.split_once("} ")?;
        let has = |(key, value): &(&str, &str)| given.contains(&format!("{key}=\"{value}\""));
        let value = values.split(' ').next()?.parse().ok()?;
        labels.iter().all(has).then(|| (given.to_owned(), value))
    });
    found.collect()
}

/// Waits until `/metrics/cadvisor` has CPU time of the container, and gives it in seconds.
async fn cpu_seconds(node: &Standalone) -> f64 {
    let labels = [("container", "main"), ("pod", "busy-node"), ("namespace", "default")];
    eventually_within(FIGURES_MAX, "the kubelet has CPU time with labels", || async {
        let text = node.get("/metrics/cadvisor")?;
        let found = series(&text, CPU, &labels);
        let [(given, value)] = &found[..] else { return Err(format!("{found:?}")) };
        let image = given.contains("image=\"127.0.0.1") || given.contains("image=\"localhost");
        if *value >= 1.0 && image { Ok(*value) } else { Err(format!("{given}: {value}")) }
    })
    .await
}

/// Waits until `/stats/summary` has the pod with its network, and gives it.
async fn pod_with_network(node: &Standalone) -> Value {
    eventually_within(FIGURES_MAX, "the summary has the pod's network", || async {
        let summary = node.summary();
        let pods = summary["pods"].as_array().into_iter().flatten();
        let pod = pods.clone().find(|pod| pod["podRef"]["name"] == "busy-node");
        let pod = pod.filter(|pod| pod["network"]["rxBytes"].is_u64());
        // The figures of the pod's own cgroup come by themselves.
        let pod =
            pod.filter(|pod| pod["memory"]["workingSetBytes"].as_u64().is_some_and(|of| of > 0));
        let pod = pod.filter(|pod| pod["containers"][0]["cpu"]["usageCoreNanoSeconds"].is_u64());
        pod.cloned().ok_or_else(|| summary["pods"].to_string())
    })
    .await
}

fn has_figures(pod: &Value) {
    let of = &pod["containers"][0];
    assert_eq!(of["name"], "main", "{pod}");
    assert!(of["memory"]["workingSetBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{of}");
    assert!(pod["memory"]["workingSetBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{pod}");
    assert_eq!(pod["network"]["name"], "eth0", "{pod}");
}

#[tokio::test]
async fn cadvisor_has_labels_and_networks_through_a_link_to_hulls_socket() {
    let Some(mut node) = started().await else { return };
    // The kubelet looks once, when it starts.
    node.end_kubelet(Signal::SIGTERM);
    let folder = node.machine().path("/run/containerd");
    fs::create_dir_all(&folder).or_fail("make the folder of the link");
    symlink("/run/hull/hull.sock", folder.join("containerd.sock")).or_fail("make the link");
    node.start_kubelet().await;
    busy(&node);
    let seconds = cpu_seconds(&node).await;
    assert!(seconds.fract() != 0.0, "whole seconds only: {seconds}");
    has_figures(&pod_with_network(&node).await);
    let text = node.get("/metrics/cadvisor").map_err(std::io::Error::other).or_fail("get metrics");
    let received = series(&text, RECEIVED, &[("pod", "busy-node"), ("interface", "eth0")]);
    assert_eq!(received.len(), 1, "once per pod: {received:?}");
}

#[tokio::test]
async fn with_the_gate_labels_and_networks_come_from_cri() {
    let gate = json!({"featureGates": {"PodAndContainerStatsFromCRI": true}});
    let Some(node) = started_with(gate).await else { return };
    busy(&node);
    cpu_seconds(&node).await;
    has_figures(&pod_with_network(&node).await);
    let text = node.get("/metrics/cadvisor").map_err(std::io::Error::other).or_fail("get metrics");
    let received = series(&text, RECEIVED, &[("pod", "busy-node"), ("interface", "eth0")]);
    assert_eq!(received.len(), 1, "once per pod: {received:?}");
}
