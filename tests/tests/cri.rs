// SPDX-License-Identifier: Apache-2.0
//! The verbs of CRI as a kubelet uses them: what they answer, filters, repeating them.

use hull_proto::cri::{self as api, ContainerState, PodSandboxState};
use hull_tests::Node;
use hull_tests::cri::{container, idle, shell};
use std::collections::HashMap;
use tonic::Code;

fn labels(of: &[(&str, &str)]) -> HashMap<String, String> {
    of.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn version_and_status_say_that_the_node_is_ready() {
    let node = Node::start().await;
    let mut runtime = node.cri().runtime;
    let version = runtime.version(api::VersionRequest::default()).await.unwrap().into_inner();
    assert_eq!(version.runtime_name, "hull");
    assert_eq!(version.runtime_api_version, "v1");
    assert!(!version.runtime_version.is_empty());

    let status = runtime.status(api::StatusRequest { verbose: true }).await.unwrap().into_inner();
    let conditions = status.status.unwrap().conditions;
    for wanted in ["RuntimeReady", "NetworkReady"] {
        let condition = conditions.iter().find(|condition| condition.r#type == wanted).unwrap();
        assert!(condition.status, "{condition:?}");
    }
    assert!(
        status.runtime_handlers.iter().any(|handler| handler.name.is_empty()),
        "no default handler"
    );
    assert!(status.runtime_handlers.iter().any(|handler| handler.features.is_some()));
    assert!(!status.info.is_empty(), "no verbose info");
}

#[tokio::test]
async fn the_runtime_config_names_the_cgroup_driver() {
    let node = Node::start().await;
    let answer =
        node.cri().runtime.runtime_config(api::RuntimeConfigRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().linux.unwrap().cgroup_driver(), api::CgroupDriver::Cgroupfs);
}

#[tokio::test]
async fn a_pod_lives_as_the_kubelet_expects() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let status = cri.pod_status(&pod).await.unwrap().status.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert!(status.created_at > 0);

    let made = cri.create(&pod, idle("main", &image)).await.unwrap();
    assert_eq!(cri.status(&made).await.state(), ContainerState::ContainerCreated);
    cri.start(&made).await.unwrap();
    let running = cri.status(&made).await;
    assert_eq!(running.state(), ContainerState::ContainerRunning);
    assert!(running.started_at >= running.created_at, "{running:?}");

    cri.catches_term(&made).await;
    cri.stop(&made, 10).await.unwrap();
    let ended = cri.status(&made).await;
    assert_eq!((ended.state(), ended.exit_code), (ContainerState::ContainerExited, 0));
    assert!(ended.finished_at >= ended.started_at, "{ended:?}");
    assert_eq!(ended.reason, "Completed");

    cri.remove(&made).await.unwrap();
    assert_eq!(cri.inspect(&made).await.unwrap_err().code(), Code::NotFound);
    cri.stop_pod(&pod).await.unwrap();
    let status = cri.pod_status(&pod).await.unwrap().status.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    cri.remove_pod(&pod).await.unwrap();
    assert_eq!(cri.pod_status(&pod).await.unwrap_err().code(), Code::NotFound);
    node.nothing_is_left().await;
}

#[tokio::test]
async fn stop_and_remove_may_be_repeated() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    for _ in 0..2 {
        cri.stop(&made, 10).await.unwrap();
    }
    for _ in 0..2 {
        cri.remove(&made).await.unwrap();
    }
    for _ in 0..2 {
        cri.stop_pod(&pod).await.unwrap();
    }
    for _ in 0..2 {
        cri.remove_pod(&pod).await.unwrap();
    }
    cri.stop_pod(&pod).await.unwrap();
}

#[tokio::test]
async fn removing_a_pod_takes_its_running_containers_along() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    cri.remove_pod(&pod).await.unwrap();
    assert_eq!(cri.inspect(&made).await.unwrap_err().code(), Code::NotFound);
    node.nothing_is_left().await;
}

#[tokio::test]
async fn the_same_pod_asked_for_twice_at_once_is_one_pod() {
    let node = Node::start().await;
    let cri = node.cri();
    let (one, two) = tokio::join!(cri.run_pod("web"), cri.run_pod("web"));
    let ids: Vec<String> = [one, two].into_iter().filter_map(Result::ok).collect();
    assert!(!ids.is_empty(), "neither call got the pod");
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "two pods of one name: {ids:?}");
    assert_eq!(cri.pods().await.len(), 1);
}

