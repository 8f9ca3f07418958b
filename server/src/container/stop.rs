// SPDX-License-Identifier: Apache-2.0
//! Ending a container: stop signal, grace period, SIGKILL to all of its cgroup, and at last a report
//! of where in the kernel it hangs.

use super::State;
use crate::error::{Chain, Error};
use crate::limits::waits;
use crate::monitors::{self, Client};
use crate::node::Node;
use crate::storage::blocking;
use futures_util::future::join_all;
use hull_cgroup::{Cgroup, CgroupFs};
use hull_proto::id::{ContainerId, PodId};
use hull_proto::monitor::{Command, Target};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

const SIGKILL: i32 = 9;

/// Everything that the stop of a container needs.
#[derive(Debug)]
pub(crate) struct StopParams {
    pub(crate) node: Arc<Node>,
    pub(crate) client: Client,
    pub(crate) pod: PodId,
    pub(crate) pod_cgroup: String,
    pub(crate) id: ContainerId,
    pub(crate) cgroup: String,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) grace_s: u64,
    /// Sent first, unless it was sent before.
    pub(crate) signal: Option<i32>,
}

/// Ends one container and waits until it has.
///
/// A monitor that does not answer cannot tell of the end: then the cgroup is killed from here and, once that
/// is empty, the monitor, so that the pod is known to be lost.
pub(crate) async fn stop(mut params: StopParams) -> Result<Stopped, Error> {
    if params.grace_s > 0 && params.ends_by_itself().await {
        return Ok(Stopped::Reported);
    }
    if params.is_killed().await {
        return Ok(Stopped::Reported);
    }
    if let Some(stack) = params.kill_without_monitor().await {
        return Err(Error::Unkillable {
            container: params.id.to_string(),
            waited: waits::DIE_MAX,
            stack,
        });
    }
    // Word of the end may have come meanwhile.
    if ended(&mut params.state, Duration::ZERO).await {
        return Ok(Stopped::Reported);
    }
    let pod = params.pod.clone();
    if blocking(move || monitors::kill(&pod)).await {
        warn!(container_id = %params.id.short(), "monitor that does not tell of a container's end killed");
    }
    if ended(&mut params.state, waits::LOST_MAX).await {
        return Ok(Stopped::Reported);
    }
    // A monitor that hangs in the kernel does not die either: what counts is that the cgroup is empty.
    Ok(Stopped::Unreported)
}

/// How the end of a container is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The monitor has reported it, or is gone.
    Reported,
    /// No process is left in the cgroup, but the monitor does not report it.
    Unreported,
}

impl StopParams {
    /// Sends SIGKILL and waits for the end. A signal during a start may come before its process, so that one gets its own
    /// when it runs.
    async fn is_killed(&mut self) -> bool {
        let deadline = Instant::now() + waits::DIE_MAX;
        loop {
            let starts = self.starts();
            if !send(&self.client, Target::ContainerAll(self.id.clone()), SIGKILL).await {
                return false;
            }
            let is_over = |state: &State| match state {
                State::Running { .. } => starts,
                State::Created => false,
                State::Creating | State::Exited { .. } | State::Removing => true,
            };
            let runs = async {
                let state = self.state.wait_for(is_over).await;
                // A dropped sender means that the container is gone altogether.
                state.is_ok_and(|state| matches!(*state, State::Running { .. }))
            };
            match timeout_at(deadline, runs).await {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Whether a start is in progress.
    fn starts(&self) -> bool {
        matches!(*self.state.borrow(), State::Created)
    }

    /// Sends the stop signal, once the process runs, and waits for the end of the grace period. A monitor that does not
    /// take the signal does not make that longer.
    async fn ends_by_itself(&mut self) -> bool {
        let Self { client, id, state, grace_s, signal, .. } = self;
        let mut starting = state.clone();
        let signalled = async {
            if let Some(signal) = *signal {
                drop(starting.wait_for(|state| !matches!(state, State::Created)).await);
                send(client, Target::Container(id.clone()), signal).await;
            }
            std::future::pending::<bool>().await
        };
        tokio::select! {
            ended = ended(state, Duration::from_secs(*grace_s)) => ended,
            never = signalled => never,
        }
    }

    /// Kills the cgroup from here. Where its processes hang when it does not become empty.
    async fn kill_without_monitor(&self) -> Option<String> {
        let (node, path, pod) =
            (Arc::clone(&self.node), self.cgroup.clone(), self.pod_cgroup.clone());
        blocking(move || {
            let killed = kill_cgroup(&node.cgroups, &path, &pod);
            if let Err(err) = &killed {
                warn!(error = %Chain(err), "cgroup of a container not killed");
            }
            (!killed.unwrap_or(false)).then(|| stacks(&node.cgroups, &path))
        })
        .await
    }
}

/// Whether it is empty then.
fn kill_cgroup(host: &CgroupFs, path: &str, pod: &str) -> Result<bool, hull_cgroup::Error> {
    let (cgroup, pod) = (Cgroup::at(host, path)?, Cgroup::at(host, pod)?);
    cgroup.kill_within(&pod)?;
    Ok(cgroup.wait_empty(waits::DIE_MAX)? && !cgroup.is_populated()?)
}

/// Kills the containers of a pod that is being stopped and waits until they are known to have ended,
/// or the time is up: the teardown that follows clears the cgroups in any case.
pub(crate) async fn kill_all(client: &Client, running: Vec<(ContainerId, watch::Receiver<State>)>) {
    let kill = |id: &ContainerId| {
        let target = Target::ContainerAll(id.clone());
        async move { send(client, target, SIGKILL).await }
    };
    join_all(running.iter().map(|(id, _)| kill(id))).await;
    if client.hangs() {
        return;
    }
    let ends = running.into_iter().map(|(_, mut state)| async move {
        ended(&mut state, waits::DIE_MAX).await;
    });
    join_all(ends).await;
}

/// Whether the monitor has taken it.
async fn send(client: &Client, target: Target, signal: i32) -> bool {
    // A monitor that is gone has no process left to signal; the wait that follows tells.
    let sent = client.command(Command::Signal { target, signal }, Vec::new()).await;
    if let Err(err) = &sent {
        debug!(error = %Chain(err), "signal not delivered");
    }
    !matches!(sent, Err(monitors::Error::Hangs { .. }))
}

async fn ended(state: &mut watch::Receiver<State>, limit: Duration) -> bool {
    let wait = state.wait_for(|state| !matches!(state, State::Running { .. } | State::Created));
    // A dropped sender means that the container is gone altogether.
    tokio::time::timeout(limit, wait).await.is_ok()
}

/// Where in the kernel the processes of a cgroup hang, `proc(5)` /proc/pid/stack.
fn stacks(host: &CgroupFs, cgroup: &str) -> String {
    let pids = Cgroup::at(host, cgroup).and_then(|cgroup| cgroup.procs());
    let shown: Vec<_> = pids
        .unwrap_or_default()
        .into_iter()
        .take(3)
        .map(|pid| {
            let top = std::fs::read_to_string(format!("/proc/{pid}/stack")).unwrap_or_default();
            let calls: Vec<_> =
                top.lines().take(3).map(|line| line.trim_start_matches("[<0>] ")).collect();
            format!("process {pid} in {}", calls.join(" < "))
        })
        .collect();
    if shown.is_empty() {
        "no process of it is left in its cgroup".into()
    } else {
        shown.join("; ")
    }
}
