// SPDX-License-Identifier: Apache-2.0
//! The first commands of a new user, where they go wrong: without root, with a typing error, beside a daemon that is
//! just stopping, and `run --rm -d`.

use hull_tests::shell::{Ran, finish};
use hull_tests::{ExpectExt as _, Node, eventually, fixture, paths};
use std::os::unix::net::UnixStream;
use std::process::Command;

/// Runs hull as a user without rights.
fn as_nobody(args: &[&str]) -> Ran {
    let dir = tempfile::tempdir().or_fail("make a directory");
    // The folders above the built program may be root's alone.
    let program = dir.path().join("hull");
    let copied = std::fs::copy(paths::hull(), &program);
    copied.or_fail("copy the program");
    let _said =
        hull_tests::shell::run("chmod", ["-R", "a+rX", &dir.path().to_string_lossy()]).good();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(args);
    finish(&mut command)
}

#[tokio::test]
async fn without_root_every_command_says_what_it_needs() {
    let node = Node::start().await;
    let socket = node.socket().display().to_string();
    let ran = as_nobody(&["--socket", &socket, "version"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("daemon: unknown, because only root may use"), "{ran:?}");
    let ran = as_nobody(&["--socket", &socket, "ps"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("hint: run it as root"), "{ran:?}");
    let state = node.host_dir().display().to_string();
    let ran = as_nobody(&["serve", "--state-dir", &state]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("cannot serve as user 65534: only root can run containers"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("hint: run it with sudo"), "{ran:?}");
}

#[tokio::test]
async fn typing_errors_are_told_before_anything_is_done() {
    let node = Node::start().await;
    for image in ["example.org/UPPER/x", "", "busybox:", "a//b"] {
        let ran = node.hull(&["pull", image]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.starts_with("error: "), "{image}: {ran:?}");
        assert!(!ran.stderr.contains("``") || image.is_empty(), "{image}: {ran:?}");
    }
    let ran = node.hull(&["run", "--rm", "-m", "100", &fixture::busybox(), "true"]);
    assert_eq!(ran.code, 125, "{ran:?}");
    assert!(ran.stderr.contains("`100m` is 100 MiB") && !ran.stderr.contains("1 MiB`"), "{ran:?}");
    for args in
        [&["ctr", "--help"][..], &["ctr"], &["ctr", "images", "--help"], &["containerd", "--help"]]
    {
        let ran = finish(Command::new(paths::hull()).args(["--socket", "/nonexistent"]).args(args));
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        assert!(ran.stdout.contains("Usage:"), "{args:?}: {ran:?}");
    }
    let ran = node.hull(&["ctr", "-n", "k8s.io"]);
    assert!(ran.code != 0 && !ran.stderr.contains("``"), "{ran:?}");
}

#[tokio::test]
async fn the_daemon_removes_a_detached_pod_that_is_to_be_removed() {
    let mut node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let gone = |what: &'static str| {
        let cri = node.cri();
        async move {
            eventually(what, || async {
                let pods = cri.pods().await;
                if pods.is_empty() { Ok(()) } else { Err(format!("{pods:?}")) }
            })
            .await;
        }
    };
    let logs = node.data_dir().join("run-logs");
    let left = || std::fs::read_dir(&logs).map_or(0, Iterator::count);
    let id = node.hull(&["run", "--rm", "-d", &image, "echo", "done"]).good();
    assert_eq!(id.trim().len(), 64, "{id}");
    gone("the pod is removed when its container has exited").await;
    assert_eq!(left(), 0, "its log is removed");
    // Stopped by a user.
    let _id = node.hull(&["run", "--rm", "-d", "--name", "web", &image, "sleep", "1000000"]).good();
    assert_eq!((cri.pods().await.len(), left()), (1, 1));
    let _stopped = node.hull(&["stop", "-t", "0", "web"]).good();
    gone("the pod is removed when it was stopped").await;
    // Exited while there was no daemon.
    let script = "until [ -e /go ]; do sleep 0.02; done";
    let run = ["run", "--rm", "-d", "--name", "waits", &image, "sh", "-c", script];
    let id = node.hull(&run).good().trim().to_owned();
    let pid = cri.pid(&id).await;
    node.kill();
    let root = format!("/proc/{pid}/root/go");
    std::fs::write(&root, "").or_fail("let the container exit");
    node.start_again().await;
    let cri = node.cri();
    eventually("the pod is removed by the next daemon", || async {
        let pods = cri.pods().await;
        if pods.is_empty() { Ok(()) } else { Err(format!("{pods:?}")) }
    })
    .await;
    // Others stay.
    let _id = node.hull(&["run", "-d", &image, "true"]).good();
    eventually("the container has exited", || async {
        let ps = node.hull(&["ps", "-a"]).good();
        if ps.to_lowercase().contains("exited") { Ok(()) } else { Err(ps) }
    })
    .await;
    assert_eq!(cri.pods().await.len(), 1);
    let _removed = node.hull(&["rm", "-f", "--all"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn callers_are_not_refused_while_the_daemon_finishes_its_calls() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let script = "touch /began; until [ -e /end ]; do sleep 0.02; done";
    let (of, container) = (cri.clone(), id.clone());
    let call = tokio::spawn(async move { of.exec(&container, &["sh", "-c", script]).await });
    eventually("the command runs", || async {
        let ran = cri.exec(&id, &["test", "-e", "/began"]).await;
        if ran.is_ok_and(|ran| ran.code == 0) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let root = format!("/proc/{}/root", cri.pid(&id).await);
    let _sent = hull_tests::shell::run("kill", ["-TERM", &node.daemon_pid().to_string()]).good();
    eventually("the daemon is stopping", || async {
        let log = node.daemon_log();
        if log.contains("shutdown requested") { Ok(()) } else { Err(log) }
    })
    .await;
    let waits = UnixStream::connect(node.socket());
    assert!(waits.is_ok(), "a caller that comes now is not refused: {waits:?}");
    std::fs::write(format!("{root}/end"), "").or_fail("let the command end");
    assert_eq!(call.await.or_fail("join").or_fail("the call is finished").code, 0);
    drop(waits);
    node.terminate();
    node.start_again().await;
    assert_eq!(node.cri().pods().await.len(), 1);
}