#[tokio::test]
async fn lists_are_filtered_by_id_prefix_state_and_labels() {
    let node = Node::start().await;
    let (cri, web, image) = node.pod("web").await;
    let mut config = cri.pod_config("db");
    config.labels = labels(&[("app", "db"), ("tier", "back")]);
    let db = cri.run_pod_with(config).await.unwrap();
    let mut config = idle("main", &image);
    config.labels = labels(&[("app", "db")]);
    let running = cri.run(&db, config).await;
    let created = cri.create(&web, idle("later", &image)).await.unwrap();

    let pods = |filter: api::PodSandboxFilter| {
        let mut runtime = cri.runtime.clone();
        async move {
            let request = api::ListPodSandboxRequest { filter: Some(filter) };
            let items = runtime.list_pod_sandbox(request).await.unwrap().into_inner().items;
            items.into_iter().map(|pod| pod.id).collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(pods(api::PodSandboxFilter::default()).await.split(' ').count(), 2);
    assert_eq!(pods(api::PodSandboxFilter { id: db[..12].into(), ..Default::default() }).await, db);
    let label_selector = labels(&[("tier", "back")]);
    assert_eq!(pods(api::PodSandboxFilter { label_selector, ..Default::default() }).await, db);
    let state = Some(api::PodSandboxStateValue { state: PodSandboxState::SandboxNotready.into() });
    assert!(pods(api::PodSandboxFilter { state, ..Default::default() }).await.is_empty());

    let containers = |filter: api::ContainerFilter| {
        let mut runtime = cri.runtime.clone();
        async move {
            let request = api::ListContainersRequest { filter: Some(filter) };
            let items = runtime.list_containers(request).await.unwrap().into_inner().containers;
            items.into_iter().map(|container| container.id).collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(containers(api::ContainerFilter::default()).await.split(' ').count(), 2);
    let by_id = api::ContainerFilter { id: running[..10].into(), ..Default::default() };
    assert_eq!(containers(by_id).await, running);
    let by_pod = api::ContainerFilter { pod_sandbox_id: web.clone(), ..Default::default() };
    assert_eq!(containers(by_pod).await, created);
    let state = Some(api::ContainerStateValue { state: ContainerState::ContainerRunning.into() });
    assert_eq!(containers(api::ContainerFilter { state, ..Default::default() }).await, running);
    let label_selector = labels(&[("app", "db")]);
    assert_eq!(
        containers(api::ContainerFilter { label_selector, ..Default::default() }).await,
        running
    );
}

#[tokio::test]
async fn labels_annotations_and_metadata_come_back_as_given() {
    let node = Node::start().await;
    let (cri, _pod, image) = node.pod("other").await;
    let mut config = cri.pod_config("web");
    config.labels = labels(&[("app", "web")]);
    config.annotations = labels(&[("example.org/note", "of the pod: ä \"quoted\"")]);
    let pod = cri.run_pod_with(config.clone()).await.unwrap();
    let status = cri.pod_status(&pod).await.unwrap().status.unwrap();
    assert_eq!((&status.labels, &status.annotations), (&config.labels, &config.annotations));
    assert_eq!(status.metadata, config.metadata);

    let mut config = idle("main", &image);
    config.annotations = labels(&[("example.org/note", "of the container")]);
    config.labels = labels(&[("c", "1")]);
    let made = cri.create(&pod, config.clone()).await.unwrap();
    let status = cri.status(&made).await;
    assert_eq!((&status.labels, &status.annotations), (&config.labels, &config.annotations));
    assert_eq!(status.image.unwrap().image, image);
    assert!(status.image_id.starts_with("sha256:"), "{}", status.image_id);
}

#[tokio::test]
async fn verbose_info_is_what_crictl_users_read() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let pid = cri.pid(&made).await;
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(command.starts_with("/bin/sh"), "{command:?}");
    let info = cri.inspect(&made).await.unwrap().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    assert_eq!(info["runtimeSpec"]["process"]["args"][0], "/bin/sh", "{info}");
    let info = cri.pod_status(&pod).await.unwrap().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    assert!(info["pid"].as_i64().is_some_and(|pid| pid > 1), "{info}");
}

#[tokio::test]
async fn exec_gives_output_errors_and_exit_code() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let ran = cri.exec(&made, &["sh", "-c", "echo out; echo err >&2; exit 7"]).await.unwrap();
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (7, "out\n", "err\n"));
    // More than any pipe holds.
    let ran = cri.exec(&made, &["sh", "-c", "seq 1 100000"]).await.unwrap();
    assert_eq!(ran.stdout.lines().last(), Some("100000"));
    let ran = cri.exec(&made, &["sh", "-c", "kill -9 $$"]).await.unwrap();
    assert_eq!(ran.code, 137);
}

#[tokio::test]
async fn an_exec_that_takes_too_long_is_ended() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    // Several at once, so that the monitor has more to do than to kill the one whose status is read.
    let rounds = (0..8).map(|number| {
        let (cri, made) = (cri.clone(), made.clone());
        tokio::spawn(async move {
            let script = format!("echo before; exec sleep 987{number}");
            let refused = cri.exec_for(&made, &["sh", "-c", &script], 1).await.unwrap_err();
            assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
            let processes = cri.exec(&made, &["ps"]).await.unwrap().stdout;
            assert!(!processes.contains(&format!("987{number}")), "{processes}");
        })
    });
    for round in rounds.collect::<Vec<_>>() {
        round.await.unwrap();
    }
}

