// SPDX-License-Identifier: Apache-2.0
//! The task that owns a pod: the only writer of its record, its containers' records and its snapshot.
//!
//! It never waits for anything but its own records: longer work is handed out ([`work`]) and comes back as a
//! [`WorkResult`], so a container that refuses to stop cannot delay requests for other containers. A caller
//! that disconnects (the kubelet's deadline) changes nothing: the work goes on, and the next caller with the
//! same request waits for the same result.

use super::registry::Key;
use super::state::{Event, State};
use super::{Command, Pod, PodRecord, Reply, View, setup};
use crate::container::stop::Stopped;
use crate::container::{self, ContainerRecord, ContainerView, create};
use crate::error::{Chain, Error, Result};
use crate::monitors::{Client, Notice};
use crate::node::Node;
use crate::nri::verbs;
use crate::pod;
use crate::storage::blocking;
use hull_nri::Roster;
use hull_proto::id::{ContainerId, PodId};
use hull_proto::monitor::{self, Started};
use operation::{Operation, StopRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use teardown_state::{NriVisibility, Removal, Teardown};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument as _, error, info, warn};
use work::WorkSet;

mod containers;
mod operation;
mod plugins;
mod removal;
mod resize;
mod teardown;
mod teardown_state;
mod update;
mod work;

/// Commands that may wait for the task.
const QUEUE: usize = 64;

/// The result of work that was handed out.
#[derive(Debug)]
enum WorkResult {
    Built(std::result::Result<setup::Up, pod::Error>, Arc<Roster>),
    ContainersEnded,
    TornDown(std::result::Result<(), pod::Error>),
    PluginsNotifiedOfRemoval,
    Created(ContainerId, std::result::Result<create::Made, Error>),
    Started(ContainerId, std::result::Result<Started, Error>, Arc<Roster>),
    Stopped(ContainerId, u64, std::result::Result<Stopped, Error>),
    Killed(ContainerId, std::result::Result<Stopped, Error>),
    Removed(ContainerId, std::result::Result<(), Error>),
    UpdateDecided(ContainerId, u64, std::result::Result<Box<update::Decision>, Error>),
    Updated(ContainerId, u64, Box<update::Decision>, std::result::Result<(), Error>),
    ResizeAllowed(Box<resize::Wanted>, std::result::Result<(), Error>),
    /// The wait after a failed teardown is over.
    RetryTeardown,
    /// The work has answered its callers itself.
    Nothing,
}

/// A container of the pod.
#[derive(Debug)]
struct ContainerEntry {
    record: Arc<ContainerRecord>,
    execs: container::Execs,
    planned: container::Planned,
    /// For work that waits until the container exits.
    state: watch::Sender<container::State>,
    operation: Operation<Reply<ContainerId>, Reply<()>>,
    stop: StopRequest<Reply<()>>,
    updates: Updates,
    /// Ends when plugins have been notified of everything so far.
    notified: Option<plugins::Notified>,
}

/// Updates of a container's limits in progress.
#[derive(Debug)]
struct Updates {
    waiters: BTreeMap<u64, Reply<()>>,
    /// One permit: the update that writes the cgroup holds it.
    turn: Arc<tokio::sync::Semaphore>,
}

/// The task's own data.
#[derive(Debug)]
pub(crate) struct Task {
    node: Arc<Node>,
    id: PodId,
    key: Key,
    record: Arc<PodRecord>,
    client: Option<Client>,
    containers: BTreeMap<ContainerId, ContainerEntry>,
    /// Why the pod could not be built.
    failure: Option<Arc<Error>>,
    view: watch::Sender<Arc<View>>,
    notices: mpsc::Receiver<Notice>,
    notices_in: mpsc::Sender<Notice>,
    work: WorkSet,
    next_waiter: u64,
    stop_waiters: Vec<Reply<()>>,
    remove_waiters: Vec<Reply<()>>,
    teardown: Teardown,
    removal: Removal,
    nri: NriVisibility,
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
        work: WorkSet::default(),
        next_waiter: 0,
        stop_waiters: Vec::new(),
        remove_waiters: Vec::new(),
        teardown: Teardown::No,
        removal: Removal::OnRequest,
        nri: NriVisibility::Unknown,
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
            task.containers.insert(id, ContainerEntry::recorded(record));
        }
        task.view.send_replace(Arc::new(task.snapshot()));
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
        // A plugin that connects is synchronized with every pod.
        task.nri = match task.record.state {
            State::Stopped => NriVisibility::Stopped,
            State::Building | State::Ready { .. } | State::Stopping => NriVisibility::Running,
        };
        task.client = client;
        let gone = std::mem::take(&mut task.containers);
        for (id, record) in containers {
            task.containers.insert(id, ContainerEntry::recorded(record));
        }
        for id in gone.keys().filter(|id| !task.containers.contains_key(*id)) {
            task.node.registry.leave_container(id);
        }
        task.publish();
        self.starting = starting;
    }

    /// Has the pod removed as soon as that can be, though nobody asks for it.
    pub(crate) fn remove_unasked(&mut self) {
        self.task.removal = Removal::Automatic;
    }

    /// Runs the task. A pod that is Building is built; one that is Stopping is torn down.
    pub(crate) fn run(self) {
        let Self { mut task, inbox, starting } = self;
        let span = tracing::info_span!("pod", pod = %task.id.short());
        let run = async move {
            for id in starting {
                // No caller of this daemon has requested it.
                let (reply, _nobody) = tokio::sync::oneshot::channel();
                task.start(&id, reply).await;
            }
            if task.removal == Removal::Automatic {
                task.remove_automatically().await;
            }
            task.run(inbox).await;
        };
        tokio::spawn(run.instrument(span));
    }
}

