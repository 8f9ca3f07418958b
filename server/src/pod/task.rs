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
use crate::container::{self, ContainerRecord, ContainerView, create};
use crate::error::{Chain, Error, Result};
use crate::monitors::{Client, Notice};
use crate::node::Node;
use crate::nri::verbs;
use crate::store;
use hull_nri::Roster;
use hull_proto::id::{ContainerId, PodId};
use hull_proto::monitor::{self, Exit, Started};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{Instrument as _, error, info, warn};

mod containers;
mod plugins;
mod resize;
mod seen;
mod teardown;
mod update;

/// Commands that may wait for the task.
const QUEUE: usize = 64;

/// Work that was handed out and is done.
#[derive(Debug)]
enum Finished {
    Built(std::result::Result<parts::Up, parts::Error>, Arc<Roster>),
    ContainersEnded,
    TornDown(std::result::Result<(), parts::Error>),
    ToldOfEnd,
    Created(ContainerId, std::result::Result<create::Made, Error>),
    Started(ContainerId, std::result::Result<Started, Error>, Arc<Roster>),
    Stopped(ContainerId, u64, std::result::Result<(), Error>),
    Killed(ContainerId, std::result::Result<(), Error>),
    Removed(ContainerId, std::result::Result<(), Error>),
    Decided(ContainerId, u64, std::result::Result<Box<update::Decision>, Error>),
    Updated(ContainerId, u64, Box<update::Decision>, std::result::Result<(), Error>),
    Resizable(Box<resize::Wanted>, std::result::Result<(), Error>),
    /// A teardown that failed is tried again.
    TearDownAgain,
    Nothing,
}

/// A container as its pod's task holds it.
#[derive(Debug)]
struct Held {
    record: Arc<ContainerRecord>,
    execs: container::Execs,
    planned: container::Planned,
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
    /// One turn: the update that writes the cgroup has it.
    limits_turn: Arc<tokio::sync::Semaphore>,
    /// A stop signal was sent.
    stop_asked: bool,
    /// It ended before we heard that it had started.
    early_exit: Option<Exit>,
    /// The last that plugins are being told of it.
    told: Option<plugins::Told>,
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
    /// How often in a row it did not get through.
    failed_teardowns: u32,
    /// Plugins know of it.
    known: bool,
    /// They have not been told that it stops.
    announced: bool,
    /// They are being told that it goes.
    leaving: bool,
    /// A pod that could not be built has been taken away, as far as that went.
    settled: bool,
    /// Nobody knows its id: it is removed without being asked.
    unknown: bool,
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
        images: BTreeSet::new(),
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
        failed_teardowns: 0,
        known: false,
        announced: false,
        leaving: false,
        settled: false,
        unknown: false,
        gone: false,
        began: Instant::now(),
    };
    (Pod { id, commands, view: seen }, Start { task, inbox, starting: Vec::new() })
}

/// A task that is ready to run.
#[derive(Debug)]
pub(crate) struct Start {
    task: Task,
    inbox: mpsc::Receiver<Command>,
    starting: Vec<ContainerId>,
}

impl Start {
    /// Has the containers' records seen, as the last daemon left them.
    pub(crate) fn show(&mut self, recorded: Vec<(ContainerId, ContainerRecord)>) {
        let task = &mut self.task;
        for (id, record) in recorded {
            task.node.registry.enter_container(id.clone(), task.id.clone());
            task.containers.insert(id, Held::new(record));
        }
        task.view.send_replace(Arc::new(task.shown()));
    }

    /// Where the notices of this pod's monitor go.
    pub(crate) fn notices(&self) -> mpsc::Sender<Notice> {
        self.task.notices_in.clone()
    }

    /// Takes over what recovery found: a connection, and the records as they are now. What differs from
    /// what was [shown](Self::show) happened meanwhile. Those that are `starting` an earlier daemon had
    /// started: their starts are waited for as if this one had.
    pub(crate) fn adopt(
        &mut self,
        client: Option<Client>,
        record: PodRecord,
        containers: Vec<(ContainerId, ContainerRecord)>,
        starting: Vec<ContainerId>,
    ) {
        let task = &mut self.task;
        task.record = Arc::new(record);
        // A plugin that joins is told of every pod that there is.
        task.known = true;
        task.announced = !matches!(task.record.state, State::Stopped);
        task.client = client;
        let gone = std::mem::take(&mut task.containers);
        for (id, record) in containers {
            task.containers.insert(id, Held::new(record));
        }
        for id in gone.keys().filter(|id| !task.containers.contains_key(*id)) {
            task.node.registry.leave_container(id);
        }
        task.publish();
        self.starting = starting;
    }

