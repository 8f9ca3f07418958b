// SPDX-License-Identifier: Apache-2.0
//! `make bench`: how long the verbs of a pod's life take, and what its helpers weigh.
//!
//! It drives any CRI socket (`--endpoint`), so that peers are measured by the same driver; without one
//! it starts a node of its own. Times are what a kubelet waits for: from the request to the answer.

use hull_proto::cri::NamespaceMode;
use hull_tests::cri::{container, pod_namespaces, security};
use hull_tests::shell::{names, say};
use hull_tests::{Cri, Must as _, Node, fixture};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What was asked for on the command line.
struct Asked {
    endpoint: Option<PathBuf>,
    image: Option<String>,
    runs: usize,
    pods: usize,
    host_network: bool,
}

const USAGE: &str = "\
bench [--endpoint SOCKET] [--image REFERENCE] [--runs N] [--pods N] [--host-network]
  --endpoint      a CRI socket; without it a node of its own is started
  --image         an image with a shell; without it busybox from a registry on loopback
  --runs          lives of a pod to time (50)
  --pods          pods that are up while memory is measured (20)
  --host-network  pods on the host's network";

fn asked() -> Asked {
    let mut asked = Asked { endpoint: None, image: None, runs: 50, pods: 20, host_network: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().must(format!("find a value after {arg}; {USAGE}"));
        match arg.as_str() {
            "--endpoint" => asked.endpoint = Some(value().trim_start_matches("unix://").into()),
            "--image" => asked.image = Some(value()),
            "--runs" => asked.runs = value().parse().must("read --runs"),
            "--pods" => asked.pods = value().parse().must("read --pods"),
            "--host-network" => asked.host_network = true,
            _ => panic!("{USAGE}"),
        }
    }
    asked
}

fn main() {
    let asked = asked();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.must("make a runtime").block_on(async {
        let logs = std::env::temp_dir().join(format!("bench-logs-{}", std::process::id()));
        match &asked.endpoint {
            Some(socket) => bench(&Cri::at(socket, &logs), &asked, None).await,
            None => {
                let node = Node::start_with("").await;
                bench(&node.cri(), &asked, Some(node.daemon_pid())).await;
            }
        }
        drop(fs::remove_dir_all(logs));
    });
}

async fn bench(cri: &Cri, asked: &Asked, daemon: Option<i32>) {
    let image = asked.image.clone().unwrap_or_else(fixture::busybox);
    let _id = cri.pull(&image).await.must(format!("pull {image}"));
    let mut times = Times::default();
    for number in 0..asked.runs {
        one_life(cri, asked, &image, &format!("bench-{number}"), &mut times).await;
    }
    times.table(asked.runs);
    memory(cri, asked, &image, daemon).await;
}

async fn run_pod(cri: &Cri, asked: &Asked, name: &str) -> String {
    let mut config = cri.pod_config(name);
    if asked.host_network {
        config.hostname = String::new();
        pod_namespaces(&mut config).network = NamespaceMode::Node.into();
    }
    cri.run_pod_with(config).await.must("run a pod")
}

fn idle(asked: &Asked, image: &str) -> hull_proto::cri::ContainerConfig {
    let mut config = container("main", image, &["sleep", "100000"]);
    if asked.host_network {
        security(&mut config).namespace_options.get_or_insert_default().network =
            NamespaceMode::Node.into();
    }
    config
}

