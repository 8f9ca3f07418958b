// SPDX-License-Identifier: Apache-2.0
//! The daemon killed at any time and started again: what runs goes on, what happened meanwhile is
//! reported, what was half made is gone.

use hull_proto::cri::{ContainerState, PodSandboxState};
use hull_tests::cri::{idle, shell};
use hull_tests::eventually::deadline;
use hull_tests::{Node, eventually, fixture, node};
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Something that appears on the host while a pod is made, in about this order.
#[derive(Debug, Clone, Copy)]
enum Seen {
    Record,
    Directory,
    Socket,
    Resolver,
    Link,
    Cgroup,
    HostsFile,
}

impl Seen {
    const ALL: [Self; 7] = [
        Self::Record,
        Self::Directory,
        Self::Socket,
        Self::Resolver,
        Self::Link,
        Self::Cgroup,
        Self::HostsFile,
    ];

    fn is_there(self, node: &Node) -> bool {
        let run = node.state_dir().join("run");
        let in_pod = |name: &str| {
            let pods = hull_tests::shell::names(&run);
            pods.iter().any(|pod| run.join(pod).join(name).symlink_metadata().is_ok())
        };
        match self {
            Self::Record => !hull_tests::shell::names(&node.state_dir().join("pods")).is_empty(),
            Self::Directory => !hull_tests::shell::names(&run).is_empty(),
            Self::Socket => in_pod("monitor.sock"),
            Self::Resolver => in_pod("resolv.conf"),
            Self::Link => {
                let ports = Path::new("/sys/class/net").join(&node.names().bridge).join("brif");
                !hull_tests::shell::names(&ports).is_empty()
            }
            Self::Cgroup => node.on_host().0.iter().any(|line| line.starts_with("cgroup ")),
            Self::HostsFile => in_pod("hosts"),
        }
    }
}

#[tokio::test]
async fn what_runs_goes_on_and_is_known_again() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let created = cri.create(&pod, idle("later", &image)).await.unwrap();
    let (before, pid) = (cri.status(&made).await, cri.pid(&made).await);
    let (pod_before, ip) = (cri.pod_status(&pod).await.unwrap().status, cri.pod_ip(&pod).await);
    for kill in [true, false] {
        if kill {
            node.kill();
        } else {
            node.terminate();
            // What a killed one leaves the next replaces; this one takes it along.
            assert!(!node.nri_socket().try_exists().unwrap());
        }
        assert!(Path::new(&format!("/proc/{pid}")).is_dir(), "the container ended with the daemon");
        node.start_again().await;
        assert_eq!(cri.status(&made).await, before);
        assert_eq!(cri.pid(&made).await, pid);
        assert_eq!(cri.pod_status(&pod).await.unwrap().status, pod_before);
        assert_eq!(cri.pod_ip(&pod).await, ip);
        assert_eq!(cri.status(&created).await.state(), ContainerState::ContainerCreated);
    }
    assert_eq!(cri.exec(&made, &["echo", "again"]).await.unwrap().stdout, "again\n");
    cri.start(&created).await.unwrap();
    cri.stop(&made, 10).await.unwrap();
    assert_eq!(cri.status(&made).await.exit_code, 0);
}

#[tokio::test]
async fn a_container_that_writes_all_the_time_loses_no_line() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    // It ends when the file appears, after a last line that says how far it came.
    let script = "i=0; while [ ! -e /host/stop ]; do i=$((i+1)); echo n$i; done; echo n$((i+1))";
    let mut config = shell("main", &image, script);
    config.mounts = vec![hull_tests::cri::mount(&node.host_dir(), "/host")];
    let made = cri.run(&pod, config).await;
    let log = cri.status(&made).await.log_path;
    let grows = |from: u64| {
        let log = log.clone();
        eventually("the log grows", move || {
            let length = fs::metadata(&log).map(|found| found.len()).unwrap_or_default();
            async move {
                if length > from + 200_000 { Ok(length) } else { Err(format!("{length} bytes")) }
            }
        })
    };
    let mut length = grows(0).await;
    for _ in 0..3 {
        node.kill();
        length = grows(length).await;
        node.start_again().await;
        length = grows(length).await;
    }
    node.kill();
    let _path = node::write(&node.host_dir(), "stop", "");
    node.start_again().await;
    let status = cri.ended(&made).await;
    assert_eq!(status.exit_code, 0);
    let logs = cri.logs(&made).await;
    for (at, line) in logs.iter().enumerate() {
        assert_eq!(line.text, format!("n{}", at + 1), "line {} of {}", at + 1, logs.len());
    }
}

