// SPDX-License-Identifier: Apache-2.0
//! The cost of a part that hangs for other pods: medians of their verbs beside each such part, as ratios to those beside none,
//! in one run. Every day it only runs; `make adversary` judges it, over enough repetitions that a busy moment does not count.

use hull_tests::cri::{idle, mount};
use hull_tests::storage::{Hang, Storage};
use hull_tests::{Cri, ExpectExt as _, Node, host};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// Most that a median may grow by a part that hangs.
const RATIO_MAX: f64 = 2.0;
/// Repetitions that are judged.
const REPETITIONS: usize = 40;

const VERBS: [&str; 3] = ["RunPodSandbox", "ExecSync", "StopPodSandbox and RemovePodSandbox"];
const PARTS: [&str; 5] = ["nothing", "monitor", "pause process", "container", "volume"];

/// A node with one part that hangs, and a healthy container beside it.
struct Bed {
    part: &'static str,
    cri: Cri,
    victim: String,
    healthy: String,
    storage: Option<Storage>,
    stopped: Option<Pid>,
    frozen: Option<(PathBuf, &'static str)>,
    /// By verb, in milliseconds.
    took: [Vec<f64>; VERBS.len()],
    node: Node,
}

impl Bed {
    async fn make(part: &'static str) -> Option<Self> {
        let node = Node::start().await;
        let (cri, pod, image) = node.pod("victim").await;
        let mut config = idle("main", &image);
        let mut storage = None;
        if part == "volume" {
            let at = node.host_dir().join("volume");
            storage = Some(Storage::mount("a volume that hangs", &at)?);
            config.mounts.push(mount(&at, "/volume"));
        }
        let victim = cri.run(&pod, config).await;
        let other = cri.run_pod("healthy").await.or_fail("run a pod");
        let healthy = cri.run_idle(&other, "main", &image).await;
        let mut bed = Self {
            part,
            cri,
            victim,
            healthy,
            storage,
            stopped: None,
            frozen: None,
            took: Default::default(),
            node,
        };
        bed.hang(&pod);
        Some(bed)
    }

    fn hang(&mut self, pod: &str) {
        let all = host::hierarchies();
        let root = all.iter().find(|at| at.ends_with("freezer")).unwrap_or(&all[0]);
        let group = root.join(self.node.names().cgroup.trim_start_matches('/'));
        let group = group.join(format!("pod{pod}"));
        match self.part {
            "monitor" => self.stop(host::monitor_of(pod)),
            "pause process" => {
                let text = fs::read_to_string(group.join(pod).join("cgroup.procs"));
                let text = text.or_fail("read the pause process's cgroup");
                let pid = text.lines().next().and_then(|line| line.parse().ok());
                self.stop(Pid::from_raw(pid.or_fail("find the pause process")));
            }
            "container" => {
                let dir = group.join(&self.victim);
                let v1 = dir.join("freezer.state");
                let (file, on, off) = if v1.is_file() {
                    (v1, "FROZEN", "THAWED")
                } else {
                    (dir.join("cgroup.freeze"), "1", "0")
                };
                fs::write(&file, on).or_fail("freeze the container");
                self.frozen = Some((file, off));
            }
            "volume" => self.storage.as_ref().or_fail("find the volume").hang(Hang::Held),
            _ => {}
        }
    }

    fn stop(&mut self, pid: Pid) {
        kill(pid, Signal::SIGSTOP).or_fail("stop a process");
        self.stopped = Some(pid);
    }

    async fn measure(&mut self) {
        let began = Instant::now();
        let pod = self.cri.run_pod("measured").await.or_fail("run a pod");
        self.took[0].push(began.elapsed().as_secs_f64() * 1000.0);
        let began = Instant::now();
        self.cri.exec_for(&self.healthy, &["true"], 20).await.or_fail("exec");
        self.took[1].push(began.elapsed().as_secs_f64() * 1000.0);
        let began = Instant::now();
        self.cri.stop_pod(&pod).await.or_fail("stop a pod");
        self.cri.remove_pod(&pod).await.or_fail("remove a pod");
        self.took[2].push(began.elapsed().as_secs_f64() * 1000.0);
    }
}

impl Drop for Bed {
    /// Lets the part go on, so that the node can be cleared.
    fn drop(&mut self) {
        drop(self.storage.take());
        if let Some(pid) = self.stopped {
            // It may have been killed meanwhile.
            let _ended = kill(pid, Signal::SIGCONT);
        }
        if let Some((file, off)) = &self.frozen {
            drop(fs::write(file, off));
        }
    }
}

/// Asks for what hangs, again and again.
async fn ask(cri: &Cri, victim: &str, part: &str) -> Infallible {
    let command: &[&str] = if part == "volume" { &["/volume/program"] } else { &["echo", "on"] };
    if part == "nothing" {
        return std::future::pending().await;
    }
    loop {
        // What comes of it is for other tests.
        let _ended = cri.exec_for(victim, command, 1).await;
    }
}

fn median(took: &[f64]) -> f64 {
    let mut sorted = took.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_part_that_hangs_makes_other_pods_slower() {
    let is_judged = std::env::var_os("ADVERSARY_ROUNDS").is_some();
    let mut beds = Vec::new();
    for part in PARTS {
        let Some(bed) = Bed::make(part).await else { return };
        beds.push(bed);
    }
    // In turns, so that whatever else the machine does hits all alike.
    for _ in 0..if is_judged { REPETITIONS } else { 3 } {
        for bed in &mut beds {
            let (cri, victim, part) = (bed.cri.clone(), bed.victim.clone(), bed.part);
            tokio::select! {
                never = ask(&cri, &victim, part) => match never {},
                () = bed.measure() => {}
            }
        }
    }
    let mut wrong = Vec::new();
    for (verb, name) in VERBS.iter().enumerate() {
        let alone = median(&beds[0].took[verb]);
        for bed in &beds[1..] {
            let (beside, part) = (median(&bed.took[verb]), bed.part);
            let ratio = beside / alone;
            println!(
                "{name} beside a {part} that hangs: {beside:.1} ms, {alone:.1} ms beside none: {ratio:.2}"
            );
            if ratio > RATIO_MAX {
                wrong.push(format!("{name} beside a {part}: {ratio:.2}"));
            }
        }
    }
    drop(beds);
    assert!(!is_judged || wrong.is_empty(), "{wrong:?}");
}
