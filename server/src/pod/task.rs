// SPDX-License-Identifier: Apache-2.0
//! The task that owns a pod: the only writer of its record, its containers' records and what is
//! shown of them.
//!
//! It never waits for the host itself: work that waits is handed out and comes back as [`Finished`],
//! so that a container that will not stop does not keep another from being asked after. A caller
//! that goes away (the kubelet's deadline) changes nothing: the work goes on, and the next caller who
//! asks for the same waits for the same.

use super::registry::Key;
use super::state::{Event, State};
use super::{Command, Pod, PodRecord, Reply, View, parts};
use crate::container::{self, ContainerRecord, ContainerView};
use crate::error::{Chain, Error, Result};
use crate::monitors::{Client, Notice};
use crate::node::Node;
use crate::store;
use hull_proto::id::{ContainerId, PodId};
use hull_proto::monitor::{self, Exit, Started};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{Instrument as _, error, info, warn};

mod containers;
mod resize;

/// Commands that may wait for the task.
const QUEUE: usize = 64;

/// Work that was handed out and is done.
#[derive(Debug)]
enum Finished {
    Built(std::result::Result<parts::Up, parts::Error>),
    TornDown(std::result::Result<(), parts::Error>),
    Created(ContainerId, std::result::Result<container::User, Error>),
    Started(ContainerId, std::result::Result<Started, Error>),
    Stopped(ContainerId, u64, std::result::Result<(), Error>),
    Killed(ContainerId, std::result::Result<(), Error>),
    Removed(ContainerId, std::result::Result<(), Error>),
    Updated(ContainerId, u64, std::result::Result<(), Error>),
    Nothing,
}

/// A container as its pod's task holds it.
#[derive(Debug)]
struct Held {
    record: Arc<ContainerRecord>,
    /// For work that waits until it ended.
    state: watch::Sender<container::State>,
    /// Callers of Create, Start and Remove that wait for the same work.
    creating: Vec<Reply<ContainerId>>,
    /// Why it could not be made; told once nothing of it is left.
    unmade: Option<Arc<Error>>,
    starting: Option<Vec<Reply<()>>>,
    removing: Vec<Reply<()>>,
    /// Removal is under way.
    removal: bool,
    /// Callers of Stop, each with its own grace period.
    stopping: BTreeMap<u64, Reply<()>>,
    updating: BTreeMap<u64, Reply<()>>,
    /// A stop signal was sent.
    stop_asked: bool,
    /// It ended before we heard that it had started.
    early_exit: Option<Exit>,
}

/// The task's own data.
#[derive(Debug)]
pub(crate) struct Task {
    node: Arc<Node>,
    id: PodId,
    key: Key,
    record: Arc<PodRecord>,
    client: Option<Client>,
    containers: BTreeMap<ContainerId, Held>,
    failure: Option<Arc<Error>>,
    view: watch::Sender<Arc<View>>,
    notices: mpsc::Receiver<Notice>,
    notices_in: mpsc::Sender<Notice>,
    work: JoinSet<Finished>,
    next_waiter: u64,
    stop_waiters: Vec<Reply<()>>,
    remove_waiters: Vec<Reply<()>>,
    tearing_down: bool,
    /// A pod that could not be built has been taken away, as far as that went.
    settled: bool,
    gone: bool,
    began: Instant,
}

/// Where a monitor's notices go until the pod's task takes them.
pub(crate) fn notices() -> (mpsc::Sender<Notice>, mpsc::Receiver<Notice>) {
    mpsc::channel(QUEUE)
}

