// SPDX-License-Identifier: Apache-2.0
//! Each part of a pod that can hang, under each verb that docs/security.md lists for it: the verb ends within its
//! bound with the code that stands there, another pod lives its whole life meanwhile, and once the part goes on nothing
//! is left.
//!
//! Each verb has a pod of its own whose part hangs, so that all of them are waited for side by side.

use crate::table::{self, Bound};
use hull_proto::cri as api;
use hull_tests::cri::{idle, mount};
use hull_tests::eventually::with_long_timeout;
use hull_tests::storage::{Hang, Storage};
use hull_tests::{Cri, ExpectExt as _, Node, fixture, host};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Time limits and grace periods of requests.
const TIMEOUT_S: i64 = 2;
/// On top of each bound, for a busy machine, and for settings that are longer than `TIMEOUT_S`.
const SLACK: Duration = Duration::from_secs(10);

/// A pod whose part will hang.
struct Victim {
    verb: Bound,
    pod: String,
    /// A container that runs.
    main: String,
    /// A container that is created.
    next: String,
    logs: PathBuf,
    /// Mounted in both, where that is the part.
    storage: Option<Storage>,
    volume: Option<PathBuf>,
}

/// Keeps a part hanging. Dropped, the part goes on, also when the test fails.
struct Hung(Option<Box<dyn FnOnce() + Send>>);

