// SPDX-License-Identifier: Apache-2.0
//! Recovery at the start of the daemon: adopts or removes what an earlier daemon left.
//!
//! ```text
//! record          monitor says             becomes
//! Building        anything                 taken down, record gone; what cannot be is tried again
//! Ready           pause runs               Ready; containers as the monitor knows them
//! Ready           not there, no pause      Stopping: what is left is ended; NOTREADY
//! Stopping        anything                 torn down again
//! Stopped         –                        Stopped; Stopping when its directories are there
//! of another id   –                        set aside by the store
//! none            anything                 a leak: swept
//! ```
//!
//! Pods are shown as they were recorded, and their monitors asked side by side. The daemon serves when all have
//! answered, or [`waits::RECOVER_MAX`] is over: those that take longer keep only the verbs about their own pods
//! waiting. A record that cannot be read was set aside by the store and keeps nobody down.

use crate::container::cgroup::clear_cgroup;
use crate::container::state::{Event as ContainerEvent, ExitReason};
use crate::container::{ContainerRecord, State as ContainerState, exit_details};
use crate::error::{Chain, Error};
use crate::limits::waits;
use crate::monitors::{self, Client};
use crate::node::{Node, now_ns};
use crate::pod::registry::Key;
use crate::pod::state::Event as PodEvent;
use crate::pod::{PodRecord, State, task, teardown};
use crate::storage::blocking;
use hull_proto::id::{BadId, ContainerId, PodId};
use hull_proto::monitor::{Fact, HelloReply, Verb};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use tracing::{error, info, warn};

type Containers = Vec<(ContainerId, ContainerRecord)>;

/// The ids of everything that has a record.
struct Recorded {
    pods: BTreeSet<String>,
    containers: BTreeSet<String>,
}

/// Brings the pods back, then sweeps what no record stands for.
pub(crate) async fn recover(node: &Arc<Node>) -> Result<(), Error> {
    let began = Instant::now();
    let mut pods = load(&node.pods, |name, record: &PodRecord| {
        is_named(name, &record.id, PodId::parse(&record.id).err())
    })?;
    // Of two pods with one name, that one has it which is ready, or was made last.
    pods.sort_by_key(|record| Reverse((record.state.is_ready(), record.created_ns)));
    let mut containers: HashMap<String, Containers> = HashMap::new();
    let recorded = load(&node.containers, |name, record: &ContainerRecord| {
        is_named(name, &record.id, ContainerId::parse(&record.id).err())
    })?;
    for record in recorded {
        if let Ok(id) = ContainerId::parse(&record.id) {
            containers.entry(record.pod.clone()).or_default().push((id, record));
        }
    }
    let mut work = JoinSet::new();
    let found = pods.len();
    // Also those that are only being taken down: they have records, so nothing of them is a leak.
    let recorded = Recorded {
        pods: pods.iter().map(|record| record.id.clone()).collect(),
        containers: containers.values().flatten().map(|(id, _)| id.to_string()).collect(),
    };
    for mut record in pods {
        let Ok(id) = PodId::parse(&record.id) else { continue };
        let mut containers = containers.remove(&record.id).unwrap_or_default();
        correct(node, &id, &mut record, &mut containers);
        if matches!(record.state, State::Building) {
            let node = Arc::clone(node);
            work.spawn(async move { teardown_partial_pod(&node, &id, record, containers).await });
        } else {
            let key = Key::of(&record.config.metadata.clone().unwrap_or_default());
            let start = show(node, Some(key), &id, &record, &containers);
            work.spawn(pod(Arc::clone(node), id, record, containers, start));
        }
    }
    // A container without its pod stands for nothing that anybody could ask for.
    let orphans: Containers = containers.into_values().flatten().collect();
    let until = tokio::time::Instant::now() + waits::RECOVER_MAX;
    wait_until(until, &mut work).await;
    sweep(node, &recorded, orphans, until).await;
    info!(pods = found, took_ms = began.elapsed().as_millis(), "recovered");
    Ok(())
}

fn load<T: serde::de::DeserializeOwned>(
    store: &crate::records::Store,
    name_fits: impl Fn(&str, &T) -> Result<(), String>,
) -> Result<Vec<T>, Error> {
    let (records, aside) = store.load::<T>(name_fits).map_err(|source| Error::Store { source })?;
    for bad in aside {
        error!(path = %bad.path.display(), why = %bad.why,
            "record cannot be used and was set aside; what it stood for is swept as a leak");
    }
    Ok(records)
}

/// Whether a record is the one of its file: it is removed by its id.
fn is_named(name: &str, id: &str, bad: Option<BadId>) -> Result<(), String> {
    match bad {
        Some(bad) => Err(bad.to_string()),
        None if name != id => Err(format!("it is the record of {id}")),
        None => Ok(()),
    }
}

