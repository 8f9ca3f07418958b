// SPDX-License-Identifier: Apache-2.0
//! Containers and pods that somebody has frozen: they are stopped and removed all the same, and a command in
//! one is answered at its time limit.

#![allow(clippy::unwrap_used, reason = "also helpers of tests fail by panicking")]

use hull_proto::cri::ContainerState;
use hull_tests::cri::shell;
use hull_tests::eventually::patient;
use hull_tests::{Node, eventually, host};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tonic::Code;

/// Where a group of this node is frozen, and how; in the hierarchy that freezes.
struct Freezer {
    root: PathBuf,
    file: &'static str,
    on: &'static str,
    off: &'static str,
    frozen: fn(&Path) -> bool,
}

fn freezer() -> Freezer {
    let v1 = host::hierarchies().into_iter().find(|at| at.ends_with("freezer"));
    match v1 {
        Some(root) => Freezer {
            root,
            file: "freezer.state",
            on: "FROZEN",
            off: "THAWED",
            frozen: |dir| fs::read_to_string(dir.join("freezer.state")).unwrap().trim() == "FROZEN",
        },
        None => Freezer {
            root: host::hierarchies().remove(0),
            file: "cgroup.freeze",
            on: "1",
            off: "0",
            frozen: |dir| {
                fs::read_to_string(dir.join("cgroup.events")).unwrap().contains("frozen 1")
            },
        },
    }
}

impl Freezer {
    fn pod(&self, node: &Node, pod: &str) -> PathBuf {
        let parent = node.names().cgroup.trim_start_matches('/');
        self.root.join(parent).join(format!("pod{pod}"))
    }

    async fn freeze(&self, dir: &Path) {
        fs::write(dir.join(self.file), self.on).unwrap();
        eventually("it is frozen", || async {
            if (self.frozen)(dir) { Ok(()) } else { Err("it is on its way".to_owned()) }
        })
        .await;
    }

    /// Moves a process into a group that is nested in its own.
    fn nest(&self, dir: &Path, pid: i32) -> PathBuf {
        let nested = dir.join("a").join("b");
        fs::create_dir_all(&nested).unwrap();
        fs::write(nested.join("cgroup.procs"), pid.to_string()).unwrap();
        nested
    }
}

#[tokio::test]
async fn a_frozen_container_stops_and_goes() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let freezer = freezer();
    for what in ["own", "nested", "pod"] {
        let made = cri.run_idle(&pod, what, &image).await;
        let group = freezer.pod(&node, &pod).join(&made);
        match what {
            "own" => freezer.freeze(&group).await,
            "nested" => {
                let nested = freezer.nest(&group, cri.pid(&made).await);
                freezer.freeze(&nested).await;
            }
            _ => freezer.freeze(&freezer.pod(&node, &pod)).await,
        }
        let began = Instant::now();
        cri.stop(&made, 1).await.unwrap();
        let status = cri.status(&made).await;
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137));
        assert!(began.elapsed() < patient(Duration::from_secs(8)), "{what}: {:?}", began.elapsed());
        cri.remove(&made).await.unwrap();
        assert!(!group.is_dir(), "{what}: its group is left");
    }
}

#[tokio::test]
async fn a_frozen_pod_is_removed() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let freezer = freezer();
    let made = cri.run_idle(&pod, "main", &image).await;
    let nested = freezer.nest(&freezer.pod(&node, &pod).join(&made), cri.pid(&made).await);
    freezer.freeze(&nested).await;
    freezer.freeze(&freezer.pod(&node, &pod)).await;
    let began = Instant::now();
    cri.stop_pod(&pod).await.unwrap();
    assert!(began.elapsed() < patient(Duration::from_secs(8)), "{:?}", began.elapsed());
    cri.remove_pod(&pod).await.unwrap();
    assert!(!freezer.pod(&node, &pod).is_dir(), "its group is left");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_command_in_a_frozen_container_ends_at_its_limit() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let freezer = freezer();
    let made = cri.run_idle(&pod, "main", &image).await;
    freezer.freeze(&freezer.pod(&node, &pod).join(&made)).await;
    let began = Instant::now();
    let late = cri.exec_for(&made, &["echo", "on"], 2).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    assert!(began.elapsed() < patient(Duration::from_secs(6)), "{:?}", began.elapsed());
    cri.remove_pod(&pod).await.unwrap();
    node.nothing_is_left().await;
}

/// Frozen, a start takes as long as the test wants.
#[tokio::test]
async fn a_start_that_outlives_its_daemon_is_known_to_the_next() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let freezer = freezer();
    let dir = freezer.pod(&node, &pod);
    let made = cri.make(&pod, shell("main", &image, "exit 3")).await;
    freezer.freeze(&dir).await;
    let starting = tokio::spawn({
        let (cri, made) = (cri.clone(), made.clone());
        async move { cri.start(&made).await }
    });
    eventually("it is on its way", || async {
        let there = fs::read_to_string(dir.join(&made).join("cgroup.procs")).unwrap_or_default();
        if there.is_empty() { Err("no process yet".to_owned()) } else { Ok(()) }
    })
    .await;
    node.kill();
    starting.await.unwrap().unwrap_err();
    node.start_again().await;
    fs::write(dir.join(freezer.file), freezer.off).unwrap();
    let status = cri.ended(&made).await;
    assert_eq!(status.exit_code, 3);
    assert!(status.started_at > 0, "it is not known to have started: {status:?}");
    assert!(status.finished_at >= status.started_at, "{status:?}");
}