async fn one_life(cri: &Cri, asked: &Asked, image: &str, name: &str, times: &mut Times) {
    let began = Instant::now();
    let pod = times.of("RunPodSandbox", run_pod(cri, asked, name)).await;
    let create = async { cri.create(&pod, idle(asked, image)).await.must("create a container") };
    let made = times.of("CreateContainer", create).await;
    times.of("StartContainer", async { cri.start(&made).await.must("start a container") }).await;
    times.add("pod up (the three)", began.elapsed());
    for _ in 0..3 {
        let exec = async { cri.exec(&made, &["true"]).await.must("exec") };
        let ran = times.of("ExecSync true", exec).await;
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    times
        .of("StopContainer (kill)", async { cri.stop(&made, 0).await.must("stop a container") })
        .await;
    times.of("RemoveContainer", async { cri.remove(&made).await.must("remove a container") }).await;
    times.of("StopPodSandbox", async { cri.stop_pod(&pod).await.must("stop a pod") }).await;
    times.of("RemovePodSandbox", async { cri.remove_pod(&pod).await.must("remove a pod") }).await;
}

/// Durations by verb, in the order in which they first came.
#[derive(Default)]
struct Times(Vec<(&'static str, Vec<Duration>)>);

impl Times {
    async fn of<T>(&mut self, verb: &'static str, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        self.add(verb, began.elapsed());
        done
    }

    fn add(&mut self, verb: &'static str, took: Duration) {
        match self.0.iter_mut().find(|(known, _)| *known == verb) {
            Some((_, all)) => all.push(took),
            None => self.0.push((verb, vec![took])),
        }
    }

    fn table(&self, runs: usize) {
        say(&format!("{:<24} {:>9} {:>9} {:>9}   ({runs} runs, ms)", "verb", "p50", "p95", "max"));
        for (verb, all) in &self.0 {
            let mut sorted = all.clone();
            sorted.sort();
            let at = |percent: usize| {
                let index = (sorted.len() * percent / 100).min(sorted.len() - 1);
                sorted[index].as_secs_f64() * 1000.0
            };
            say(&format!("{verb:<24} {:>9.2} {:>9.2} {:>9.2}", at(50), at(95), at(100)));
        }
    }
}

/// What the helpers of pods that are up weigh.
async fn memory(cri: &Cri, asked: &Asked, image: &str, daemon: Option<i32>) {
    for number in 0..asked.pods {
        let pod = run_pod(cri, asked, &format!("weigh-{number}")).await;
        let made = cri.create(&pod, idle(asked, image)).await.must("create a container");
        cri.start(&made).await.must("start a container");
    }
    say(&format!(
        "\n{:<24} {:>9} {:>13}   (KiB each, {} pods up)",
        "process", "PSS", "private dirty", asked.pods
    ));
    for program in ["hull-monitor", "pause", "conmon", "containerd-shim"] {
        let weights: Vec<Weight> = pids(program).into_iter().filter_map(weigh).collect();
        if weights.is_empty() {
            continue;
        }
        let mean =
            |of: fn(&Weight) -> u64| weights.iter().map(of).sum::<u64>() / weights.len() as u64;
        let (pss, dirty) = (mean(|weight| weight.pss_kib), mean(|weight| weight.private_dirty_kib));
        say(&format!("{:<24} {pss:>9} {dirty:>13}", format!("{program} ({})", weights.len())));
    }
    if let Some(weight) = daemon.and_then(weigh) {
        say(&format!("{:<24} {:>9} {:>13}", "daemon", weight.pss_kib, weight.private_dirty_kib));
    }
    for pod in cri.pods().await {
        if pod.metadata.is_some_and(|metadata| metadata.name.starts_with("weigh-")) {
            cri.stop_pod(&pod.id).await.must("stop a pod");
            cri.remove_pod(&pod.id).await.must("remove a pod");
        }
    }
}

/// Processes that go by `program`: in their first argument, because one that was started from a memory
/// file has no program name, or in their name.
fn pids(program: &str) -> Vec<i32> {
    // The kernel cuts names to 15 letters.
    let short: String = program.chars().take(15).collect();
    let is_it = |pid: &i32| {
        let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let command = read("cmdline");
        let first = command.split('\0').next().unwrap_or_default();
        first.rsplit('/').next() == Some(program) || read("comm").trim() == short
    };
    names(Path::new("/proc")).iter().filter_map(|pid| pid.parse().ok()).filter(is_it).collect()
}

/// What a process holds of memory.
struct Weight {
    pss_kib: u64,
    private_dirty_kib: u64,
}

fn weigh(pid: i32) -> Option<Weight> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    Some(Weight { pss_kib: value("Pss:")?, private_dirty_kib: value("Private_Dirty:")? })
}
