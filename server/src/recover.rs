// SPDX-License-Identifier: Apache-2.0
//! What a daemon that was started does about what an earlier one left.
//!
//! ```text
//! record          monitor says             becomes
//! Building        anything                 taken down, record gone
//! Ready           pause runs               Ready; containers as the monitor knows them
//! Ready           not there, no pause      Stopping: what is left is ended; NOTREADY
//! Stopping        anything                 torn down again
//! Stopped         –                        Stopped
//! none            anything                 a leak: swept
//! ```
//!
//! Pods are shown as they were recorded, and their monitors asked side by side. The daemon serves when all have
//! answered, or [`waits::RECOVER_MAX`] is over: those that take longer keep only the verbs about their own pods
//! waiting. A record that cannot be read was set aside by the store and keeps nobody down.

use crate::container::state::{Event as ContainerEvent, How, Seen};
use crate::container::{ContainerRecord, State as ContainerState};
use crate::error::{Chain, Error};
use crate::monitors::{self, Client};
use crate::node::{Node, blocking, now_ns};
use crate::pod::registry::Key;
use crate::pod::state::Event as PodEvent;
use crate::pod::{PodRecord, State, parts, task};
use crate::waits;
use hull_proto::id::{ContainerId, PodId};
use hull_proto::monitor::{ExitHow, Fact, HelloReply, Verb};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use tracing::{error, info, warn};

type Containers = Vec<(ContainerId, ContainerRecord)>;

/// Brings the pods back, then sweeps what no record stands for.
pub(crate) async fn recover(node: &Arc<Node>) -> Result<(), Error> {
    let began = Instant::now();
    let pods = load::<PodRecord>(&node.pods)?;
    let mut containers: HashMap<String, Containers> = HashMap::new();
    for record in load::<ContainerRecord>(&node.containers)? {
        match ContainerId::parse(&record.id) {
            Ok(id) => containers.entry(record.pod.clone()).or_default().push((id, record)),
            Err(err) => error!(error = %err, "container record with a bad id passed over"),
        }
    }
    let mut work = JoinSet::new();
    let found = pods.len();
    for record in pods {
        let Ok(id) = PodId::parse(&record.id) else {
            error!(id = %record.id, "pod record with a bad id passed over");
            continue;
        };
        let containers = containers.remove(&record.id).unwrap_or_default();
        if matches!(record.state, State::Building) {
            let node = Arc::clone(node);
            work.spawn(async move { half_made(&node, &id, &record, containers).await });
        } else if let Some(start) = show(node, &id, &record, &containers) {
            work.spawn(pod(Arc::clone(node), id, record, containers, start));
        }
    }
    // A container without its pod stands for nothing that anybody could ask for.
    let orphans: Containers = containers.into_values().flatten().collect();
    let until = tokio::time::Instant::now() + waits::RECOVER_MAX;
    wait_until(until, &mut work).await;
    sweep(node, orphans, until).await;
    info!(pods = found, took_ms = began.elapsed().as_millis(), "recovered");
    Ok(())
}

fn load<T: serde::de::DeserializeOwned>(store: &crate::store::Store) -> Result<Vec<T>, Error> {
    let (records, aside) = store.load::<T>().map_err(|source| Error::Store { source })?;
    for bad in aside {
        error!(path = %bad.path.display(), why = %bad.why,
            "record cannot be read and was set aside; what it stood for is swept as a leak");
    }
    Ok(records)
}

/// Waits for all of this work, but serves others when the time is up: it goes on.
async fn wait_until(until: tokio::time::Instant, work: &mut JoinSet<()>) {
    while let Ok(Some(_)) = timeout_at(until, work.join_next()).await {}
    if !work.is_empty() {
        warn!(left = work.len(), "pods are still being looked at; serving meanwhile");
    }
    work.detach_all();
}

/// Has a pod and its containers seen as they were recorded. Who asks for more of it waits for its task.
fn show(
    node: &Arc<Node>,
    id: &PodId,
    record: &PodRecord,
    containers: &Containers,
) -> Option<task::Start> {
    let key = Key::of(&record.config.metadata.clone().unwrap_or_default());
    let (notices_in, notices) = task::notices();
    let (pod, mut start) = task::prepare(node, id.clone(), record.clone(), notices_in, notices);
    // Two records of one name would be a bug of an earlier version: the second stays unlisted.
    if node.registry.enter(key, &pod).is_some() {
        error!(pod = %id, "two pods have the same name; this one is passed over");
        return None;
    }
    start.show(containers.clone());
    Some(start)
}

