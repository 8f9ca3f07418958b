// SPDX-License-Identifier: Apache-2.0
//! Clients that are at work while the daemon is replaced, and everything that must work after it.

use hull_proto::cri as api;
use hull_tests::cri::Cri;
use hull_tests::session::{self, Output};
use hull_tests::{ExpectExt as _, Node, eventually};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Longest that a session may outlive its daemon.
const OUTLIVES_MAX: Duration = Duration::from_secs(60);

/// The state of a pod and its containers that no replaced daemon changes.
#[derive(Debug)]
pub(crate) struct Known {
    pod: String,
    address: String,
    containers: Vec<(String, Facts)>,
}

/// Facts about a container.
#[derive(Debug, PartialEq)]
struct Facts {
    state: api::ContainerState,
    times: [i64; 3],
    exit_code: i32,
    pid: Option<i32>,
}

impl Facts {
    async fn of(cri: &Cri, id: &str) -> Self {
        let status = cri.status(id).await;
        let runs = status.state() == api::ContainerState::ContainerRunning;
        Self {
            state: status.state(),
            times: [status.created_at, status.started_at, status.finished_at],
            exit_code: status.exit_code,
            pid: if runs { Some(cri.pid(id).await) } else { None },
        }
    }
}

impl Known {
    pub(crate) async fn of(cri: &Cri, pod: &str, containers: &[&str]) -> Self {
        let mut known = Vec::new();
        for id in containers {
            known.push(((*id).to_owned(), Facts::of(cri, id).await));
        }
        Self { pod: pod.to_owned(), address: cri.pod_ip(pod).await, containers: known }
    }

    pub(crate) async fn is_unchanged(&self, cri: &Cri) {
        assert_eq!(cri.pod_ip(&self.pod).await, self.address);
        for (id, facts) in &self.containers {
            assert_eq!(Facts::of(cri, id).await, *facts, "{id}");
        }
    }
}

/// Sessions that are open.
#[derive(Debug)]
pub(crate) struct Sessions {
    exec: Output,
    /// Kept so that the exec's input stays open.
    _input: session::Input,
    logs: Child,
    followed: PathBuf,
    forward: Child,
}

impl Sessions {
    /// Opens an exec, a port-forward and a reader of the log, and waits until each of them works.
    pub(crate) async fn begin(node: &Node, counts: &str, pod: &str) -> Self {
        let cri = node.cri();
        let wait = ["sh", "-c", "echo up; exec sleep 86407.17"];
        let (input, mut exec) = session::exec(&cri, counts, &wait, false).await;
        let _up = exec.until("up").await;
        let followed = node.host_dir().join("followed");
        let output = File::options().write(true).create(true).truncate(true).open(&followed);
        let output = output.or_fail("make the file of the log's reader");
        let mut logs = node.hull_command(&["logs", "-f", counts]);
        let logs = logs.stdout(output).spawn().or_fail("follow the log");
        eventually("the log is followed", || async {
            let lines = fs::read_to_string(&followed).unwrap_or_default().lines().count();
            if lines > 10 { Ok(()) } else { Err(format!("{lines} lines")) }
        })
        .await;
        let forward = answers(node, pod).await;
        Self { exec, _input: input, logs, followed, forward }
    }

    /// Checks that the sessions are over, and that the reader of the log has missed no line.
    pub(crate) async fn end_with_the_daemon(mut self) {
        let over = tokio::time::timeout(OUTLIVES_MAX, self.exec.rest()).await;
        drop(over.or_fail("wait for the end of an exec whose daemon has ended"));
        for child in [&mut self.logs, &mut self.forward] {
            drop(child.kill());
            let _status = child.wait().or_fail("wait for a client");
        }
        let text = fs::read_to_string(&self.followed).or_fail("read what was followed");
        // The last line may be cut: its reader was killed.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for (at, line) in whole.lines().enumerate() {
            assert_eq!(line, format!("n{}", at + 1), "followed");
        }
    }
}

/// A port-forward to port 9000 of a pod, through which an answer came.
async fn answers(node: &Node, pod: &str) -> Child {
    let mut forward = node.hull_command(&["port-forward", pod, ":9000"]);
    let mut forward = forward.stdout(Stdio::piped()).spawn().or_fail("forward a port");
    let mut line = String::new();
    let output = forward.stdout.take().or_fail("find the output of the port-forward");
    let _bytes = BufReader::new(output).read_line(&mut line).or_fail("read where it listens");
    let address = line.split(' ').next().unwrap_or_default().trim().to_owned();
    eventually("the pod answers", || async {
        let mut text = String::new();
        let stream = TcpStream::connect(&address).map_err(|err| err.to_string())?;
        (&stream).read_to_string(&mut text).map_err(|err| err.to_string())?;
        if text == "answer\n" { Ok(()) } else { Err(format!("it said {text:?}")) }
    })
    .await;
    forward
}

/// Commands, statistics and a reopened log of a container, and a port-forward to its pod, of any release.
pub(crate) async fn everything_works(node: &Node, id: &str, pod: &str) {
    let cri = node.cri();
    let ran = cri.exec(id, &["sh", "-c", "echo out; echo err >&2; exit 4"]).await.unwrap();
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (4, "out\n", "err\n"));
    let request = api::ContainerStatsRequest { container_id: id.into() };
    let stats = cri.runtime.clone().container_stats(request).await.unwrap().into_inner().stats;
    let cpu = stats.or_fail("find statistics").cpu.or_fail("find CPU statistics");
    assert!(cpu.usage_core_nano_seconds.as_ref().is_some_and(|of| of.value > 0), "{cpu:?}");
    let (mut input, mut exec) = session::exec(&cri, id, &["cat"], false).await;
    assert!(input.send(session::STDIN, b"typed\n").await);
    let _typed = exec.until("typed").await;
    input.end(session::STDIN).await;
    assert_eq!(exec.rest().await.code(), Some(0));
    let mut forward = answers(node, pod).await;
    drop(forward.kill());
    let _status = forward.wait().or_fail("wait for the port-forward");
    let reopened = api::ReopenContainerLogRequest { container_id: id.into() };
    cri.runtime.clone().reopen_container_log(reopened).await.unwrap();
}
