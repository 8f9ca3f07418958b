// SPDX-License-Identifier: Apache-2.0
//! `make bench-vm`: what a pod's life takes with each cgroup driver that this machine has, side by
//! side, and what asking systemd costs. `cri-bench` measures; this starts a node for each driver.
//!
//! It also counts what one scope per pod saves: with [`PODS`] pods up, the time that their scopes took is
//! in the daemon's log, and a scope per container would be asked for as often again for every container.

use hull_tests::node::Driver;
use hull_tests::shell::say;
use hull_tests::{ExpectExt as _, Node, fixture, paths};
use std::path::Path;
use std::process::{Command, ExitCode};

/// As many as small nodes have.
const PODS: usize = 50;

fn main() -> ExitCode {
    let more: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.or_fail("make a runtime").block_on(measure(&more))
}

async fn measure(more: &[String]) -> ExitCode {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").is_file();
    say(if v2 { "cgroup v2" } else { "cgroup v1" });
    let with_systemd = v2 && Path::new("/run/systemd/system").is_dir();
    let mut nodes = vec![("cgroupfs", Node::start_under(Driver::Cgroupfs, "").await)];
    if with_systemd {
        nodes.push(("systemd", Node::start_under(Driver::Systemd, "").await));
    }
    let mut bench = Command::new(paths::target().join("release/cri-bench"));
    bench.args(["--image", &fixture::busybox()]);
    for (label, node) in &nodes {
        let parent = match *label {
            "systemd" => node.names().cgroup.trim_start_matches('/').to_owned(),
            _ => node.names().cgroup.clone(),
        };
        bench.arg("--endpoint").arg(node.socket());
        bench.args(["--label", label, "--cgroup-parent", &parent]);
    }
    let ended = bench.args(more).status().or_fail("run cri-bench (`make bench-vm` builds it)");
    if let Some((_, node)) = nodes.iter().find(|(label, _)| *label == "systemd") {
        scopes(node).await;
    }
    if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Starts pods, and tells what their scopes took.
async fn scopes(node: &Node) {
    let cri = node.cri();
    let image = fixture::busybox();
    let _id = cri.pull(&image).await.or_fail("pull busybox");
    let before = waits(node).len();
    for number in 0..PODS {
        let pod = cri.run_pod(&format!("pod-{number}")).await.or_fail("run a pod");
        let _made = cri.run_idle(&pod, "main", &image).await;
    }
    let mut waits = waits(node).split_off(before);
    waits.sort_unstable();
    let all: u64 = waits.iter().sum();
    let median = waits.get(waits.len() / 2).copied().unwrap_or_default();
    say(&format!(
        "{PODS} pods of one container: {} scopes, {} ms of waiting for systemd in all, median {median} us. A \
         scope for every container besides would be as many again.",
        waits.len(),
        all / 1000,
    ));
}

/// Microseconds that each pod's cgroup took so far, as the daemon logs it.
fn waits(node: &Node) -> Vec<u64> {
    let log = node.daemon_log();
    let lines =
        log.lines().filter(|line| line.contains("part done") && line.contains("\"cgroup\""));
    let took = |line: &str| {
        let value = line.split("took_us=").nth(1)?;
        value.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    lines.filter_map(took).collect()
}