/// A pod's task before it runs, and the handle on it.
pub(crate) fn prepare(
    node: &Arc<Node>,
    id: PodId,
    record: PodRecord,
    notices_in: mpsc::Sender<Notice>,
    notices: mpsc::Receiver<Notice>,
) -> (Pod, Start) {
    let record = Arc::new(record);
    let view = View {
        id: id.clone(),
        record: Arc::clone(&record),
        containers: BTreeMap::new(),
        failure: None,
        client: None,
        gone: false,
    };
    let (view, seen) = watch::channel(Arc::new(view));
    let (commands, inbox) = mpsc::channel(QUEUE);
    let metadata = record.config.metadata.clone().unwrap_or_default();
    let task = Task {
        node: Arc::clone(node),
        id: id.clone(),
        key: Key::of(&metadata),
        record,
        client: None,
        containers: BTreeMap::new(),
        failure: None,
        view,
        notices,
        notices_in,
        work: JoinSet::new(),
        next_waiter: 0,
        stop_waiters: Vec::new(),
        remove_waiters: Vec::new(),
        tearing_down: false,
        settled: false,
        gone: false,
        began: Instant::now(),
    };
    (Pod { id, commands, view: seen }, Start { task, inbox })
}

/// A task that is ready to run.
#[derive(Debug)]
pub(crate) struct Start {
    task: Task,
    inbox: mpsc::Receiver<Command>,
}

impl Start {
    /// Takes over what recovery found: a connection, and the containers' records. What differs from
    /// `recorded`, as the last daemon left it, happened meanwhile.
    pub(crate) fn adopt(
        &mut self,
        client: Option<Client>,
        containers: Vec<(ContainerId, ContainerRecord)>,
        recorded: (PodRecord, Vec<(ContainerId, ContainerRecord)>),
    ) {
        let task = &mut self.task;
        let (pod, before) = recorded;
        let now = std::mem::replace(&mut task.record, Arc::new(pod));
        task.containers.extend(before.into_iter().map(|(id, record)| (id, Held::new(record))));
        task.view.send_replace(Arc::new(task.shown()));
        task.record = now;
        task.client = client;
        task.containers.clear();
        for (id, record) in containers {
            task.node.registry.enter_container(id.clone(), task.id.clone());
            task.containers.insert(id, Held::new(record));
        }
        task.publish();
    }

    /// Runs the task. A pod that is Building is built; one that is Stopping is torn down.
    pub(crate) fn run(self) {
        let Self { mut task, inbox } = self;
        let span = tracing::info_span!("pod", pod = %task.id.short());
        tokio::spawn(async move { task.run(inbox).await }.instrument(span));
    }
}

impl Held {
    fn new(record: ContainerRecord) -> Self {
        let (state, _) = watch::channel(record.state.clone());
        Self {
            record: Arc::new(record),
            state,
            creating: Vec::new(),
            unmade: None,
            starting: None,
            removing: Vec::new(),
            removal: false,
            stopping: BTreeMap::new(),
            updating: BTreeMap::new(),
            stop_asked: false,
            early_exit: None,
        }
    }
}

impl Task {
    async fn run(&mut self, mut inbox: mpsc::Receiver<Command>) {
        match self.record.state {
            State::Building => self.build(),
            State::Stopping => self.tear_down(),
            State::Ready { .. } | State::Stopped => {}
        }
        while !self.gone {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.command(command),
                    // Every handle is gone: the daemon is ending. Monitors go on without us.
                    None => return,
                },
                Some(notice) = self.notices.recv() => self.notice(notice),
                Some(done) = self.work.join_next() => match done {
                    Ok(finished) => self.finished(finished),
                    Err(err) => error!(error = %err, "work on a pod panicked"),
                },
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Create { config, reply } => self.create(*config, reply),
            Command::Start { id, reply } => self.start(&id, reply),
            Command::Stop { id, grace_s, reply } => self.stop(&id, grace_s, reply),
            Command::Remove { id, reply } => self.remove(&id, reply),
            Command::Update { id, resources, reply } => self.update(&id, *resources, reply),
            Command::ReopenLog { id, reply } => self.reopen_log(&id, reply),
            Command::UpdatePod { sizes, reply } => self.resize(*sizes, reply),
            Command::StopPod { reply } => self.stop_pod(Some(reply)),
            Command::RemovePod { reply } => {
                self.remove_waiters.push(reply);
                self.stop_pod(None);
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Event(monitor::Event::ContainerExited(id, exit)) => self.exited(&id, exit),
            Notice::Event(monitor::Event::PauseExited(exit)) => {
                if self.record.state.is_ready() {
                    warn!(how = ?exit.how, "pause process ended by itself; the sandbox is gone");
                    self.lost_sandbox();
                }
            }
            // Delivered to their callers by the connection.
            Notice::Event(monitor::Event::ExecExited(..)) => {}
            Notice::Event(monitor::Event::LogLost { container, bytes, errno }) => {
                self.log_lost(&container, bytes, errno);
            }
            Notice::Lost => {
                self.client = None;
                if self.record.state.is_ready() {
                    warn!("monitor is gone; ending what it left");
                    self.lost_sandbox();
                }
            }
        }
    }