/// Takes back what a record says that cannot be so: others' cgroups as its own, and a stopped pod that has its
/// directories still.
fn correct(node: &Node, id: &PodId, record: &mut PodRecord, containers: &mut Containers) {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    if record.cgroup_is_ours && !name(&record.cgroup).contains(id.as_str()) {
        warn!(pod = %id, cgroup = record.cgroup, "recorded cgroup is not this pod's own; left alone");
        record.cgroup_is_ours = false;
    }
    for (container, of) in containers {
        if name(&of.cgroup) != container.as_str() {
            warn!(container = %container, cgroup = of.cgroup, "recorded cgroup is not this container's own; left alone");
            of.cgroup = format!("{}/{container}", record.cgroup);
        }
    }
    let dirs = [node.pod_dir(id), node.pod_files(id)];
    let is_left = || dirs.iter().any(|dir| dir.symlink_metadata().is_ok());
    if matches!(record.state, State::Stopped) && is_left() {
        warn!(pod = %id, "pod is recorded as stopped, but has its directories; stopped again");
        record.state = State::Stopping;
    }
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
    key: Option<Key>,
    id: &PodId,
    record: &PodRecord,
    containers: &Containers,
) -> task::Start {
    let (monitor_events_in, monitor_events) = task::monitor_events();
    let (pod, mut start) =
        task::prepare(node, id.clone(), record.clone(), monitor_events_in, monitor_events);
    if !node.registry.adopt(key, pod) {
        error!(pod = %id, name = record.full_name(), "two pods have the same name; this one is known by its id alone");
    }
    start.show(containers.clone());
    start
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
        let reached = node.monitors.connect(&socket, start.monitor_events());
        match timeout(waits::HELLO_MAX, reached).await {
            Ok(Ok((found, said))) => (client, hello) = (Some(found), Some(said)),
            Ok(Err(err @ monitors::Error::Hangs { .. })) => hangs(&id, &err),
            Ok(Err(err)) => warn!(pod = %id, error = %Chain(&err), "pod's monitor is gone"),
            Err(_) => hangs(&id, &monitors::Error::Hangs { waited: waits::HELLO_MAX }),
        }
    }
    let pause = hello.as_ref().and_then(|said| said.pause.as_ref());
    match (&mut record.state, pause) {
        // Of processes the monitor's word counts.
        (State::Ready { pause_pid, .. }, Some(Fact::Running(started))) => *pause_pid = started.pid,
        (State::Ready { .. }, _) => {
            if let Ok(state) = record.state.clone().next(&PodEvent::SandboxLost) {
                record.state = state;
            }
            save_pod(&node, &record);
        }
        (State::Building | State::Stopping | State::Stopped, _) => {}
    }
    let known = Arc::new(record.clone());
    let containers = reconcile(&node, &known, containers, hello.as_ref(), client.as_ref()).await;
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

/// A pod whose start was cut short: nobody knows its id, so nothing of it may stay. What cannot be taken down at
/// once is shown, and tried again by its task.
async fn teardown_partial_pod(
    node: &Arc<Node>,
    id: &PodId,
    mut record: PodRecord,
    containers: Containers,
) {
    info!(pod = %id, "taking down a pod that was only half made");
    let cgroups = containers.iter().map(|(_, container)| container.cgroup.clone()).collect();
    let removed = match teardown::take_down(node, id, &record, cgroups, None).await {
        Ok(()) => remove_records(node, id, &containers).await,
        Err(err) => {
            error!(pod = %id, error = %Chain(&err), "half-made pod could not be taken down; tried again");
            false
        }
    };
    if !removed {
        record.state = State::Stopping;
        let mut start = show(node, None, id, &record, &containers);
        start.adopt(None, record, containers, Vec::new());
        start.remove_unasked();
        start.run();
    }
}