#[tokio::test]
async fn exits_while_the_daemon_was_away_are_told_with_their_time() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "while [ ! -e /host/stop ]; do :; done; echo bye; exit 5";
    let mut config = shell("main", &image, script);
    config.mounts = vec![hull_tests::cri::mount(&node.host_dir(), "/host")];
    let made = cri.run(&pod, config).await;
    let pid = cri.pid(&made).await;
    node.kill();
    let _path = node::write(&node.host_dir(), "stop", "");
    eventually("it has ended", || async {
        if Path::new(&format!("/proc/{pid}")).is_dir() {
            Err("it still runs".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    let ended = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    node.start_again().await;
    let status = cri.status(&made).await;
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 5));
    assert!(
        u128::try_from(status.finished_at).unwrap() <= ended.as_nanos(),
        "told with the time of the restart"
    );
    assert_eq!(cri.logs(&made).await.last().unwrap().text, "bye");
    // Told again after another restart, from the record now.
    node.kill();
    node.start_again().await;
    assert_eq!(cri.status(&made).await, status);
}

#[tokio::test]
async fn a_pod_half_made_when_the_daemon_was_killed_is_taken_down() {
    let mut node = Node::start().await;
    let cri = node.cri();
    for seen in Seen::ALL {
        let starting = tokio::spawn({
            let cri = cri.clone();
            async move { cri.run_pod("web").await }
        });
        let began = Instant::now();
        while !seen.is_there(&node) && !starting.is_finished() {
            assert!(began.elapsed() < deadline(), "{seen:?} never appeared");
            tokio::task::yield_now().await;
        }
        node.kill();
        let answer = starting.await.unwrap();
        node.start_again().await;
        // It may have been whole just before: then it is listed, and removed as any other.
        for pod in cri.pods().await {
            assert!(
                answer.is_ok() || pod.state() == PodSandboxState::SandboxReady,
                "{seen:?}: {pod:?}"
            );
        }
        cri.remove_all_pods().await.unwrap();
        eventually(format!("nothing is left after a kill at {seen:?}"), || async {
            let more = node.on_host().diff(node.before());
            if more.0.is_empty() { Ok(()) } else { Err(more.to_string()) }
        })
        .await;
    }
    let _pod = cri.run_pod("web").await.unwrap();
}

#[tokio::test]
async fn a_daemon_killed_in_the_middle_of_stopping_finishes_it_later() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let stubborn =
        shell("main", &image, "trap '' TERM; echo trapped; while true; do sleep 1; done");
    let made = cri.run(&pod, stubborn).await;
    cri.prints(&made, "trapped").await;
    let stopping = tokio::spawn({
        let (cri, made) = (cri.clone(), made.clone());
        async move { cri.stop(&made, 600).await }
    });
    tokio::task::yield_now().await;
    node.kill();
    stopping.await.unwrap().unwrap_err();
    node.start_again().await;
    cri.stop(&made, 0).await.unwrap();
    assert_eq!(cri.status(&made).await.exit_code, 137);
}

