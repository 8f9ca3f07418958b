// SPDX-License-Identifier: Apache-2.0
//! ListMetricDescriptors, ListPodSandboxMetrics and StreamPodSandboxMetrics: cAdvisor's names, with
//! values that hold.

use hull_proto::cri as api;
use hull_tests::cri::{container, resources};
use hull_tests::{Cri, ExpectExt as _, Node};
use std::collections::BTreeMap;

async fn descriptors(cri: &Cri) -> BTreeMap<String, Vec<String>> {
    let mut runtime = cri.runtime.clone();
    let answer = runtime.list_metric_descriptors(api::ListMetricDescriptorsRequest {}).await;
    let descriptors = answer.or_fail("list the descriptors").into_inner().descriptors;
    descriptors.into_iter().map(|of| (of.name, of.label_keys)).collect()
}

async fn metrics(cri: &Cri) -> Vec<api::PodSandboxMetrics> {
    let mut runtime = cri.runtime.clone();
    let answer = runtime.list_pod_sandbox_metrics(api::ListPodSandboxMetricsRequest {}).await;
    answer.or_fail("list the metrics").into_inner().pod_metrics
}

/// The value of the first metric of this name.
fn value(of: &[api::Metric], name: &str) -> u64 {
    let found = of.iter().find(|metric| metric.name == name).or_fail(format!("find {name}"));
    found.value.or_fail(format!("read {name}")).value
}

/// Fails unless every metric is described, with as many labels as it has.
fn is_described(described: &BTreeMap<String, Vec<String>>, given: &api::PodSandboxMetrics) {
    let of_containers = given.container_metrics.iter().flat_map(|of| &of.metrics);
    for metric in given.metrics.iter().chain(of_containers) {
        let keys = described.get(&metric.name).or_fail(format!("find {} described", metric.name));
        assert_eq!(keys.len(), metric.label_values.len(), "{metric:?} has {keys:?}");
        assert!(metric.timestamp > 0 && metric.value.is_some(), "{metric:?}");
    }
}

/// The labels of the first metric of this name.
fn labels(
    described: &BTreeMap<String, Vec<String>>,
    of: &[api::Metric],
    name: &str,
) -> BTreeMap<String, String> {
    let found = of.iter().find(|metric| metric.name == name).or_fail(format!("find {name}"));
    described[name].iter().cloned().zip(found.label_values.iter().cloned()).collect()
}

#[tokio::test]
async fn metrics_have_the_names_and_labels_that_are_described_and_values_that_hold() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "head -c 1500000 /dev/zero > /file; echo done; exec sleep 600";
    let mut config = container("main", &image, &["sh", "-c", script]);
    resources(&mut config).memory_limit_in_bytes = 64 << 20;
    resources(&mut config).cpu_quota = 150_000;
    resources(&mut config).cpu_period = 100_000;
    let made = cri.run(&pod, config).await;
    cri.prints(&made, "done").await;
    let address = cri.pod_ip(&pod).await;
    // Nothing listens there: the pod answers so, and both packets are counted.
    let refused = std::net::TcpStream::connect(format!("{address}:9")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    let described = descriptors(&cri).await;
    let all = metrics(&cri).await;
    assert_eq!(all.len(), 1, "one pod");
    let of_pod = &all[0];
    assert_eq!(of_pod.pod_sandbox_id, pod);
    let of_container = &of_pod.container_metrics[0];
    assert_eq!(of_container.container_id, made);
    is_described(&described, of_pod);
    let labels = labels(&described, &of_container.metrics, "container_memory_rss");
    assert_eq!(labels["container"], "main");
    assert_eq!(labels["pod"], "web");
    assert_eq!(labels["image"], image);
    assert_eq!(labels["name"], made);

    let status = cri.status(&made).await;
    let of = &of_container.metrics;
    assert_eq!(
        value(of, "container_start_time_seconds"),
        u64::try_from(status.started_at).or_fail("read it") / 1_000_000_000
    );
    assert_eq!(value(of, "container_spec_memory_limit_bytes"), 64 << 20);
    assert_eq!(value(of, "container_spec_cpu_quota"), 150_000);
    assert_eq!(value(of, "container_processes"), 1);
    assert_eq!(value(of, "container_threads"), 1);
    assert!(value(of, "container_file_descriptors") >= 3);
    assert!(value(of, "container_memory_usage_bytes") > 0);
    assert!(
        value(of, "container_memory_working_set_bytes")
            <= value(of, "container_memory_usage_bytes")
    );
    assert!(
        value(of, "container_memory_max_usage_bytes") >= 1_500_000,
        "the file was in the page cache"
    );
    assert!(value(of, "container_fs_usage_bytes") >= 1_500_000);
    let room = nix::sys::statvfs::statvfs(&node.data_dir()).or_fail("ask for the filesystem");
    assert_eq!(value(of, "container_fs_limit_bytes"), room.blocks() * room.fragment_size());
    assert!(value(of, "container_fs_inodes_free") > 0);
    assert_eq!(value(of, "container_threads_max"), 0, "there is no limit");
    assert_eq!(value(of, "container_spec_memory_reservation_limit_bytes"), 0);
    assert!(value(of, "container_ulimits_soft") >= 1024);
    assert!(value(&of_pod.metrics, "container_processes") >= 2, "pause and the container");
    assert!(value(&of_pod.metrics, "container_network_receive_packets_total") > 0);
    let tells_link =
        of_pod.metrics.iter().find(|of| of.name == "container_network_receive_bytes_total");
    assert_eq!(tells_link.or_fail("find it").label_values.last().or_fail("read it"), "eth0");
}

#[tokio::test]
async fn a_stopped_pod_has_no_metrics_and_the_stream_says_the_same_as_the_list() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("one").await;
    let _made = cri.run_idle(&pod, "main", &image).await;
    let two = cri.run_pod("two").await.or_fail("run a second pod");
    let gone = cri.run_pod("gone").await.or_fail("run a third pod");
    cri.stop_pod(&gone).await.or_fail("stop it");
    let ids = |of: &[api::PodSandboxMetrics]| {
        let mut ids: Vec<String> = of.iter().map(|of| of.pod_sandbox_id.clone()).collect();
        ids.sort();
        ids
    };
    let mut wanted = vec![pod, two];
    wanted.sort();
    assert_eq!(ids(&metrics(&cri).await), wanted);
    let mut runtime = cri.runtime.clone();
    let stream = runtime.stream_pod_sandbox_metrics(api::StreamPodSandboxMetricsRequest {}).await;
    let mut stream = stream.or_fail("ask for the stream").into_inner();
    let mut streamed = Vec::new();
    while let Some(part) = stream.message().await.or_fail("read the stream") {
        streamed.extend(part.pod_sandbox_metrics);
    }
    assert_eq!(ids(&streamed), wanted);
}
