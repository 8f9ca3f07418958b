// SPDX-License-Identifier: Apache-2.0
//! Killing and stopping what runs around the pods. Processes are held by a descriptor and looked at before a
//! signal is sent: nothing that is not the node's is ever hit.

use super::cycles::Tally;
use super::{Shared, registry};
use hull_tests::eventually::eventually_within;
use hull_tests::plugin::{Plugin, program};
use hull_tests::random::Random;
use hull_tests::registry::Registry;
use hull_tests::shell::names;
use hull_tests::{ExpectExt as _, Node};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long something is stopped at most.
const STOPPED_MAX_MS: usize = 400;

const FAULTS: [&str; 10] = [
    "daemon killed",
    "daemon stopped",
    "monitor killed",
    "monitor stopped",
    "pause killed",
    "container killed",
    "container stopped",
    "registry killed",
    "registry stopped",
    "plugin killed",
];

pub(super) struct Chaos {
    random: Random,
    shared: Arc<Shared>,
    registry: Registry,
    plugin: Option<Plugin>,
    counts: BTreeMap<&'static str, u32>,
}

impl Chaos {
    pub(super) fn new(random: Random, shared: Arc<Shared>, registry: Registry) -> Self {
        Self { random, shared, registry, plugin: None, counts: BTreeMap::new() }
    }

    pub(super) fn counts(&self) -> &BTreeMap<&'static str, u32> {
        &self.counts
    }

    /// Injects one fault, after so many pods more have come and gone, or all have.
    pub(super) async fn inject_after(
        &mut self,
        node: &mut Node,
        pods: u32,
        workers: &[JoinHandle<Tally>],
    ) {
        let until = self.shared.done.load(Ordering::SeqCst) + pods;
        eventually_within(Duration::from_secs(120), "more pods come and go", || async {
            let done = self.shared.done.load(Ordering::SeqCst);
            let is_over = workers.iter().all(|worker| worker.is_finished());
            if done >= until || is_over { Ok(()) } else { Err(format!("{done} of {until}")) }
        })
        .await;
        let fault = *self.random.pick(&FAULTS);
        self.shared.faults.fetch_add(1, Ordering::SeqCst);
        if self.inject(node, fault).await {
            *self.counts.entry(fault).or_default() += 1;
        }
        self.shared.faults.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether there was a process for the fault.
    async fn inject(&mut self, node: &mut Node, fault: &str) -> bool {
        match fault {
            "daemon killed" => {
                node.kill();
                node.start_again().await;
                true
            }
            "daemon stopped" => self.stopped(held(node.daemon_pid(), "hull\0")).await,
            "registry killed" => {
                let old = std::mem::replace(&mut self.registry, {
                    let (registry, reference) = registry();
                    reference
                        .clone_into(&mut self.shared.reference.lock().or_fail("name the image"));
                    registry
                });
                old.kill();
                true
            }
            "registry stopped" => self.stopped(held(self.registry.pid(), "docker-registry")).await,
            "plugin killed" => self.plugin_killed(node).await,
            _ => self.of_a_pod(node, fault).await,
        }
    }

    async fn plugin_killed(&mut self, node: &Node) -> bool {
        if program().is_none() {
            return false;
        }
        drop(self.plugin.take());
        self.plugin = Some(Plugin::spawn(node, "10-soak", &serde_json::json!({}), &[]));
        true
    }

    async fn of_a_pod(&mut self, node: &Node, fault: &str) -> bool {
        let there: Vec<(String, String)> = {
            let there = self.shared.there.lock().or_fail("see what is there");
            there.values().cloned().collect()
        };
        if there.is_empty() {
            return false;
        }
        let (pod, container) = self.random.pick(&there).clone();
        let (of, is_killed) =
            fault.split_once(' ').map_or(("", false), |(of, how)| (of, how == "killed"));
        let process = match of {
            "monitor" => monitor_of(&pod),
            "pause" => pause_of(node, &pod).await,
            _ => first_of(node, &container).await,
        };
        let Some(process) = process else { return false };
        if !is_killed {
            return self.stopped(Some(process)).await;
        }
        self.shared.hit.lock().or_fail("note a pod").push(pod);
        pidfd_send_signal(&process, Signal::KILL).is_ok()
    }

    /// Stops a process for a random time.
    async fn stopped(&mut self, process: Option<OwnedFd>) -> bool {
        let Some(process) = process else { return false };
        let time = Duration::from_millis(self.random.below(STOPPED_MAX_MS) as u64);
        let stopped = pidfd_send_signal(&process, Signal::STOP).is_ok();
        // Nothing tells when it has been stopped for long enough: the time is the fault.
        drop(tokio::time::timeout(time, std::future::pending::<()>()).await);
        stopped && pidfd_send_signal(&process, Signal::CONT).is_ok()
    }
}

/// A descriptor of process `pid`, if its command line has these words.
fn held(pid: i32, words: &str) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    String::from_utf8_lossy(&arguments).contains(words).then_some(process)
}

fn monitor_of(pod: &str) -> Option<OwnedFd> {
    let words = format!("hull-monitor\0{pod}\0");
    names(Path::new("/proc"))
        .iter()
        .filter_map(|entry| entry.parse::<i32>().ok())
        .find_map(|pid| held(pid, &words))
}

/// A descriptor of process `pid`, if it is in a cgroup of the node's pods.
fn of_node(node: &Node, pid: i64) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok()?;
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    groups.contains(&format!("{}/", node.names().cgroup)).then_some(process)
}

fn pid_in(info: &std::collections::HashMap<String, String>) -> Option<i64> {
    let info: serde_json::Value = serde_json::from_str(info.get("info")?).ok()?;
    info["pid"].as_i64()
}

async fn first_of(node: &Node, container: &str) -> Option<OwnedFd> {
    let status = node.cri().inspect(container).await.ok()?;
    of_node(node, pid_in(&status.info)?)
}

async fn pause_of(node: &Node, pod: &str) -> Option<OwnedFd> {
    let status = node.cri().pod_status(pod).await.ok()?;
    of_node(node, pid_in(&status.info)?)
}