    /// The sandbox ended by itself: what is left of the pod is taken away, and the kubelet sees it
    /// NOTREADY.
    fn lost_sandbox(&mut self) {
        self.transition(&Event::SandboxLost);
        if self.client.is_none() {
            self.lose_containers();
        }
        self.tear_down();
    }

    fn finished(&mut self, finished: Finished) {
        match finished {
            Finished::Built(Ok(up)) => self.built(up),
            Finished::Built(Err(source)) => self.build_failed(source),
            Finished::TornDown(result) => self.torn_down(result),
            Finished::Created(id, result) => self.created(&id, result),
            Finished::Started(id, result) => self.started(&id, result),
            Finished::Stopped(id, waiter, result) => self.stopped(&id, waiter, result),
            Finished::Killed(id, Ok(())) => self.removal_goes_on(&id),
            Finished::Killed(id, Err(err)) => self.removed(&id, Err(err)),
            Finished::Removed(id, result) => self.removed(&id, result),
            Finished::Updated(id, waiter, result) => self.updated(&id, waiter, result),
            Finished::Nothing => {}
        }
        if !self.remove_waiters.is_empty() {
            self.remove_when_possible();
        }
    }

    fn build(&mut self) {
        let (node, id, record) =
            (Arc::clone(&self.node), self.id.clone(), Arc::clone(&self.record));
        let notices = self.notices_in.clone();
        self.work.spawn(async move {
            Finished::Built(parts::bring_up(&node, &id, &record, notices).await)
        });
    }

    fn built(&mut self, up: parts::Up) {
        self.client = Some(up.client);
        if !matches!(self.record.state, State::Building) {
            // Stopped while it was being built.
            self.tear_down();
            return;
        }
        self.transition(&Event::Built { pause_pid: up.pause_pid, ips: up.ips });
        info!(took_ms = self.began.elapsed().as_millis(), "pod ready");
    }

    fn build_failed(&mut self, source: parts::Error) {
        warn!(error = %Chain(&source), "pod could not be built");
        self.failure = Some(Arc::new(Error::Parts { doing: "build", source }));
        self.transition(&Event::BuildFailed);
        // Nobody will ask for the removal of a pod whose id was never given out.
        self.tear_down();
    }

    fn stop_pod(&mut self, reply: Option<Reply<()>>) {
        match self.record.state {
            State::Stopped => {
                answer(reply, Ok(()));
                self.remove_when_possible();
                return;
            }
            State::Building => {
                self.transition(&Event::StopAsked);
                self.stop_waiters.extend(reply);
                return;
            }
            State::Ready { .. } => info!("stopping pod"),
            State::Stopping => {}
        }
        self.transition(&Event::StopAsked);
        self.stop_waiters.extend(reply);
        self.tear_down();
    }

    /// Ends the containers, then the sandbox. One at a time; whoever asks meanwhile waits for it.
    fn tear_down(&mut self) {
        if self.tearing_down {
            return;
        }
        self.tearing_down = true;
        let (node, id, record) =
            (Arc::clone(&self.node), self.id.clone(), Arc::clone(&self.record));
        let client = self.client.clone();
        let cgroups = self.containers.values().map(|held| held.record.cgroup.clone()).collect();
        let running: Vec<_> = self
            .containers
            .iter_mut()
            .filter(|(_, held)| matches!(held.record.state, container::State::Running { .. }))
            .map(|(id, held)| {
                held.stop_asked = true;
                (id.clone(), held.state.subscribe())
            })
            .collect();
        self.work.spawn(async move {
            if let Some(client) = &client {
                container::stop::kill_all(client, running).await;
            }
            Finished::TornDown(parts::take_down(&node, &id, &record, cgroups, client).await)
        });
    }

