// SPDX-License-Identifier: Apache-2.0
//! The benchmark in its quick size against a node of the test's own: every work gives figures, and what
//! is measured are containers with all of their isolation.

use cri_bench::isolation::{self, MissingIsolation};
use cri_bench::target::{Endpoint, Network, Target};
use cri_bench::work::Work;
use hull_proto::cri::LinuxContainerResources;
use hull_tests::cri::{pod_security, resources, security};
use hull_tests::{ExpectExt as _, Node, fixture, shell};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::process::Command;

/// Runs `cri-bench` against the node. When it asks for a restart, the node is restarted.
async fn bench(node: &mut Node, args: &[&str]) -> (Value, String) {
    let dir = node.host_dir();
    let (json, asked, done) = (dir.join("figures.json"), dir.join("asked"), dir.join("done"));
    let _made = shell::run("mkfifo", [&asked, &done]).good();
    // For reading and writing: so it is never at its end, and opening does not wait.
    let options = pipe::OpenOptions::new().read_write(true).clone();
    let mut requests = options.open_receiver(&asked).or_fail("open a pipe");
    let mut answers = options.open_sender(&done).or_fail("open a pipe");
    let restart = format!("echo > {}; read -r word < {}", asked.display(), done.display());

    let mut command = Command::new(env!("CARGO_BIN_EXE_cri-bench"));
    command.args(["--label", "hull", "--quick", "--image", &fixture::busybox(), "--endpoint"]);
    command.arg(node.socket()).args(["--restart", &restart, "--json"]).arg(&json).args(args);
    let ran = command.output();
    tokio::pin!(ran);
    let ran = loop {
        let mut byte = [0];
        tokio::select! {
            ran = &mut ran => break ran.or_fail("run cri-bench"),
            read = requests.read(&mut byte) => {
                let _one = read.or_fail("read a request");
                node.restart().await;
                answers.write_all(b"\n").await.or_fail("answer");
            }
        }
    };
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{}: {said}{complaints}", ran.status);
    let figures = std::fs::read(&json).or_fail("read the figures");
    (serde_json::from_slice(&figures).or_fail("read the figures"), said)
}

async fn target(node: &Node) -> Target {
    let endpoint = Endpoint {
        label: "hull".into(),
        socket: node.socket(),
        cgroups: Vec::new(),
        cgroup_parent: node.names().cgroup.clone(),
        restart: None,
    };
    Target::open(endpoint, &node.host_dir(), &fixture::busybox()).await.or_fail("open the target")
}

#[tokio::test]
async fn every_work_gives_figures_and_leaves_nothing() {
    let mut node = Node::start().await;
    let charts = node.host_dir().join("charts");
    let pods = node.names().cgroup.clone();
    let cgroups = format!("{},{pods}", node.names().daemon_cgroup);
    // The cgroup is there from the first pod on.
    let _image = node.cri().pull(&fixture::busybox()).await.or_fail("pull busybox");
    let pod = node.cri().run_pod("first").await.or_fail("run a pod");
    node.cri().stop_pod(&pod).await.or_fail("stop a pod");
    node.cri().remove_pod(&pod).await.or_fail("remove a pod");

    let (told, said) = bench(
        &mut node,
        &[
            "--cgroup",
            &cgroups,
            "--cgroup-parent",
            &pods,
            "--pull-image",
            &fixture::coreutils(),
            "--svg",
            &charts.display().to_string(),
        ],
    )
    .await;
    let results = told["results"].as_array().unwrap();
    for work in Work::ALL {
        let of_hull = |result: &Value| {
            result["work"] == work.name()
                && result["targets"][0]["label"] == "hull"
                && result["targets"][0]["p50"].is_number()
        };
        assert!(results.iter().any(of_hull), "no figures of {work:?} in {told:#}");
        assert!(said.contains(work.name()), "no row of {work:?} in {said}");
    }
    for metric in ["pod up", "ExecSync true"] {
        let result = results.iter().find(|row| row["metric"] == metric);
        let floor = &result.or_fail(format!("find {metric}"))["targets"][1];
        assert_eq!(floor["label"], "kernel floor", "{told:#}");
    }
    assert_eq!(told["notes"], serde_json::json!([]), "{told:#}");
    assert_eq!(shell::names(&charts).len(), results.len(), "a chart for each metric");
    assert!(node.cri().pods().await.is_empty());
}

/// Containers that are measured have all isolation that was requested: no runtime is fast because it leaves some out.
#[tokio::test]
async fn the_containers_that_are_measured_are_isolated() {
    let node = Node::start().await;
    let target = target(&node).await;
    assert_eq!(
        isolation::check(&target).await.or_fail("read the isolation"),
        MissingIsolation::default()
    );
}

/// The check sees missing isolation, or it would be worth nothing.
#[tokio::test]
async fn a_container_that_is_not_isolated_is_seen() {
    let node = Node::start().await;
    let target = target(&node).await;
    let mut config = target.pod_config(Network::Pod);
    pod_security(&mut config).privileged = true;
    let pod = node.cri().run_pod_with(config).await.or_fail("run a pod");
    let mut config = target.idle("bare", Network::Pod);
    *resources(&mut config) = LinuxContainerResources::default();
    security(&mut config).privileged = true;
    let container = target.create(&pod, config).await.or_fail("create");
    target.start(&container).await.or_fail("start");
    let missing =
        isolation::of_process(node.cri().pid(&container).await).or_fail("read the isolation");
    for what in ["a seccomp filter", "/proc/sys read-only"] {
        assert!(missing.0.contains(what), "{missing:?} has not {what:?}");
    }
    for what in ["a mask on", "the memory limit", "the CPU limit", "dropped capabilities"] {
        assert!(missing.0.iter().any(|part| part.starts_with(what)), "{missing:?}: {what:?}");
    }
}