async fn pod(
    node: Arc<Node>,
    id: PodId,
    mut record: PodRecord,
    containers: Containers,
    mut start: task::Start,
) {
    let (mut client, mut hello) = (None, None);
    if !matches!(record.state, State::Stopped) {
        let socket = node.monitor_socket(&id);
        let reached = node.monitors.reach(&socket, start.notices());
        match timeout(waits::HELLO_MAX, reached).await {
            Ok(Ok((found, said))) => (client, hello) = (Some(found), Some(said)),
            Ok(Err(err @ monitors::Error::Hangs { .. })) => hangs(&id, &err),
            Ok(Err(err)) => warn!(pod = %id, error = %Chain(&err), "pod's monitor is gone"),
            Err(_) => hangs(&id, &monitors::Error::Hangs { waited: waits::HELLO_MAX }),
        }
    }
    let pause_runs =
        hello.as_ref().is_some_and(|said| matches!(said.pause, Some(Fact::Running(_))));
    if record.state.is_ready() && !pause_runs {
        if let Ok(state) = record.state.clone().next(&PodEvent::SandboxLost) {
            record.state = state;
        }
        save_pod(&node, &record);
    }
    let containers =
        reconcile(&node, &record.cgroup, containers, hello.as_ref(), client.as_ref()).await;
    let is_starting = |id: &ContainerId| {
        let facts = hello.iter().flat_map(|said| &said.containers);
        facts.into_iter().any(|(of, fact)| of == id && matches!(fact, Fact::Starting))
    };
    let starting = containers.iter().map(|(id, _)| id.clone()).filter(is_starting).collect();
    start.adopt(client, record, containers, starting);
    start.run();
}

fn hangs(id: &PodId, why: &monitors::Error) {
    warn!(pod = %id, error = %Chain(why), "pod's monitor does not answer; it will be ended");
}

fn save_pod(node: &Node, record: &PodRecord) {
    if let Err(err) = node.pods.save(&record.id, record) {
        error!(error = %Chain(&err), "pod record not written");
    }
}

/// A pod whose start was cut short: nobody knows its id, so nothing of it may stay.
async fn half_made(node: &Arc<Node>, id: &PodId, record: &PodRecord, containers: Containers) {
    info!(pod = %id, "taking down a pod that was only half made");
    let cgroups = containers.iter().map(|(_, container)| container.cgroup.clone()).collect();
    if let Err(err) = parts::take_down(node, id, record, cgroups, None).await {
        error!(pod = %id, error = %Chain(&err), "half-made pod could not be taken down; tried again at the next start");
        return;
    }
    for (container, _) in containers {
        remove_container(node, &container).await;
    }
    if let Err(err) = node.pods.remove(id.as_str()) {
        error!(pod = %id, error = %Chain(&err), "record of a half-made pod not removed");
    }
}

/// Brings the records of a pod's containers up to what its monitor knows.
async fn reconcile(
    node: &Arc<Node>,
    pod_cgroup: &str,
    containers: Containers,
    hello: Option<&HelloReply>,
    client: Option<&Client>,
) -> Containers {
    let mut kept = Vec::new();
    let mut facts: HashMap<&ContainerId, &Fact> = hello
        .map(|said| said.containers.iter().map(|(id, fact)| (id, fact)).collect())
        .unwrap_or_default();
    for (id, mut record) in containers {
        let fact = facts.remove(&id);
        if matches!(record.state, ContainerState::Creating | ContainerState::Removing) {
            if let Some(client) = client {
                let _gone = client.tell(Verb::Forget { container: id.clone() }, Vec::new()).await;
            }
            clear(node, &record, pod_cgroup).await;
            remove_container(node, &id).await;
            continue;
        }
        for event in events_of(&record, fact) {
            if let Ok(state) = record.state.clone().next(event) {
                record.state = state;
            }
        }
        if let Err(err) = node.containers.save(id.as_str(), &record) {
            error!(container = %id, error = %Chain(&err), "container record not written");
        }
        kept.push((id, record));
    }
    if let Some(client) = client {
        for id in facts.keys() {
            warn!(container = %id, "monitor knows a container without a record; ended");
            let _gone = client.tell(Verb::Forget { container: (*id).clone() }, Vec::new()).await;
        }
    }
    kept
}

/// What the machine has to hear so that it agrees with the monitor.
fn events_of(record: &ContainerRecord, fact: Option<&Fact>) -> Vec<ContainerEvent> {
    match fact {
        Some(Fact::Running(started)) => {
            vec![ContainerEvent::Started { pid: started.pid, at_ns: started.at_ns }]
        }
        Some(Fact::Exited(started, exit)) => {
            let seen = Seen {
                oom_kills: exit.oom_kills,
                memory_peak_bytes: exit.memory_peak_bytes,
                pids_refused: exit.pids_refused,
                stop_asked: record.stop_requested,
                out_of_memory: None,
                denials: Vec::new(),
            };
            let how = match exit.how {
                ExitHow::Code(code) => How::Code { code, seen },
                ExitHow::Signal(signal) => How::Signal { signal, seen },
            };
            vec![
                ContainerEvent::Started { pid: started.pid, at_ns: started.at_ns },
                ContainerEvent::Exited { how, at_ns: exit.at_ns },
            ]
        }
        Some(Fact::Starting) => Vec::new(),
        None if matches!(record.state, ContainerState::Running { .. }) => {
            vec![ContainerEvent::Exited { how: How::Lost, at_ns: now_ns() }]
        }
        None => Vec::new(),
    }
}

