// SPDX-License-Identifier: Apache-2.0
//! The adoption of a pod: its monitor is asked for facts, its records are brought up to them, and its task runs.

use super::records::Containers;
use super::remove::{clear, remove_container};
use crate::container::state::{Event as ContainerEvent, ExitReason};
use crate::container::{ContainerRecord, State as ContainerState, exit_details};
use crate::diagnostics::ending;
use crate::error::Chain;
use crate::limits::waits;
use crate::monitors::{self, Client};
use crate::node::{Node, now_ns};
use crate::pod::registry::Key;
use crate::pod::state::Event as PodEvent;
use crate::pod::{PodRecord, State, task};
use hull_proto::id::{ContainerId, PodId};
use hull_proto::monitor::{Command, ExitHow, HelloReply, ProcessState};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::timeout;
use tracing::{error, warn};

/// Publishes a pod and its containers as recorded. Other requests wait for its task.
pub(super) fn show(
    node: &Arc<Node>,
    key: Option<Key>,
    id: &PodId,
    record: &PodRecord,
    containers: &Containers,
) -> task::Start {
    let (monitor_events_in, monitor_events) = task::monitor_events();
    let (pod, mut start) =
        task::prepare(node, id.clone(), record.clone(), monitor_events_in, monitor_events);
    if !node.registry.adopt(key, pod) {
        error!(pod_id = %id, name = record.full_name(), "two pods have the same name; this one is known by its id alone");
    }
    start.show(containers.clone());
    start
}

pub(super) async fn pod(
    node: Arc<Node>,
    id: PodId,
    mut record: PodRecord,
    containers: Containers,
    mut start: task::Start,
) {
    let (mut client, mut hello) = (None, None);
    if !matches!(record.state, State::Stopped) {
        let socket = node.monitor_socket(&id);
        let reached = node.monitors.connect(&socket, start.monitor_events());
        match timeout(waits::HELLO_MAX, reached).await {
            Ok(Ok((found, reply))) => (client, hello) = (Some(found), Some(reply)),
            Ok(Err(err @ monitors::Error::Hangs { .. })) => hangs(&id, &err),
            Ok(Err(err)) => warn!(pod_id = %id, error = %Chain(&err), "pod's monitor is gone"),
            Err(_) => hangs(&id, &monitors::Error::Hangs { waited: waits::HELLO_MAX }),
        }
    }
    let pause = hello.as_ref().and_then(|reply| reply.pause.as_ref());
    match (&mut record.state, pause) {
        // Of processes the monitor's word counts.
        (State::Ready { pause_pid, .. }, Some(ProcessState::Running(started))) => {
            *pause_pid = started.pid
        }
        (State::Ready { .. }, _) => {
            node.history.end(id.as_str(), ending::of_lost_sandbox(now_ns()));
            if let Ok(state) = record.state.clone().next(&PodEvent::SandboxLost) {
                record.enter(state, &PodEvent::SandboxLost);
            }
            save_pod(&node, &record);
        }
        (State::Stopping, pause) => {
            let running = match pause {
                Some(ProcessState::Running(started)) => Some(started.pid),
                Some(ProcessState::Starting | ProcessState::Exited(..)) | None => None,
            };
            if let Some(last) = &mut record.last_ready {
                last.pause_pid = running;
            }
        }
        (State::Building | State::Stopped, _) => {}
    }
    let known = Arc::new(record.clone());
    let containers = reconcile(&node, &known, containers, hello.as_ref(), client.as_ref()).await;
    let is_starting = |id: &ContainerId| {
        let facts = hello.iter().flat_map(|reply| &reply.containers);
        facts.into_iter().any(|(of, fact)| of == id && matches!(fact, ProcessState::Starting))
    };
    let starting = containers.iter().map(|(id, _)| id.clone()).filter(is_starting).collect();
    start.adopt(client, record, containers, starting);
    start.run();
}

fn hangs(id: &PodId, why: &monitors::Error) {
    warn!(pod_id = %id, error = %Chain(why), "pod's monitor does not answer; it will be ended");
}

fn save_pod(node: &Node, record: &PodRecord) {
    if let Err(err) = node.pods.save(&record.id, record) {
        error!(error = %Chain(&err), "pod record not written");
    }
}

/// Brings the records of a pod's containers up to what its monitor knows.
async fn reconcile(
    node: &Arc<Node>,
    pod: &Arc<PodRecord>,
    containers: Containers,
    hello: Option<&HelloReply>,
    client: Option<&Client>,
) -> Containers {
    let mut kept = Vec::new();
    let mut facts: HashMap<&ContainerId, &ProcessState> = hello
        .map(|reply| reply.containers.iter().map(|(id, fact)| (id, fact)).collect())
        .unwrap_or_default();
    for (id, mut record) in containers {
        let fact = facts.remove(&id);
        if matches!(record.state, ContainerState::Creating | ContainerState::Removing) {
            if let Some(client) = client {
                let _gone =
                    client.command(Command::Delete { container: id.clone() }, Vec::new()).await;
            }
            if clear(node, &record, &pod.cgroup).await && remove_container(node, &id).await {
                continue;
            }
            // Seen, so that it is asked for again.
            record.state = ContainerState::Removing;
            kept.push((id, record));
            continue;
        }
        catch_up(node, pod, &id, &mut record, fact, client).await;
        if let Err(err) = node.containers.save(id.as_str(), &record) {
            error!(container_id = %id, error = %Chain(&err), "container record not written");
        }
        kept.push((id, record));
    }
    if let Some(client) = client {
        for id in facts.keys() {
            warn!(container = %id, "monitor knows a container without a record; ended");
            let _gone =
                client.command(Command::Delete { container: (*id).clone() }, Vec::new()).await;
        }
    }
    kept
}

/// Brings a container's state up to what the monitor knows, by the events that a running daemon would have seen.
async fn catch_up(
    node: &Arc<Node>,
    pod: &Arc<PodRecord>,
    id: &ContainerId,
    record: &mut ContainerRecord,
    fact: Option<&ProcessState>,
    client: Option<&Client>,
) {
    let (started, exit) = match fact {
        Some(ProcessState::Running(started)) => (*started, None),
        Some(ProcessState::Exited(started, exit)) => (*started, Some(*exit)),
        Some(ProcessState::Starting) => return,
        None if matches!(record.state, ContainerState::Running { .. }) => {
            return advance(
                record,
                ContainerEvent::Exited { how: ExitReason::Lost, at_ns: now_ns() },
            );
        }
        None => return,
    };
    advance(record, ContainerEvent::Started { pid: started.pid, at_ns: started.at_ns });
    match (exit, &mut record.state) {
        (Some(exit), _) => {
            let output = match client {
                Some(client) if !matches!(exit.how, ExitHow::Code(0)) => {
                    client.last_output(id).await.ok().flatten()
                }
                Some(_) | None => None,
            };
            let known = Arc::new(record.clone());
            let event = exit_details::event(node, pod, id, &known, exit, output).await;
            advance(record, event);
        }
        // The monitor knows better than the record which process it is.
        (None, ContainerState::Running { pid, since_ns }) => {
            (*pid, *since_ns) = (started.pid, started.at_ns);
        }
        (
            None,
            ContainerState::Creating
            | ContainerState::Created
            | ContainerState::Exited { .. }
            | ContainerState::Removing,
        ) => {}
    }
}

/// Applies an event; what the machine refuses changes nothing.
fn advance(record: &mut ContainerRecord, event: ContainerEvent) {
    if let Ok(state) = record.state.clone().next(event) {
        record.state = state;
    }
}
