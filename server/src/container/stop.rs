// SPDX-License-Identifier: Apache-2.0
//! Ending a container: stop signal, grace period, SIGKILL to all of its cgroup, and at last a report
//! of where in the kernel it hangs.

use super::State;
use crate::error::Error;
use crate::monitors::Client;
use crate::node::{Node, blocking};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Target, Verb};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::debug;

/// How long a killed process may take to end. Past that it hangs in the kernel.
const DIE_MAX: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;

/// What to end, and how patiently.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) node: Arc<Node>,
    pub(crate) client: Client,
    pub(crate) id: ContainerId,
    pub(crate) cgroup: String,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) grace_s: u64,
    /// Sent first, unless it was sent before.
    pub(crate) signal: Option<i32>,
}

/// Ends one container and waits until it has.
pub(crate) async fn stop(order: Order) -> Result<(), Error> {
    let Order { node, client, id, cgroup, mut state, grace_s, signal } = order;
    if grace_s > 0 {
        if let Some(signal) = signal {
            send(&client, Target::Container(id.clone()), signal).await;
        }
        if ended(&mut state, Duration::from_secs(grace_s)).await {
            return Ok(());
        }
    }
    send(&client, Target::ContainerAll(id.clone()), SIGKILL).await;
    if ended(&mut state, DIE_MAX).await {
        return Ok(());
    }
    let stack = blocking(move || stacks(&node.cgroups, &cgroup)).await;
    Err(Error::WillNotDie { container: id.to_string(), waited: DIE_MAX, stack })
}

/// Kills the containers of a pod that is being stopped and waits until they are known to have ended,
/// or the time is up: the teardown that follows clears the cgroups in any case.
pub(crate) async fn kill_all(client: &Client, running: Vec<(ContainerId, watch::Receiver<State>)>) {
    for (id, _) in &running {
        send(client, Target::ContainerAll(id.clone()), SIGKILL).await;
    }
    for (_, mut state) in running {
        ended(&mut state, DIE_MAX).await;
    }
}

async fn send(client: &Client, target: Target, signal: i32) {
    // A monitor that is gone has no process left to signal; the wait that follows tells.
    if let Err(err) = client.tell(Verb::Signal { target, signal }, Vec::new()).await {
        debug!(error = %err, "signal not delivered");
    }
}

async fn ended(state: &mut watch::Receiver<State>, limit: Duration) -> bool {
    let wait = state.wait_for(|state| !matches!(state, State::Running { .. } | State::Created));
    // A dropped sender means that the container is gone altogether.
    tokio::time::timeout(limit, wait).await.is_ok()
}

/// Where in the kernel the processes of a cgroup hang, `proc(5)` /proc/pid/stack.
fn stacks(host: &hull_cgroup::Host, cgroup: &str) -> String {
    let pids = hull_cgroup::Cgroup::at(host, cgroup).and_then(|cgroup| cgroup.procs());
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