#[tokio::test]
async fn a_pod_stopped_before_the_restart_stays_stopped() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run(&pod, shell("main", &image, "exit 4")).await;
    let status = cri.ended(&made).await;
    cri.stop_pod(&pod).await.unwrap();
    node.kill();
    node.start_again().await;
    assert_eq!(
        cri.pod_status(&pod).await.unwrap().status.unwrap().state(),
        PodSandboxState::SandboxNotready
    );
    assert_eq!(cri.status(&made).await, status);
    cri.remove_pod(&pod).await.unwrap();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn an_address_that_was_still_held_when_the_daemon_was_killed_is_given_back_by_the_next() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let pid = cri.pid(&made).await;
    // A process that enters the namespace keeps it, and the pod's link, beyond the answer to the stop.
    let visited = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    cri.stop_pod(&pod).await.unwrap();
    node.kill();
    let lease = node.state_dir().join("network").join(format!("{pod}.json"));
    assert!(lease.try_exists().unwrap(), "it was given back before the link had gone");
    node.start_again().await;
    eventually("the pod's address is given back", || async {
        if lease.try_exists().unwrap() {
            Err(format!("{} is there", lease.display()))
        } else {
            Ok(())
        }
    })
    .await;
    drop(visited);
    cri.remove_pod(&pod).await.unwrap();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_set_aside_and_the_rest_goes_on() {
    let mut node = Node::start().await;
    let (cri, good, image) = node.pod("good").await;
    let bad = cri.run_pod("bad").await.unwrap();
    let made = cri.run_idle(&bad, "main", &image).await;
    let pid = cri.pid(&made).await;
    node.kill();
    let record = node.state_dir().join("pods").join(format!("{bad}.json"));
    fs::write(&record, "{\"version\":1,\"record\":{\"id\":").unwrap();
    node.start_again().await;
    let listed: Vec<String> = cri.pods().await.into_iter().map(|pod| pod.id).collect();
    assert_eq!(listed, [good], "the daemon starts without the bad one");
    assert!(node.daemon_log().contains("set aside"), "no message about it");
    let aside: Vec<String> = hull_tests::shell::names(&node.state_dir().join("pods"));
    let aside: Vec<&String> =
        aside.iter().filter(|name| name.contains(&bad) && !name.ends_with(".json")).collect();
    assert_eq!(aside.len(), 1, "kept for a person to look at");
    eventually("what it stood for is swept", || async {
        if Path::new(&format!("/proc/{pid}")).is_dir() {
            Err("its container runs".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    fs::remove_file(node.state_dir().join("pods").join(aside[0])).unwrap();
}

#[tokio::test]
async fn what_nobody_has_a_record_of_is_swept() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let _made = cri.run_idle(&pod, "main", &image).await;
    node.kill();
    for dir in ["pods", "containers"] {
        for name in hull_tests::shell::names(&node.state_dir().join(dir)) {
            fs::remove_file(node.state_dir().join(dir).join(name)).unwrap();
        }
    }
    node.start_again().await;
    assert!(cri.pods().await.is_empty());
    node.nothing_is_left().await;
}

#[tokio::test]
async fn sigterm_lets_running_work_finish() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let ran = tokio::spawn({
        let (cri, made) = (cri.clone(), made.clone());
        async move { cri.exec(&made, &["sh", "-c", "touch /began; sleep 1; echo finished"]).await }
    });
    let root = format!("/proc/{}/root/began", cri.pid(&made).await);
    eventually("the exec has begun", || async {
        if Path::new(&root).symlink_metadata().is_ok() { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    node.terminate();
    assert_eq!(ran.await.unwrap().unwrap().stdout, "finished\n");
    node.start_again().await;
}

/// The kubelet's retry is answered by the start that is under way; there is never a second one.
#[tokio::test]
async fn a_start_that_the_daemon_did_not_live_to_answer_is_the_next_ones() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let container = cri.make(&pod, shell("main", &image, "exit 4")).await;
    let Some(cgroup) = node.v2_cgroup("a start joined after a restart") else { return };
    // Frozen from birth, so that execve is not reached before the daemon is gone.
    fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
    let starting = tokio::spawn({
        let (cri, container) = (cri.clone(), container.clone());
        async move { cri.start(&container).await }
    });
    let procs = cgroup.join(format!("pod{pod}/{container}/cgroup.procs"));
    eventually("its process is there", || async {
        let pids = fs::read_to_string(&procs).map_err(|err| err.to_string())?;
        if pids.is_empty() { Err("no process".to_owned()) } else { Ok(()) }
    })
    .await;
    node.kill();
    starting.await.unwrap().unwrap_err();
    node.start_again().await;
    let again = tokio::spawn({
        let (cri, container) = (cri.clone(), container.clone());
        async move { cri.start(&container).await }
    });
    // The start is sent first, on the same connection.
    tokio::task::yield_now().await;
    assert_eq!(cri.pods().await.len(), 1);
    fs::write(cgroup.join("cgroup.freeze"), "0").unwrap();
    again.await.unwrap().unwrap();
    assert_eq!(cri.ended(&container).await.exit_code, 4);
}

/// A client that is stopped, or waits for the daemon to end, does not answer its close.
#[tokio::test]
async fn a_silent_connection_does_not_keep_the_daemon_from_ending() {
    let mut node = Node::start().await;
    assert!(node.cri().pods().await.is_empty());
    let _silent = std::os::unix::net::UnixStream::connect(node.socket()).unwrap();
    node.terminate();
    let log = node.daemon_log();
    assert!(log.contains("ended; pods go on running"), "{log}");
    assert!(!log.contains("took longer"), "{log}");
}

#[tokio::test]
async fn images_are_there_after_a_restart_and_half_pulls_are_gone() {
    let mut node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    let id = cri.pull(&image).await.unwrap();
    let pulling = tokio::spawn({
        let (cri, nginx) = (cri.clone(), fixture::nginx());
        async move { cri.pull(&nginx).await }
    });
    let layers = node.data_dir().join("layers");
    eventually("the second pull has begun", || async {
        let names = hull_tests::shell::names(&layers);
        if names.len() > 1 || pulling.is_finished() { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    node.kill();
    let _answer = pulling.await.unwrap();
    node.start_again().await;
    let found = cri.image_status(&image).await.unwrap().unwrap();
    assert!(id == found.id || found.repo_digests.contains(&id), "{id} is {found:?}");
    let names = hull_tests::shell::names(&layers);
    assert!(!names.iter().any(|name| name.contains("tmp")), "half a layer is left: {names:?}");
    let again = cri.pull(&fixture::nginx()).await.unwrap();
    assert!(!again.is_empty());
}