#[tokio::test]
async fn an_exec_returns_though_a_child_of_it_keeps_its_output_open() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let ran = cri.exec_for(&made, &["sh", "-c", "sleep 986 & echo started"], 20).await.unwrap();
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "started\n"));
}

#[tokio::test]
async fn stats_count_what_containers_use() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let busy = "x=$(head -c 8000000 /dev/zero | tr '\\0' a); echo ready; while true; do :; done";
    let made = cri.run(&pod, shell("busy", &image, busy)).await;
    hull_tests::eventually("the container is busy", || async {
        let request = api::ContainerStatsRequest { container_id: made.clone() };
        let stats =
            cri.runtime.clone().container_stats(request).await.unwrap().into_inner().stats.unwrap();
        let cpu = stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value;
        let memory = stats.memory.unwrap().working_set_bytes.unwrap().value;
        assert_eq!(stats.attributes.unwrap().id, made);
        if cpu > 100_000_000 && memory > 4_000_000 {
            Ok(())
        } else {
            Err(format!("cpu {cpu}, memory {memory}"))
        }
    })
    .await;
    let request = api::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let stats =
        cri.runtime.clone().pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();
    let linux = stats.linux.unwrap();
    assert!(linux.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 100_000_000);
    assert_eq!(linux.containers.len(), 1);
    assert!(linux.process.unwrap().process_count.unwrap().value >= 2, "pause and the shell");
    let interface = linux.network.unwrap().default_interface.unwrap();
    assert_eq!(interface.name, "eth0");
    let all = cri
        .runtime
        .clone()
        .list_pod_sandbox_stats(api::ListPodSandboxStatsRequest::default())
        .await;
    assert_eq!(all.unwrap().into_inner().stats.len(), 1);
    let all =
        cri.runtime.clone().list_container_stats(api::ListContainerStatsRequest::default()).await;
    assert_eq!(all.unwrap().into_inner().stats.len(), 1);
}

#[tokio::test]
async fn a_pods_new_sizes_are_recorded_and_a_stopped_pod_takes_none() {
    let mut node = Node::start().await;
    let (cri, pod, _image) = node.pod("web").await;
    let resources = |bytes| api::LinuxContainerResources {
        memory_limit_in_bytes: bytes,
        ..api::LinuxContainerResources::default()
    };
    let resize = |overhead, bytes: Option<i64>| api::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.clone(),
        overhead,
        resources: bytes.map(resources),
    };
    let mut runtime = cri.runtime.clone();
    runtime.update_pod_sandbox_resources(resize(Some(resources(5)), Some(64 << 20))).await.unwrap();
    // What is not given stays.
    runtime.update_pod_sandbox_resources(resize(None, Some(128 << 20))).await.unwrap();
    node.restart().await;
    let status = node.cri().pod_status(&pod).await.unwrap();
    let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
    let linux = &info["config"]["linux"];
    assert_eq!(linux["resources"]["memoryLimitInBytes"], 128 << 20, "{linux}");
    assert_eq!(linux["overhead"]["memoryLimitInBytes"], 5, "{linux}");

    cri.stop_pod(&pod).await.unwrap();
    let refused = runtime.update_pod_sandbox_resources(resize(None, None)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("stopped"), "{refused}");
}

#[tokio::test]
async fn a_checkpoint_of_a_pod_says_what_there_is_instead() {
    let node = Node::start().await;
    let mut runtime = node.cri().runtime;
    let of_pod = runtime.checkpoint_pod(api::CheckpointPodRequest::default()).await.unwrap_err();
    let restored = runtime.restore_pod(api::RestorePodRequest::default()).await.unwrap_err();
    for refused in [of_pod, restored] {
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("each of its containers"), "{refused:?}");
    }
}

