// SPDX-License-Identifier: Apache-2.0
//! Containers and pods that somebody has frozen: they are stopped and removed all the same, and a command in
//! one is refused at once.

#![allow(clippy::unwrap_used, reason = "also helpers of tests fail by panicking")]

use hull_proto::cri::{self as api, ContainerEventType as Kind, ContainerState};
use hull_tests::cri::shell;
use hull_tests::eventually::with_long_timeout;
use hull_tests::{Cri, Node, eventually, host};
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
        assert!(
            began.elapsed() < with_long_timeout(Duration::from_secs(8)),
            "{what}: {:?}",
            began.elapsed()
        );
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
    assert!(began.elapsed() < with_long_timeout(Duration::from_secs(8)), "{:?}", began.elapsed());
    cri.remove_pod(&pod).await.unwrap();
    assert!(!freezer.pod(&node, &pod).is_dir(), "its group is left");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn commands_and_attach_are_refused_at_once_while_a_container_is_frozen() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let freezer = freezer();
    let made = cri.run_idle(&pod, "main", &image).await;
    let group = freezer.pod(&node, &pod);
    let thaw = |dir: &Path| fs::write(dir.join(freezer.file), freezer.off).unwrap();
    for (frozen, what, fix) in [
        (group.join(&made), "it is paused", "`hull unpause "),
        (group.clone(), "it is frozen by cgroup ", "thaw cgroup "),
    ] {
        freezer.freeze(&frozen).await;
        // Without a time limit it would wait for ever.
        let exec_sync = cri.exec_for(&made, &["echo", "on"], 0).await.unwrap_err();
        let request = api::ExecRequest {
            container_id: made.clone(),
            cmd: vec!["true".into()],
            stdout: true,
            ..Default::default()
        };
        let exec = cri.runtime.clone().exec(request).await.unwrap_err();
        let request =
            api::AttachRequest { container_id: made.clone(), stdout: true, ..Default::default() };
        let attach = cri.runtime.clone().attach(request).await.unwrap_err();
        for refused in [exec_sync, exec, attach] {
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            let said = refused.message();
            assert!(said.contains(what) && said.contains(fix) && said.contains(&made), "{said}");
        }
        thaw(&frozen);
        assert_eq!(cri.exec(&made, &["echo", "on"]).await.unwrap().stdout, "on\n");
    }
    a_running_command_ends_at_its_time_limit(&cri, &made, &freezer, &group.join(&made)).await;
    cri.remove_pod(&pod).await.unwrap();
    node.nothing_is_left().await;
}

/// One that began before its container was frozen does not keep its caller beyond the time limit.
async fn a_running_command_ends_at_its_time_limit(
    cri: &Cri,
    made: &str,
    freezer: &Freezer,
    group: &Path,
) {
    let began = Path::new("/proc").join(cri.pid(made).await.to_string()).join("root/begun");
    let running = tokio::spawn({
        let (cri, made) = (cri.clone(), made.to_owned());
        async move { cri.exec_for(&made, &["sh", "-c", "touch /begun; sleep 1000"], 4).await }
    });
    eventually("the command has begun", || async {
        fs::metadata(&began).map(drop).map_err(|err| err.to_string())
    })
    .await;
    freezer.freeze(group).await;
    let limit = with_long_timeout(Duration::from_secs(10));
    let late = tokio::time::timeout(limit, running).await.unwrap().unwrap().unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
}

#[tokio::test]
async fn a_launch_that_never_gets_to_its_program_ends_by_its_own_limit() {
    let node = Node::start_with("[runtime]\nlaunch_timeout_s = 1\n").await;
    let (cri, pod, image) = node.pod("web").await;
    let freezer = freezer();
    let next = cri.make(&pod, hull_tests::cri::idle("next", &image)).await;
    freezer.freeze(&freezer.pod(&node, &pod)).await;
    // It has no time limit of its caller's.
    let late = cri.start(&next).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    assert!(late.message().contains("runtime.launch_timeout_s"), "{late}");
    assert_eq!(cri.status(&next).await.state(), ContainerState::ContainerExited);
    cri.remove_pod(&pod).await.unwrap();
    node.nothing_is_left().await;
}

