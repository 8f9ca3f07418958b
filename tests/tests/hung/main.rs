// SPDX-License-Identifier: Apache-2.0
//! A monitor that is stopped (SIGSTOP) answers nothing: every verb of its pod ends all the same, stopping the
//! pod ends the monitor, and other pods and a new daemon do not wait for it. And records with odd contents: no
//! pod is there that cannot be removed.
//!
//! | file | what |
//! |---|---|
//! | `data_dir` | the daemon's own directories on a file system whose writes hang |
//! | `matrix` | each part that can hang, under each verb: bounds and answers are those of docs/security.md |
//! | `outside` | registries and plugins that hang |
//! | `table` | reads those bounds from docs/security.md, which is made of the code |

#![allow(clippy::unwrap_used, reason = "also helpers of tests fail by panicking")]
#![allow(clippy::print_stdout, reason = "how long each verb took")]

mod data_dir;
mod matrix;
mod outside;
mod table;

use hull_proto::cri::{self as api, ContainerState, PodSandboxState};
use hull_tests::eventually::with_long_timeout;
use hull_tests::{Cri, Node, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};
use tonic::Code;

/// The monitor of a pod, stopped.
fn stop_monitor(pod: &str) -> Pid {
    let monitor = hull_tests::host::monitor_of(pod);
    kill(monitor, Signal::SIGSTOP).unwrap();
    monitor
}

/// Answers of a healthy pod, while another hangs.
async fn is_quick(cri: &Cri, container: &str) {
    let began = Instant::now();
    assert_eq!(cri.exec_for(container, &["echo", "on"], 10).await.unwrap().stdout, "on\n");
    assert!(began.elapsed() < with_long_timeout(Duration::from_secs(3)), "{:?}", began.elapsed());
}

#[tokio::test]
async fn every_verb_of_a_pod_whose_monitor_hangs_ends() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let other = cri.run_pod("other").await.unwrap();
    let healthy = cri.run_idle(&other, "main", &image).await;
    stop_monitor(&pod);
    let began = Instant::now();
    let late = cri.exec_for(&made, &["echo", "on"], 1).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    assert!(began.elapsed() < with_long_timeout(Duration::from_secs(5)), "{:?}", began.elapsed());
    is_quick(&cri, &healthy).await;
    let request = api::ReopenContainerLogRequest { container_id: made.clone() };
    let late = cri.runtime.clone().reopen_container_log(request).await.unwrap_err();
    assert_eq!(late.code(), Code::Unavailable, "{late}");
    assert!(
        late.message().contains("hull-monitor"),
        "the message names the program to look at: {late}"
    );
    let update = api::UpdateContainerResourcesRequest {
        container_id: made.clone(),
        linux: Some(api::LinuxContainerResources {
            memory_limit_in_bytes: 96 << 20,
            ..Default::default()
        }),
        ..Default::default()
    };
    cri.runtime.clone().update_container_resources(update).await.unwrap();
    let began = Instant::now();
    cri.stop(&made, 1).await.unwrap();
    assert!(began.elapsed() < with_long_timeout(Duration::from_secs(25)), "{:?}", began.elapsed());
    assert_eq!(cri.status(&made).await.state(), ContainerState::ContainerExited);
    is_quick(&cri, &healthy).await;
    cri.remove_pod(&pod).await.unwrap();
    cri.remove_pod(&other).await.unwrap();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_pod_whose_monitor_hangs_is_removed() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    cri.run_idle(&pod, "main", &image).await;
    stop_monitor(&pod);
    let began = Instant::now();
    cri.remove_pod(&pod).await.unwrap();
    assert!(began.elapsed() < with_long_timeout(Duration::from_secs(25)), "{:?}", began.elapsed());
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_new_daemon_serves_before_a_monitor_that_hangs_has_answered() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let slow = cri.run_pod("slow").await.unwrap();
    node.kill();
    let monitor = stop_monitor(&slow);
    let began = Instant::now();
    node.start_again().await;
    is_quick(&cri, &made).await;
    assert!(began.elapsed() < with_long_timeout(Duration::from_secs(5)), "{:?}", began.elapsed());
    let status = cri.pod_status(&slow).await.unwrap().status.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxReady, "as it was recorded");
    kill(monitor, Signal::SIGCONT).unwrap();
    // It answers now, and its pod is as before.
    let late = cri.run_idle(&slow, "main", &image).await;
    assert_eq!(cri.exec(&late, &["echo", "on"]).await.unwrap().stdout, "on\n");
    node.kill();
    stop_monitor(&slow);
    node.start_again().await;
    eventually("a pod whose monitor never answers is ended", || async {
        let status = cri.pod_status(&slow).await.unwrap().status.unwrap();
        let state = status.state();
        if state == PodSandboxState::SandboxNotready { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    cri.remove_all_pods().await.unwrap();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_pod_with_an_odd_record_can_be_removed() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    cri.make(&pod, hull_tests::cri::idle("main", &image)).await;
    let odd = ["/", "//", "/a//b", "/a/./b", "/a/", "", ".", "/..", "a", "/\u{1}\n", "/x/../../.."];
    let mut pod = pod;
    for (round, cgroup) in odd.into_iter().enumerate() {
        cri.stop_pod(&pod).await.unwrap();
        node.terminate();
        let path = node.state_dir().join("pods").join(format!("{pod}.json"));
        let mut record: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record["record"]["cgroup"] = cgroup.into();
        record["record"]["cgroup_is_ours"] = (round % 2 == 0).into();
        record["record"]["state"] = "Stopping".into();
        fs::write(&path, record.to_string()).unwrap();
        node.start_again().await;
        cri.remove_pod(&pod).await.unwrap();
        assert_eq!(cri.pods().await.len(), 0, "{cgroup:?}");
        pod = cri.run_pod("next").await.unwrap();
    }
}