impl Hung {
    fn until(go_on: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(go_on)))
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        if let Some(go_on) = self.0.take() {
            go_on();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_ends_while_a_monitor_hangs() {
    let node = Node::start().await;
    run(&node, "monitor", |victim| {
        let stopped = crate::stop_monitor(&victim.pod);
        Hung::until(move || {
            // It may have been killed meanwhile.
            let _ended = kill(stopped, Signal::SIGCONT);
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_ends_while_a_pause_process_hangs() {
    let node = Node::start().await;
    run(&node, "pause process", |victim| {
        let stopped = pause_of(&node, &victim.pod);
        kill(stopped, Signal::SIGSTOP).or_fail("stop the pause process");
        Hung::until(move || {
            // It may have been killed meanwhile.
            let _ended = kill(stopped, Signal::SIGCONT);
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_ends_while_a_container_is_frozen() {
    let node = Node::start().await;
    run(&node, "frozen container", |victim| {
        let (file, on, off) = freezer(&node, victim);
        fs::write(&file, on).or_fail("freeze a container");
        Hung::until(move || drop(fs::write(&file, off)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_ends_while_the_file_system_of_a_volume_does_not_answer() {
    volumes(Hang::Unread).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_ends_while_the_file_system_of_a_volume_holds_requests() {
    volumes(Hang::Held).await;
}

async fn volumes(how: Hang) {
    let node = Node::start_with("[runtime]\nlaunch_timeout_s = 5\n").await;
    run(&node, "storage of a volume", |victim| {
        let mut storage = victim.storage.take().or_fail("find the volume");
        storage.hang(how);
        Hung::until(move || storage.die())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_ends_while_the_file_system_of_the_logs_does_not_answer() {
    let node = Node::start().await;
    run(&node, "storage of the logs", |victim| {
        let Some(mut storage) = Storage::mount("logs that hang", &victim.logs) else {
            return Hung(None);
        };
        storage.hang(Hang::Held);
        Hung::until(move || storage.die())
    })
    .await;
}

/// Makes the victims, hangs what `hang` says of each, and judges.
async fn run(node: &Node, part: &str, hang: impl Fn(&mut Victim) -> Hung) {
    let (cri, image) = (node.cri(), fixture::busybox());
    let _id = cri.pull(&image).await.or_fail("pull busybox");
    let mut victims = Vec::new();
    for (number, verb) in table::of(part).into_iter().enumerate() {
        let Some(made) = victim(node, &image, number, verb).await else { return };
        victims.push(made);
    }
    let hung: Vec<Hung> = victims.iter_mut().map(hang).collect();
    let is_over = AtomicBool::new(false);
    let all = async {
        let all = victims.iter().map(|victim| judged(&cri, &image, victim));
        let wrong = futures_util::future::join_all(all).await;
        is_over.store(true, Ordering::Relaxed);
        wrong
    };
    let (wrong, lives) = tokio::join!(all, lives(&cri, &image, &is_over));
    drop(hung);
    println!("{part}: {} verbs, {lives} lives of other pods meanwhile", wrong.len());
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "while the {part} hangs: {wrong:#?}");
    let removed = victims.iter().map(|victim| cri.remove_pod(&victim.pod));
    for removed in futures_util::future::join_all(removed).await {
        removed.or_fail("remove a pod whose part goes on");
    }
    node.nothing_is_left().await;
}

async fn victim(node: &Node, image: &str, number: usize, verb: Bound) -> Option<Victim> {
    let cri = node.cri();
    let config = cri.pod_config(&format!("hung{number}"));
    let logs = PathBuf::from(&config.log_directory);
    let pod = cri.run_pod_with(config).await.or_fail("run a pod");
    let (mut main, mut next) = (idle("main", image), idle("next", image));
    let (mut storage, mut volume) = (None, None);
    if verb.part == "storage of a volume" {
        let at = node.host_dir().join(format!("volume{number}"));
        let mounted = Storage::mount("volumes that hang", &at)?;
        for config in [&mut main, &mut next] {
            config.mounts.push(mount(&at, "/volume"));
        }
        next.working_dir = "/volume".into();
        (storage, volume) = (Some(mounted), Some(at));
    }
    let main = cri.run(&pod, main).await;
    cri.catches_term(&main).await;
    let next = cri.make(&pod, next).await;
    Some(Victim { verb, pod, main, next, logs, storage, volume })
}

/// The fault in how a verb ended, if any.
async fn judged(cri: &Cri, image: &str, victim: &Victim) -> Option<String> {
    let Victim { verb, .. } = victim;
    let bound = with_long_timeout(verb.with(Duration::from_secs(TIMEOUT_S.unsigned_abs())));
    let began = Instant::now();
    let answer = call(cri, image, victim).await;
    let took = began.elapsed();
    let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
    println!("{}, {}: {answer:?} after {took:?}", verb.part, verb.verb);
    let name = &verb.verb;
    if !verb.allows(code) {
        return Some(format!("{name}: {answer:?}, not {}", verb.reads));
    }
    let is_late = took > bound + with_long_timeout(SLACK);
    is_late.then(|| format!("{name} took {took:?}, its bound is {bound:?}"))
}

async fn call(cri: &Cri, image: &str, victim: &Victim) -> Result<(), Status> {
    let Victim { verb, pod, main, next, volume, .. } = victim;
    let command: &[&str] =
        if verb.part == "storage of a volume" { &["/volume/program"] } else { &["echo", "on"] };
    let container_id = main.clone();
    let mut runtime = cri.runtime.clone();
    match verb.verb.as_str() {
        "CreateContainer" => {
            let mut config = idle("late", image);
            if let Some(volume) = volume {
                // The root of a mount is known; what lies below it is looked up.
                config.mounts.push(mount(&volume.join("below"), "/volume"));
            }
            cri.create(pod, config).await.map(drop)
        }
        "StartContainer" => cri.start(next).await,
        "ExecSync" => cri.exec_for(main, command, TIMEOUT_S).await.map(drop),
        "ExecSync without a timeout" => cri.exec_for(main, command, 0).await.map(drop),
        "UpdateContainerResources" => {
            let linux = api::LinuxContainerResources {
                memory_limit_in_bytes: 96 << 20,
                ..Default::default()
            };
            let request = api::UpdateContainerResourcesRequest {
                container_id,
                linux: Some(linux),
                ..Default::default()
            };
            runtime.update_container_resources(request).await.map(drop)
        }
        "ReopenContainerLog" => runtime
            .reopen_container_log(api::ReopenContainerLogRequest { container_id })
            .await
            .map(drop),
        "ContainerStatus" => cri.inspect(main).await.map(drop),
        "ContainerStats" => {
            runtime.container_stats(api::ContainerStatsRequest { container_id }).await.map(drop)
        }
        "PodSandboxStats" => {
            let request = api::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
            runtime.pod_sandbox_stats(request).await.map(drop)
        }
        "ListContainers" => {
            runtime.list_containers(api::ListContainersRequest::default()).await.map(drop)
        }
        "Exec" => {
            let cmd = vec!["echo".into()];
            let request =
                api::ExecRequest { container_id, cmd, stdout: true, ..Default::default() };
            runtime.exec(request).await.map(drop)
        }
        "Attach" => {
            let request = api::AttachRequest { container_id, stdout: true, ..Default::default() };
            runtime.attach(request).await.map(drop)
        }
        "StopContainer" => cri.stop(main, TIMEOUT_S).await,
        "RemoveContainer" => cri.remove(main).await,
        "StopPodSandbox" => cri.stop_pod(pod).await,
        "RemovePodSandbox" => cri.remove_pod(pod).await,
        other => panic!("no case for {other}"),
    }
}

/// Whole lives of another pod until it is over; how many there were.
async fn lives(cri: &Cri, image: &str, is_over: &AtomicBool) -> u32 {
    let mut lives = 0;
    while lives == 0 || !is_over.load(Ordering::Relaxed) {
        let pod = cri.run_pod("neighbour").await.or_fail("run another pod");
        let made = cri.run_idle(&pod, "main", image).await;
        let ran = cri.exec_for(&made, &["echo", "on"], 20).await.or_fail("exec in another pod");
        assert_eq!(ran.stdout, "on\n");
        cri.stop(&made, 5).await.or_fail("stop a container of another pod");
        cri.remove(&made).await.or_fail("remove a container of another pod");
        cri.stop_pod(&pod).await.or_fail("stop another pod");
        cri.remove_pod(&pod).await.or_fail("remove another pod");
        lives += 1;
    }
    lives
}

fn pod_group(node: &Node, pod: &str) -> PathBuf {
    host::freezer_group(&node.names().cgroup, pod)
}

fn pause_of(node: &Node, pod: &str) -> Pid {
    let procs = pod_group(node, pod).join(pod).join("cgroup.procs");
    let text = fs::read_to_string(&procs).or_fail(format!("read {}", procs.display()));
    let pid = text.lines().next().and_then(|line| line.parse().ok());
    Pid::from_raw(pid.or_fail(format!("find pause in {}", procs.display())))
}

/// The file that freezes the running container, and what stops and starts it.
fn freezer(node: &Node, victim: &Victim) -> (PathBuf, &'static str, &'static str) {
    host::freezer_of(&pod_group(node, &victim.pod).join(&victim.main))
}