    /// Has the pod removed as soon as that can be, though nobody asks for it.
    pub(crate) fn remove_unasked(&mut self) {
        self.task.unknown = true;
    }

    /// Runs the task. A pod that is Building is built; one that is Stopping is torn down.
    pub(crate) fn run(self) {
        let Self { mut task, inbox, starting } = self;
        let span = tracing::info_span!("pod", pod = %task.id.short());
        let run = async move {
            for id in starting {
                // Nobody of this daemon's callers asked for it.
                let (reply, _nobody) = tokio::sync::oneshot::channel();
                task.start(&id, reply);
            }
            if task.unknown {
                task.remove_pod_unasked();
            }
            task.run(inbox).await;
        };
        tokio::spawn(run.instrument(span));
    }
}

impl Held {
    fn new(record: ContainerRecord) -> Self {
        let (state, _) = watch::channel(record.state.clone());
        Self {
            record: Arc::new(record),
            execs: container::Execs::default(),
            planned: container::Planned::default(),
            state,
            creating: Vec::new(),
            unmade: None,
            starting: None,
            removing: Vec::new(),
            removal: false,
            stopping: BTreeMap::new(),
            updating: BTreeMap::new(),
            limits_turn: Arc::new(tokio::sync::Semaphore::new(1)),
            stop_asked: false,
            early_exit: None,
            told: None,
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
            Command::Limit { id, resources, reply } => self.limit(&id, *resources, reply),
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
            // The roster is held until what was built can be seen.
            Finished::Built(Ok(up), _roster) => self.built(up),
            Finished::Built(Err(source), _roster) => self.build_failed(source),
            Finished::ContainersEnded => self.containers_ended(),
            Finished::TornDown(result) => self.torn_down(result),
            Finished::ToldOfEnd => self.forget(),
            Finished::Created(id, result) => self.created(&id, result),
            Finished::Started(id, result, roster) => self.started(&id, result, roster),
            Finished::Stopped(id, waiter, result) => self.stopped(&id, waiter, result),
            Finished::Killed(id, Ok(())) => self.removal_goes_on(&id),
            Finished::Killed(id, Err(err)) => self.removed(&id, Err(err)),
            Finished::Removed(id, result) => self.removed(&id, result),
            Finished::Decided(id, waiter, result) => self.decided(&id, waiter, result),
            Finished::Updated(id, waiter, decision, result) => {
                self.updated(&id, waiter, decision, result);
            }
            Finished::Resizable(wanted, result) => self.resizable(*wanted, result),
            Finished::TearDownAgain if matches!(self.record.state, State::Stopping) => {
                if self.unknown {
                    self.remove_pod_unasked();
                }
                self.tear_down();
            }
            Finished::TearDownAgain | Finished::Nothing => {}
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
            let built = parts::bring_up(&node, &id, &record, notices).await;
            let roster = node.plugins.roster();
            let built = match built {
                Ok(up) => verbs::run_pod(&roster, &record, &up).await.map(|()| up),
                Err(source) => Err(source),
            };
            Finished::Built(built, roster)
        });
    }

    fn built(&mut self, up: parts::Up) {
        (self.known, self.announced) = (true, true);
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
        // One that a plugin refused others may have heard of.
        self.known = matches!(source, parts::Error::Plugins { .. });
        self.announced = self.known;
        self.failure = Some(Arc::new(Error::Parts { doing: "build", source }));
        self.transition(&Event::BuildFailed);
        // Nobody will ask for the removal of a pod whose id was never given out.
        self.tear_down();
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
        // One that is being made, or could not be, has an id that nobody was told.
        let told =
            |held: &Held| held.record.state != container::State::Creating && held.unmade.is_none();
        let containers = self.containers.iter().filter(|(_, held)| told(held)).map(|(id, held)| {
            let view = ContainerView {
                id: id.clone(),
                pod: self.id.clone(),
                record: Arc::clone(&held.record),
                execs: Arc::clone(&held.execs),
            };
            (id.clone(), Arc::new(view))
        });
        // A pod whose start failed tells so only once it is taken down.
        View {
            id: self.id.clone(),
            record: Arc::clone(&self.record),
            containers: containers.collect(),
            images: self.containers.values().flat_map(|held| held.record.images()).collect(),
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