    fn torn_down(&mut self, result: std::result::Result<(), parts::Error>) {
        self.tearing_down = false;
        self.settled = true;
        match result {
            Ok(()) => {
                self.client = None;
                self.lose_containers();
                self.transition(&Event::TornDown);
                info!("pod stopped");
                for waiter in self.stop_waiters.drain(..) {
                    answer(Some(waiter), Ok(()));
                }
                if self.failure.is_some() {
                    self.forget();
                }
            }
            Err(source) => {
                error!(error = %Chain(&source), "pod could not be torn down; it stays NOTREADY until the next try");
                let error = Arc::new(Error::Parts { doing: "tear down", source });
                for waiter in self.stop_waiters.drain(..).chain(self.remove_waiters.drain(..)) {
                    answer(Some(waiter), Err(Arc::clone(&error)));
                }
                self.publish();
            }
        }
    }

    /// Goes on with a removal: the pod is stopped first, then its containers go, then its record.
    fn remove_when_possible(&mut self) {
        if self.remove_waiters.is_empty() || !matches!(self.record.state, State::Stopped) {
            return;
        }
        if self.containers.is_empty() {
            self.forget();
            return;
        }
        let ids: Vec<_> = self.containers.keys().cloned().collect();
        for id in ids {
            self.begin_remove(&id);
        }
    }

    /// The pod is gone: the record last.
    fn forget(&mut self) {
        let removed = self.node.pods.remove(self.id.as_str());
        let result = removed.map_err(|source| Arc::new(Error::Store { source }));
        if result.is_ok() {
            self.node.registry.leave(&self.id, &self.key);
            self.gone = true;
        }
        for waiter in self.remove_waiters.drain(..) {
            answer(Some(waiter), result.clone());
        }
        // Those who wait for a pod that could not be built hear why only now, when nothing of it is
        // left.
        self.publish();
        info!("pod removed");
    }

    fn transition(&mut self, event: &Event) {
        match self.record.state.clone().next(event) {
            Ok(state) => {
                let mut record = (*self.record).clone();
                record.state = state;
                self.record = Arc::new(record);
                self.save();
            }
            Err(refused) => error!(error = %refused, "pod machine refused an event"),
        }
        self.publish();
    }

    fn save(&self) {
        if let Err(err) = self.node.pods.save(self.id.as_str(), &*self.record) {
            // The state lives on in memory; only a restart of the daemon would see the older one, and
            // recovery takes its facts from the monitor anyway.
            error!(error = %Chain(&err), "pod record not written");
        }
    }

    fn publish(&self) {
        let now = Arc::new(self.shown());
        let before = self.view.send_replace(Arc::clone(&now));
        self.node.events.publish(&before, &now);
    }

    fn shown(&self) -> View {
        let containers = self.containers.iter().map(|(id, held)| {
            let view = ContainerView {
                id: id.clone(),
                pod: self.id.clone(),
                record: Arc::clone(&held.record),
            };
            (id.clone(), Arc::new(view))
        });
        // A pod whose start failed tells so only once it is taken down.
        View {
            id: self.id.clone(),
            record: Arc::clone(&self.record),
            containers: containers.collect(),
            failure: self.failure.clone().filter(|_| self.settled),
            client: self.client.clone(),
            gone: self.gone,
        }
    }
}

/// Answers a caller, who may have gone.
fn answer<T>(reply: Option<Reply<T>>, result: Result<T>) {
    if let Some(reply) = reply {
        let _gone = reply.send(result);
    }
}

/// Records a new pod. The record is there before anything is made.
pub(crate) fn record(
    node: &Node,
    id: &PodId,
    record: &PodRecord,
) -> std::result::Result<(), store::Error> {
    node.pods.save(id.as_str(), record)
}