/// The records of a pod that is taken down, its containers' first. Whether all are gone.
async fn remove_records(node: &Arc<Node>, id: &PodId, containers: &Containers) -> bool {
    let mut all = true;
    for (container, _) in containers {
        all &= remove_container(node, container).await;
    }
    if !all {
        return false;
    }
    let removed = node.pods.remove(id.as_str());
    if let Err(err) = &removed {
        error!(pod = %id, error = %Chain(err), "record of a half-made pod not removed");
    }
    removed.is_ok()
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
    let mut facts: HashMap<&ContainerId, &Fact> = hello
        .map(|said| said.containers.iter().map(|(id, fact)| (id, fact)).collect())
        .unwrap_or_default();
    for (id, mut record) in containers {
        let fact = facts.remove(&id);
        if matches!(record.state, ContainerState::Creating | ContainerState::Removing) {
            if let Some(client) = client {
                let _gone = client.tell(Verb::Forget { container: id.clone() }, Vec::new()).await;
            }
            if clear(node, &record, &pod.cgroup).await && remove_container(node, &id).await {
                continue;
            }
            // Seen, so that it is asked for again.
            record.state = ContainerState::Removing;
            kept.push((id, record));
            continue;
        }
        catch_up(node, pod, &id, &mut record, fact).await;
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

/// Brings a container's state up to what the monitor knows, by the events that a running daemon would have seen.
async fn catch_up(
    node: &Arc<Node>,
    pod: &Arc<PodRecord>,
    id: &ContainerId,
    record: &mut ContainerRecord,
    fact: Option<&Fact>,
) {
    let (started, exit) = match fact {
        Some(Fact::Running(started)) => (*started, None),
        Some(Fact::Exited(started, exit)) => (*started, Some(*exit)),
        Some(Fact::Starting) => return,
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
            let (node, pod, id, known) =
                (Arc::clone(node), Arc::clone(pod), id.clone(), record.clone());
            let event =
                blocking(move || exit_details::event(&node, &pod, &id, &known, &exit)).await;
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

/// Whether nothing of its cgroup is left.
async fn clear(node: &Arc<Node>, record: &ContainerRecord, pod: &str) -> bool {
    let (shared, path, pod) = (Arc::clone(node), record.cgroup.clone(), pod.to_owned());
    let cleared = blocking(move || clear_cgroup(&shared.cgroups, &path, &pod)).await;
    if let Err(err) = &cleared {
        error!(container = %record.id, error = %Chain(err), "cgroup not cleared");
    }
    cleared.is_ok()
}

/// Whether nothing of it is left on disk.
async fn remove_container(node: &Arc<Node>, id: &ContainerId) -> bool {
    let (shared, name) = (Arc::clone(node), id.to_string());
    if let Err(err) = blocking(move || shared.images.remove_rootfs(&name)).await {
        error!(container = %id, error = %Chain(&err), "writable layer not removed");
        return false;
    }
    if let Err(err) = node.plans.remove(id.as_str()) {
        error!(container = %id, error = %Chain(&err), "kept plan not removed");
        return false;
    }
    let removed = node.containers.remove(id.as_str());
    if let Err(err) = &removed {
        error!(container = %id, error = %Chain(err), "container record not removed");
    }
    removed.is_ok()
}

/// A container whose pod has no record, and what its pod had beside it.
async fn sweep_orphan(node: &Arc<Node>, id: &ContainerId, record: &ContainerRecord) {
    warn!(container = %id, "container without a pod swept");
    let above = record.cgroup.rsplit_once('/').filter(|(_, name)| *name == id.as_str());
    if let Some((pod, _)) = above {
        clear(node, record, pod).await;
        if PodId::parse(&record.pod).is_ok() {
            let pause =
                ContainerRecord { cgroup: format!("{pod}/{}", record.pod), ..record.clone() };
            clear(node, &pause, pod).await;
        }
    }
    remove_container(node, id).await;
}

/// Takes away whatever of ours has no record.
async fn sweep(
    node: &Arc<Node>,
    recorded: &Recorded,
    orphans: Containers,
    until: tokio::time::Instant,
) {
    let views = node.registry.views();
    let Recorded { pods, containers } = recorded;

    // Whatever is to go is listed now: what is made later is not ours to sweep.
    let mut work = JoinSet::new();
    for (id, record) in orphans {
        let node = Arc::clone(node);
        work.spawn(async move { sweep_orphan(&node, &id, &record).await });
    }
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
    let networked = views
        .iter()
        .filter(|view| !matches!(view.record.state, State::Stopped) && !view.record.host_network());
    let networked: BTreeSet<_> = networked.map(|view| view.id.to_string()).collect();
    let seen: BTreeSet<_> = views.iter().map(|view| view.id.to_string()).collect();
    // The teardown of a half-made pod detaches it.
    let half_made: BTreeSet<_> = pods.difference(&seen).cloned().collect();
    for id in node.network.attachments() {
        if !networked.contains(&id) && !half_made.contains(&id) {
            let node = Arc::clone(node);
            // A network plugin may hang; nobody waits for it.
            work.spawn(async move { sweep_network(&node, id).await });
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
    let (shared, known) = (Arc::clone(node), containers.clone());
    blocking(move || shared.plans.sweep(&known)).await;
    sweep_cgroups(node, pods, &mut work);
    wait_until(until, &mut work).await;
}

async fn sweep_network(node: &Arc<Node>, id: String) {
    info!(pod = %id, "network of a pod that has none any more swept");
    let shared = Arc::clone(node);
    if let Err(err) = blocking(move || shared.network.release(&id)).await {
        error!(error = %Chain(&err), "left network not taken away");
    }
}

/// A pod whose record could not be read, or was never written: its monitor ends it.
async fn sweep_pod(node: &Arc<Node>, id: &PodId) {
    warn!(pod = %id, "pod without a record swept");
    let record = PodRecord {
        id: id.to_string(),
        config: hull_proto::cri::PodSandboxConfig::default(),
        handler: String::new(),
        created_ns: 0,
        cgroup: node.driver.default_path(id),
        cgroup_is_ours: true,
        state: State::Stopping,
    };
    if let Err(err) = teardown::take_down(node, id, &record, Vec::new(), None).await {
        error!(pod = %id, error = %Chain(&err), "left pod not taken away; tried again at the next start");
    }
}

fn sweep_cgroups(node: &Arc<Node>, pods: &BTreeSet<String>, work: &mut JoinSet<()>) {
    let parent = node.driver.default_parent();
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
            let cleared = blocking(move || clear_cgroup(&shared.cgroups, &path, &path));
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