impl ContainerEntry {
    /// A container that an earlier daemon recorded.
    fn recorded(record: ContainerRecord) -> Self {
        Self::new(record, Operation::Idle)
    }

    fn new(record: ContainerRecord, operation: Operation<Reply<ContainerId>, Reply<()>>) -> Self {
        let (state, _) = watch::channel(record.state.clone());
        Self {
            record: Arc::new(record),
            execs: container::Execs::default(),
            planned: container::Planned::default(),
            state,
            operation,
            stop: StopRequest::No,
            updates: Updates {
                waiters: BTreeMap::new(),
                turn: Arc::new(tokio::sync::Semaphore::new(1)),
            },
            notified: None,
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.record.state, container::State::Running { .. })
    }
}

impl Task {
    async fn run(&mut self, mut inbox: mpsc::Receiver<Command>) {
        match self.record.state {
            State::Building => self.build(),
            State::Stopping => self.tear_down().await,
            State::Ready { .. } | State::Stopped => {}
        }
        while !self.teardown.is_done() {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.command(command).await,
                    // Every handle is gone: the daemon is ending. Monitors go on without it.
                    None => return,
                },
                Some(notice) = self.notices.recv() => self.notice(notice).await,
                Some(result) = self.work.next() => self.work_ended(result).await,
            }
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Create { config, reply } => self.create(*config, reply),
            Command::Start { id, reply } => self.start(&id, reply).await,
            Command::Stop { id, grace_s, reply } => self.stop(&id, grace_s, reply).await,
            Command::Remove { id, reply } => self.remove(&id, reply).await,
            Command::Update { id, resources, reply } => self.update(&id, *resources, reply).await,
            Command::Limit { id, resources, reply } => self.limit(&id, *resources, reply).await,
            Command::ReopenLog { id, reply } => self.reopen_log(&id, reply),
            Command::UpdatePod { sizes, reply } => self.resize(*sizes, reply).await,
            Command::StopPod { reply } => self.stop_pod(Some(reply)).await,
            Command::RemovePod { reply } => {
                self.remove_waiters.push(reply);
                self.stop_pod(None).await;
            }
        }
    }

    async fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Event(monitor::Event::ContainerExited(id, exit)) => {
                self.exited(&id, exit).await;
            }
            Notice::Event(monitor::Event::PauseExited(exit)) => {
                if self.record.state.is_ready() {
                    warn!(how = ?exit.how, "pause process ended by itself; the sandbox is gone");
                    self.lost_sandbox().await;
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
                    self.lost_sandbox().await;
                }
            }
        }
    }

    /// The sandbox ended by itself: what is left of the pod is removed, and the kubelet sees it NOTREADY.
    async fn lost_sandbox(&mut self) {
        self.transition(&Event::SandboxLost).await;
        if self.client.is_none() {
            self.lose_containers().await;
        }
        self.tear_down().await;
    }

    async fn work_ended(&mut self, result: WorkResult) {
        match result {
            // The plugin set is held until the result is visible.
            WorkResult::Built(Ok(up), _plugins) => self.built(up).await,
            WorkResult::Built(Err(source), _plugins) => self.build_failed(source).await,
            WorkResult::ContainersEnded => self.containers_ended(),
            WorkResult::TornDown(result) => self.torn_down(result).await,
            WorkResult::PluginsNotifiedOfRemoval => self.forget().await,
            WorkResult::Created(id, result) => self.created(&id, result).await,
            WorkResult::Started(id, result, plugins) => self.started(&id, result, plugins).await,
            WorkResult::Stopped(id, waiter, result) => self.stopped(&id, waiter, result).await,
            WorkResult::Killed(id, Ok(stopped)) => {
                self.lose_unreported(&id, stopped).await;
                self.remove_stopped(&id).await;
            }
            WorkResult::Killed(id, Err(err)) => self.removed(&id, Err(err)).await,
            WorkResult::Removed(id, result) => self.removed(&id, result).await,
            WorkResult::UpdateDecided(id, waiter, result) => {
                self.decided(&id, waiter, result).await;
            }
            WorkResult::Updated(id, waiter, decision, result) => {
                self.updated(&id, waiter, decision, result).await;
            }
            WorkResult::ResizeAllowed(wanted, result) => self.resizable(*wanted, result).await,
            WorkResult::RetryTeardown if matches!(self.record.state, State::Stopping) => {
                if self.removal == Removal::Automatic {
                    self.remove_automatically().await;
                }
                self.tear_down().await;
            }
            WorkResult::RetryTeardown | WorkResult::Nothing => {}
        }
        if !self.remove_waiters.is_empty() {
            self.remove_when_possible().await;
        }
    }

    fn build(&mut self) {
        let (node, id, record) =
            (Arc::clone(&self.node), self.id.clone(), Arc::clone(&self.record));
        let notices = self.notices_in.clone();
        let plugins = self.node.plugins.roster();
        let panicked =
            |err| WorkResult::Built(Err(pod::Error::Internal { source: Box::new(err) }), plugins);
        self.work.spawn("build the pod", panicked, async move {
            let built = setup::bring_up(&node, &id, &record, notices).await;
            let roster = node.plugins.roster();
            let built = match built {
                Ok(up) => verbs::run_pod(&roster, &record, &up).await.map(|()| up),
                Err(source) => Err(source),
            };
            WorkResult::Built(built, roster)
        });
    }

    async fn built(&mut self, up: setup::Up) {
        self.nri = NriVisibility::Running;
        self.client = Some(up.client);
        if !matches!(self.record.state, State::Building) {
            // Stopped while it was being built.
            self.tear_down().await;
            return;
        }
        self.transition(&Event::Built { pause_pid: up.pause_pid, ips: up.ips }).await;
        info!(took_ms = self.began.elapsed().as_millis(), "pod ready");
    }

    async fn build_failed(&mut self, source: pod::Error) {
        warn!(error = %Chain(&source), "pod could not be built");
        // If one plugin refused it, others may have seen it.
        if matches!(source, pod::Error::Plugins { .. }) {
            self.nri = NriVisibility::Running;
        }
        self.failure = Some(Arc::new(Error::Parts { doing: "build", source }));
        self.transition(&Event::BuildFailed).await;
        // Nobody can request the removal of a pod whose id was never returned.
        self.tear_down().await;
    }

    async fn transition(&mut self, event: &Event) {
        match self.record.state.clone().next(event) {
            Ok(state) => {
                let mut record = (*self.record).clone();
                record.state = state;
                self.record = Arc::new(record);
                self.save().await;
            }
            Err(refused) => error!(error = %refused, "pod machine refused an event"),
        }
        self.publish();
    }

    async fn save(&self) {
        let (node, record) = (Arc::clone(&self.node), Arc::clone(&self.record));
        let saved = blocking(move || node.pods.save(&record.id, &*record)).await;
        if let Err(err) = saved {
            // The state lives on in memory; only a restart of the daemon would read the older one, and
            // recovery takes its facts from the monitor anyway.
            error!(error = %Chain(&err), "pod record not written");
        }
    }

    fn publish(&self) {
        let now = Arc::new(self.snapshot());
        let before = self.view.send_replace(Arc::clone(&now));
        self.node.events.publish(&before, &now);
    }

    fn snapshot(&self) -> View {
        let visible = self.containers.iter().filter(|(_, entry)| entry.operation.is_visible());
        let containers = visible.map(|(id, entry)| {
            let view = ContainerView {
                id: id.clone(),
                pod: self.id.clone(),
                record: Arc::clone(&entry.record),
                execs: Arc::clone(&entry.execs),
            };
            (id.clone(), Arc::new(view))
        });
        View {
            id: self.id.clone(),
            record: Arc::clone(&self.record),
            containers: containers.collect(),
            images: self.containers.values().flat_map(|entry| entry.record.images()).collect(),
            failure: self.failure.clone().filter(|_| self.teardown.may_report_failure()),
            client: self.client.clone(),
            gone: self.teardown.is_done(),
        }
    }
}

/// Answers a caller, who may have disconnected.
fn answer<T>(reply: Option<Reply<T>>, result: Result<T>) {
    if let Some(reply) = reply {
        let _gone = reply.send(result);
    }
}