async fn clear(node: &Arc<Node>, record: &ContainerRecord, pod: &str) {
    let (shared, path, pod) = (Arc::clone(node), record.cgroup.clone(), pod.to_owned());
    if let Err(err) = blocking(move || parts::clear_cgroup(&shared.cgroups, &path, &pod)).await {
        error!(container = %record.id, error = %Chain(&err), "cgroup not cleared");
    }
}

async fn remove_container(node: &Arc<Node>, id: &ContainerId) {
    let (shared, name) = (Arc::clone(node), id.to_string());
    if let Err(err) = blocking(move || shared.images.remove_rootfs(&name)).await {
        error!(container = %id, error = %Chain(&err), "writable layer not removed");
        return;
    }
    if let Err(err) = node.plans.remove(id.as_str()) {
        error!(container = %id, error = %Chain(&err), "kept plan not removed");
    }
    if let Err(err) = node.containers.remove(id.as_str()) {
        error!(container = %id, error = %Chain(&err), "container record not removed");
    }
}

/// Takes away whatever of ours has no record.
async fn sweep(node: &Arc<Node>, orphans: Containers, until: tokio::time::Instant) {
    for (id, record) in orphans {
        warn!(container = %id, "container without a pod swept");
        let pod = record.cgroup.rsplit_once('/').map_or("", |(above, _)| above).to_owned();
        clear(node, &record, &pod).await;
        remove_container(node, &id).await;
    }
    let views = node.registry.views();
    let pods: BTreeSet<String> = views.iter().map(|view| view.id.to_string()).collect();
    let containers: BTreeSet<String> =
        views.iter().flat_map(|view| view.containers.keys().map(ToString::to_string)).collect();

    // Whatever is to go is listed now: what is made later is not ours to sweep.
    let mut work = JoinSet::new();
    let dirs = [node.run_dir(), node.pod_files_dir()];
    // After a boot there is only the latter.
    let names: BTreeSet<String> = dirs.iter().flat_map(|dir| names_in(dir)).collect();
    for name in names {
        match PodId::parse(&name) {
            Ok(id) if !pods.contains(id.as_str()) => {
                let node = Arc::clone(node);
                work.spawn(async move { sweep_pod(&node, &id).await });
            }
            _ => {}
        }
    }
    wait_until(until, &mut work).await;
    // A stopped pod has no network; but what it had is given back only when the kernel has taken its links
    // away, and the last daemon may have ended before that.
    let networked = views.iter().filter(|view| !matches!(view.record.state, State::Stopped));
    let networked: BTreeSet<_> = networked.map(|view| view.id.to_string()).collect();
    for id in node.network.attachments() {
        if !networked.contains(&id) {
            info!(pod = %id, "network of a pod that has none any more swept");
            let shared = Arc::clone(node);
            if let Err(err) = blocking(move || shared.network.release(&id)).await {
                error!(error = %Chain(&err), "left network not taken away");
            }
        }
    }
    for name in node.images.rootfs_ids() {
        if let Ok(id) = ContainerId::parse(&name)
            && !containers.contains(id.as_str())
        {
            warn!(container = %id, "writable layer without a container swept");
            remove_container(node, &id).await;
        }
    }
    let shared = Arc::clone(node);
    blocking(move || shared.plans.sweep(&containers)).await;
    sweep_cgroups(node, &pods, &mut work);
    wait_until(until, &mut work).await;
}

/// A pod whose record could not be read, or was never written: its monitor ends it.
async fn sweep_pod(node: &Arc<Node>, id: &PodId) {
    warn!(pod = %id, "pod without a record swept");
    let record = PodRecord {
        id: id.to_string(),
        config: hull_proto::cri::PodSandboxConfig::default(),
        handler: String::new(),
        created_ns: 0,
        cgroup: node.driver.own(id),
        cgroup_is_ours: true,
        state: State::Stopping,
    };
    if let Err(err) = parts::take_down(node, id, &record, Vec::new(), None).await {
        error!(pod = %id, error = %Chain(&err), "left pod not taken away; tried again at the next start");
    }
}

fn sweep_cgroups(node: &Arc<Node>, pods: &BTreeSet<String>, work: &mut JoinSet<()>) {
    let parent = node.driver.own_parent();
    let names = match hull_cgroup::children(&node.cgroups, &parent) {
        Ok(names) => names,
        Err(err) => {
            error!(error = %Chain(&err), "own cgroups not listed");
            return;
        }
    };
    for name in names {
        let Some(id) = node.driver.pod_of(&name) else { continue };
        if pods.contains(id.as_str()) {
            continue;
        }
        warn!(cgroup = %name, "cgroup without a pod swept");
        let (shared, path) = (Arc::clone(node), format!("{parent}/{name}"));
        work.spawn(async move {
            let cleared = blocking(move || parts::clear_cgroup(&shared.cgroups, &path, &path));
            if let Err(err) = cleared.await {
                error!(error = %Chain(&err), "left cgroup not cleared");
            }
        });
    }
}

fn names_in(dir: &std::path::Path) -> Vec<String> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(err) => {
            error!(dir = %dir.display(), error = %err, "directory not listed");
            return Vec::new();
        }
    };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