#[tokio::test]
async fn streamed_lists_have_what_the_lists_have() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let (mut runtime, mut images) = (cri.runtime.clone(), cri.image.clone());

    let mut pods = runtime.stream_pod_sandboxes(api::StreamPodSandboxesRequest::default()).await;
    let sent = pods.as_mut().unwrap().get_mut().message().await.unwrap().unwrap();
    assert_eq!(sent.pod_sandboxes, cri.pods().await);
    assert_eq!(pods.unwrap().get_mut().message().await.unwrap(), None);

    let all = api::StreamContainersRequest::default();
    let sent = runtime.stream_containers(all).await.unwrap().into_inner().message().await;
    assert_eq!(sent.unwrap().unwrap().containers[0].id, made);
    let filter = api::ContainerFilter { id: "f".repeat(64), ..Default::default() };
    let none = api::StreamContainersRequest { filter: Some(filter) };
    let sent = runtime.stream_containers(none).await.unwrap().into_inner().message().await;
    assert_eq!(sent.unwrap(), None, "nothing to send is a stream without a message");

    let all = api::StreamContainerStatsRequest::default();
    let sent = runtime.stream_container_stats(all).await.unwrap().into_inner().message().await;
    let stats = sent.unwrap().unwrap().container_stats;
    assert_eq!(stats[0].attributes.as_ref().unwrap().id, made);
    let all = api::StreamPodSandboxStatsRequest::default();
    let sent = runtime.stream_pod_sandbox_stats(all).await.unwrap().into_inner().message().await;
    let stats = sent.unwrap().unwrap().pod_sandbox_stats;
    assert_eq!(stats[0].attributes.as_ref().unwrap().id, pod);
    let all = api::StreamImagesRequest::default();
    let sent = images.stream_images(all).await.unwrap().into_inner().message().await;
    assert!(sent.unwrap().unwrap().images[0].repo_tags.contains(&image));
}

fn subnets(text: &str) -> api::UpdateRuntimeConfigRequest {
    let network_config = Some(api::NetworkConfig { pod_cidr: text.into() });
    let runtime_config = Some(api::RuntimeConfig { network_config });
    api::UpdateRuntimeConfigRequest { runtime_config }
}

/// A controller gives the node its subnet; the kubelet passes it on, once.
#[tokio::test]
async fn the_kubelets_subnet_is_used_and_survives_a_restart() {
    let mut node = Node::start().await;
    let cri = node.cri();
    let mut runtime = cri.runtime.clone();
    let number = node.gateway().split('.').nth(2).unwrap().to_owned();
    let text = format!("10.214.{number}.0/24");
    runtime.update_runtime_config(subnets(&text)).await.unwrap();
    let first = cri.run_pod("first").await.unwrap();
    assert!(cri.pod_ip(&first).await.starts_with(&format!("10.214.{number}.")));
    node.restart().await;
    let second = cri.run_pod("second").await.unwrap();
    assert!(cri.pod_ip(&second).await.starts_with(&format!("10.214.{number}.")));

    // Told again, as every kubelet does when it starts.
    runtime.update_runtime_config(subnets(&text)).await.unwrap();
    runtime.update_runtime_config(subnets("")).await.unwrap();
    // A new subnet is for new pods; the others keep their addresses.
    let kept = cri.pod_ip(&second).await;
    let text = format!("10.215.{number}.0/24");
    runtime.update_runtime_config(subnets(&text)).await.unwrap();
    let third = cri.run_pod("third").await.unwrap();
    assert!(cri.pod_ip(&third).await.starts_with(&format!("10.215.{number}.")));
    assert_eq!(cri.pod_ip(&second).await, kept);
    let refused = runtime.update_runtime_config(subnets("10.215.0/24")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn one_pod_that_is_slow_to_stop_delays_no_other() {
    let node = Node::start().await;
    let (cri, slow, image) = node.pod("slow").await;
    let stubborn =
        shell("main", &image, "trap '' TERM; echo trapped; while true; do sleep 1; done");
    let stubborn = cri.run(&slow, stubborn).await;
    cri.prints(&stubborn, "trapped").await;
    let stopping = cri.stop(&stubborn, 5);
    let living = async {
        let pod = cri.run_pod("quick").await.unwrap();
        let ran = cri.output(&pod, container("main", &image, &["echo", "done"])).await;
        (ran.stdout, cri.status(&stubborn).await.state())
    };
    let (stopped, (said, meanwhile)) = tokio::join!(stopping, living);
    stopped.unwrap();
    assert_eq!(said, "done\n");
    assert_eq!(
        meanwhile,
        ContainerState::ContainerRunning,
        "the quick pod waited for the slow one"
    );
    assert_eq!(cri.status(&stubborn).await.exit_code, 137);
}