/// The kubelet that asked for the start may never ask again: the next daemon tells of it all the same.
#[tokio::test]
async fn a_start_that_the_daemon_died_in_is_told_with_its_time() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let freezer = freezer();
    for (name, thawed_first) in [("while-away", true), ("after", false)] {
        let made = cri.make(&pod, shell(name, &image, "exit 4")).await;
        freezer.freeze(&freezer.pod(&node, &pod)).await;
        let starting = tokio::spawn({
            let (cri, made) = (cri.clone(), made.clone());
            async move { cri.start(&made).await }
        });
        let procs = freezer.pod(&node, &pod).join(&made).join("cgroup.procs");
        eventually("its process is there", || async {
            let pids = fs::read_to_string(&procs).map_err(|err| err.to_string())?;
            if pids.is_empty() { Err("no process".to_owned()) } else { Ok(()) }
        })
        .await;
        node.kill();
        starting.await.unwrap().unwrap_err();
        let thaw = || fs::write(freezer.pod(&node, &pod).join(freezer.file), freezer.off).unwrap();
        let before = now_ns();
        if thawed_first {
            thaw();
            eventually("its process is gone", || async {
                let pids = fs::read_to_string(&procs).unwrap_or_default();
                if pids.is_empty() { Ok(()) } else { Err(pids) }
            })
            .await;
        }
        node.start_again().await;
        let request = api::GetEventsRequest {};
        let events = cri.runtime.clone().get_container_events(request).await.unwrap();
        if !thawed_first {
            fs::write(freezer.pod(&node, &pod).join(freezer.file), freezer.off).unwrap();
        }
        let status = cri.ended(&made).await;
        assert_eq!(status.exit_code, 4, "{name}");
        assert!(status.started_at >= before, "{name}: {status:?}");
        assert!(status.finished_at >= status.started_at, "{name}: {status:?}");
        let mut events = events.into_inner();
        let mut kinds = Vec::new();
        while kinds.last() != Some(&Kind::ContainerStoppedEvent) {
            let next =
                tokio::time::timeout(with_long_timeout(Duration::from_secs(20)), events.message());
            let event = next.await.unwrap().unwrap().unwrap();
            if event.container_id == made {
                kinds.push(event.container_event_type());
            }
        }
        assert_eq!(kinds, [Kind::ContainerStartedEvent, Kind::ContainerStoppedEvent], "{name}");
    }
}

fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

/// A process that shares a pid namespace can stop others that enter it, also before their program runs.
#[tokio::test]
async fn a_neighbour_that_stops_every_process_delays_no_verb_beyond_its_limit() {
    let node = Node::start_with("[runtime]\nlaunch_timeout_s = 2\n").await;
    let cri = node.cri();
    let image = hull_tests::fixture::busybox();
    cri.pull(&image).await.unwrap();
    let mut config = cri.pod_config("shared");
    hull_tests::cri::pod_namespaces(&mut config).pid = api::NamespaceMode::Pod.into();
    let pod = cri.run_pod_with(config).await.unwrap();
    let shared = |name: &str, script: &str| {
        let mut config = shell(name, &image, script);
        let options = hull_tests::cri::security(&mut config).namespace_options.as_mut().unwrap();
        options.pid = api::NamespaceMode::Pod.into();
        config
    };
    let main = cri.run(&pod, shared("main", "while true; do sleep 1000; done")).await;
    let stops = "while true; do kill -STOP -1; done";
    let neighbour = cri.run(&pod, shared("neighbour", stops)).await;
    for round in 0..8 {
        let began = Instant::now();
        match cri.exec_for(&main, &["true"], 1).await {
            Ok(_) => {}
            Err(late) => assert_eq!(late.code(), Code::DeadlineExceeded, "{late}"),
        }
        assert!(
            began.elapsed() < with_long_timeout(Duration::from_secs(5)),
            "{:?}",
            began.elapsed()
        );
        let began = Instant::now();
        let next = cri.make(&pod, shared(&format!("next-{round}"), "sleep 1000")).await;
        match cri.start(&next).await {
            Ok(()) => {}
            Err(late) => assert_eq!(late.code(), Code::DeadlineExceeded, "{late}"),
        }
        cri.stop(&next, 1).await.unwrap();
        assert_eq!(cri.status(&next).await.state(), ContainerState::ContainerExited);
        cri.remove(&next).await.unwrap();
        assert!(
            began.elapsed() < with_long_timeout(Duration::from_secs(12)),
            "{:?}",
            began.elapsed()
        );
    }
    cri.stop(&main, 1).await.unwrap();
    cri.stop(&neighbour, 1).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    node.nothing_is_left().await;
}
