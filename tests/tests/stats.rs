// SPDX-License-Identifier: Apache-2.0
//! Statistics as the kubelet's summary and eviction read them: each number held against the kernel's own.

use hull_proto::cri as api;
use hull_tests::cri::{resources, shell};
use hull_tests::{Cri, ExpectExt as _, Node, eventually, host};
use std::fs;
use std::path::PathBuf;

async fn of_container(cri: &Cri, container: &str) -> api::ContainerStats {
    let request = api::ContainerStatsRequest { container_id: container.into() };
    let answer = cri.runtime.clone().container_stats(request).await.or_fail("ask for stats");
    answer.into_inner().stats.or_fail("read stats")
}

async fn of_pod(cri: &Cri, pod: &str) -> api::LinuxPodSandboxStats {
    let request = api::PodSandboxStatsRequest { pod_sandbox_id: pod.into() };
    let answer = cri.runtime.clone().pod_sandbox_stats(request).await.or_fail("ask for stats");
    answer.into_inner().stats.and_then(|stats| stats.linux).or_fail("read stats")
}

fn number(value: Option<api::UInt64Value>) -> u64 {
    value.or_fail("find a number").value
}

/// The directory of a process's cgroup in the hierarchy that has `file` in it.
fn cgroup_with(pid: i32, file: &str) -> Option<PathBuf> {
    let of = fs::read_to_string(format!("/proc/{pid}/cgroup")).or_fail("read a process's cgroups");
    let paths = of.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let paths: Vec<&str> = paths.map(|path| path.trim_start_matches('/')).collect();
    host::hierarchies()
        .into_iter()
        .flat_map(|top| paths.iter().map(move |path| top.join(path)))
        .find(|dir| dir.join(file).is_file())
}

#[tokio::test]
async fn pressure_is_told_of_pods_and_containers_where_the_kernel_counts_it() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let counted = cgroup_with(cri.pid(&made).await, "cpu.pressure").is_some();
    let (container, pod) = (of_container(&cri, &made).await, of_pod(&cri, &pod).await);
    let told = [
        container.cpu.or_fail("find cpu").psi,
        container.memory.or_fail("find memory").psi,
        container.io.and_then(|io| io.psi),
        pod.cpu.or_fail("find cpu").psi,
        pod.memory.or_fail("find memory").psi,
        pod.io.and_then(|io| io.psi),
    ];
    for psi in told {
        assert_eq!(psi.is_some(), counted, "{psi:?}");
        let Some(psi) = psi else { continue };
        assert!(psi.some.is_some() && psi.full.is_some(), "{psi:?}");
    }
}

#[tokio::test]
async fn cpu_per_second_is_known_at_the_first_time_it_is_asked_for() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = shell("busy", &image, "echo ready; while true; do :; done");
    // A tenth of a CPU.
    resources(&mut config).cpu_period = 100_000;
    resources(&mut config).cpu_quota = 10_000;
    let made = cri.run(&pod, config).await;
    cri.prints(&made, "ready").await;
    let rate = eventually("it has used some CPU", || async {
        let cpu = of_container(&cri, &made).await.cpu.or_fail("find cpu");
        let rate = number(cpu.usage_nano_cores);
        if number(cpu.usage_core_nano_seconds) > 0 { Ok(rate) } else { Err(format!("{cpu:?}")) }
    })
    .await;
    assert!(rate > 0, "a rate needs an earlier sample");
    // A request for the pod a moment later returns no less for the container.
    let again = of_pod(&cri, &pod).await.containers.remove(0).cpu.or_fail("find cpu");
    assert!(number(again.usage_nano_cores) > 0, "{again:?}");
}

#[tokio::test]
async fn memory_is_counted_as_eviction_wants_it() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "x=$(head -c 9000000 /dev/zero | tr '\\0' a); head -c 20000000 /dev/zero > /file; \
                  cat /file > /dev/null; echo ready; while true; do sleep 1000; done";
    let mut config = shell("main", &image, script);
    resources(&mut config).memory_limit_in_bytes = 256 << 20;
    let made = cri.run(&pod, config).await;
    cri.prints(&made, "ready").await;
    let memory = of_container(&cri, &made).await.memory.or_fail("find memory");
    let (usage, working_set) = (number(memory.usage_bytes), number(memory.working_set_bytes));
    let rss = number(memory.rss_bytes);
    assert!((9_000_000..25_000_000).contains(&rss), "anonymous memory, without files: {rss}");
    assert!(working_set >= rss, "{working_set} {rss}");
    assert_eq!(number(memory.available_bytes), (256 << 20) - working_set);
    // Memory that the kernel could drop at once counts as used, but is not a reason to evict anybody.
    let pid = cri.pid(&made).await;
    let dir = cgroup_with(pid, "memory.stat").or_fail("find its memory cgroup");
    let stat = fs::read_to_string(dir.join("memory.stat")).or_fail("read memory.stat");
    let inactive = stat.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        matches!(key, "total_inactive_file" | "inactive_file").then(|| value.parse::<u64>().ok())?
    });
    let inactive = inactive.or_fail("find the inactive page cache");
    let off = (usage - working_set).abs_diff(inactive);
    assert!(off < 2 << 20, "usage {usage}, working set {working_set}, inactive {inactive}");
}

#[tokio::test]
async fn the_writable_layer_is_measured_in_bytes_and_inodes_and_shrinks_again() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let layer = || async {
        let layer = of_container(&cri, &made).await.writable_layer.or_fail("find the layer");
        assert!(layer.timestamp > 0);
        (number(layer.used_bytes), number(layer.inodes_used))
    };
    let before = layer().await;
    let script = "mkdir /d && for i in $(seq 50); do echo x > /d/$i; done; head -c 3000000 /dev/urandom > /d/big; sync";
    assert_eq!(cri.exec(&made, &["sh", "-c", script]).await.unwrap().code, 0);
    eventually("what was written is counted", || async {
        let (bytes, inodes) = layer().await;
        let grown = (bytes - before.0, inodes - before.1);
        if grown.0 >= 3_000_000 && grown.1 == 52 { Ok(()) } else { Err(format!("{grown:?}")) }
    })
    .await;
    assert_eq!(cri.exec(&made, &["rm", "-r", "/d"]).await.unwrap().code, 0);
    eventually("what was removed is not", || async {
        let now = layer().await;
        if now == before { Ok(()) } else { Err(format!("{now:?}, before {before:?}")) }
    })
    .await;
}

#[tokio::test]
async fn every_interface_of_a_pod_is_listed_and_the_default_one_also_by_itself() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let inside = cri.pid(&made).await;
    // As a network plugin adds further ones.
    let add = format!("link add extra netns {inside} type veth peer name other netns {inside}");
    let _said = hull_tests::shell::run("ip", add.split(' ')).good();
    let network = of_pod(&cri, &pod).await.network.or_fail("find the network");
    assert_eq!(network.default_interface.or_fail("find the default interface").name, "eth0");
    let mut names: Vec<_> = network.interfaces.iter().map(|of| of.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["eth0", "extra", "other"], "all but loopback");
    assert!(network.interfaces.iter().all(|of| of.rx_bytes.is_some() && of.tx_errors.is_some()));
}
