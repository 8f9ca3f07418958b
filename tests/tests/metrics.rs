// SPDX-License-Identifier: Apache-2.0
//! ListMetricDescriptors, ListPodSandboxMetrics and StreamPodSandboxMetrics: cAdvisor's names, with
//! values that hold.

use hull_proto::containerd::{
    self, containers::containers_client::ContainersClient, tasks::tasks_client::TasksClient,
};
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

/// The methods of containerd that the cAdvisor of a kubelet calls, on the socket of Hull.
#[tokio::test]
async fn cadvisor_finds_labels_and_processes_by_the_names_of_cgroups() {
    let node = Node::start().await;
    let cri = node.cri();
    let mut config = cri.pod_config("web");
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    config.labels.extend([label("io.kubernetes.pod.name", "web")]);
    let pod = cri.run_pod_with(config).await.or_fail("run a pod");
    let image = hull_tests::fixture::busybox();
    let mut config = hull_tests::cri::idle("main", &image);
    config.labels.extend([label("io.kubernetes.container.name", "main")]);
    let made = cri.make(&pod, config).await;
    let channel = hull_tests::cri::channel(&node.socket());
    let mut version = containerd::version::version_client::VersionClient::new(channel.clone());
    let answer = version.version(containerd::version::VersionRequest {}).await;
    assert!(answer.or_fail("get the version").into_inner().version.starts_with("hull-"));

    let described = async |id: &str| {
        let mut containers = ContainersClient::new(channel.clone());
        let request = containerd::containers::GetContainerRequest { id: id.into() };
        containers.get(request).await.map(|answer| answer.into_inner().container)
    };
    let process = async |id: &str| {
        let mut tasks = TasksClient::new(channel.clone());
        let request =
            containerd::tasks::GetRequest { container_id: id.into(), ..Default::default() };
        tasks.get(request).await.map(|answer| answer.into_inner().process.or_fail("read a process"))
    };
    let not_yet = process(&made).await.err().or_fail("find no process before the start");
    assert_eq!(not_yet.code(), tonic::Code::NotFound, "cAdvisor asks again: {not_yet}");
    cri.start(&made).await.or_fail("start a container");

    let of = described(&made).await.or_fail("describe a container").or_fail("read it");
    assert_eq!((&*of.id, &*of.image), (&*made, &*image));
    assert_eq!(of.labels["io.kubernetes.container.name"], "main");
    assert_eq!(of.labels["io.cri-containerd.kind"], "container");
    assert!(of.created_at.is_some_and(|at| at.seconds > 1_700_000_000), "{:?}", of.created_at);
    let spec = of.spec.or_fail("find the spec").value;
    let spec: serde_json::Value = serde_json::from_slice(&spec).or_fail("read the spec");
    assert!(spec["process"].is_object(), "{spec}");
    let running = process(&made).await.or_fail("find its process");
    assert_eq!(i64::from(running.pid), i64::from(cri.pid(&made).await));
    assert_eq!(running.status(), containerd::tasks::Status::Running);

    // The pause process has the pod's network.
    let of = described(&pod).await.or_fail("describe a pod").or_fail("read it");
    assert_eq!(of.labels["io.kubernetes.pod.name"], "web");
    assert_eq!(of.labels["io.cri-containerd.kind"], "sandbox");
    let pause = process(&pod).await.or_fail("find its process");
    let group = std::fs::read_to_string(format!("/proc/{}/cgroup", pause.pid));
    let group = group.or_fail("read the cgroup of pause");
    assert!(group.lines().any(|line| line.ends_with(&format!("/{pod}"))), "{group}");

    cri.stop(&made, 5).await.or_fail("stop a container");
    assert_eq!(
        process(&made).await.or_fail("find it").status(),
        containerd::tasks::Status::Stopped
    );
    for unknown in ["", "0", &"f".repeat(64)] {
        described(unknown).await.err().or_fail("find nothing");
    }
}
