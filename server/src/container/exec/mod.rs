// SPDX-License-Identifier: Apache-2.0
//! ExecSync: a command in a running container, its output and its exit code.
//!
//! The monitor makes the process; its output comes straight to us through pipes of our own, bounded
//! in bytes ([`output`]) and, once the process has ended, in time: a grandchild that keeps the pipe open cannot
//! hold anything here.

mod output;
mod slots;
mod terminal;
mod throttled;

use crate::container::{self, ContainerRecord, State, freezer};
use crate::diagnostics::{explain, program};
use crate::error::{Error, Result, sentence};
use crate::history::FailedExec;
use crate::limits::call_memory::{self, UsedUp};
use crate::limits::waits;
use crate::metrics::EndedWork;
use crate::monitors;
use crate::node::{Node, now_ns};
use crate::pod::{Pod, PodRecord};
use crate::storage::blocking;
use crate::tracer::{self, Ended, Span};
use hull_proto::id::{ContainerId, PodId};
use hull_proto::monitor::{Command, Exit, ExitHow, Failure as MonitorFailure, Streams, Target};
use output::OutputCollector;
use rustix::pipe::{PipeFlags, pipe_with};
pub(crate) use slots::{ExecSlots, NoSlot};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use terminal::Master;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

const SIGKILL: i32 = 9;

/// The output and exit code of a command.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) code: i32,
    /// The output's share of the memory budget of all calls, to be held until it is sent.
    pub(crate) held: call_memory::Held,
}

/// Runs `cmd` and waits for it, at most for `limit`; then it is killed.
pub(crate) async fn sync(
    node: &Arc<Node>,
    id: &ContainerId,
    pod: &Pod,
    cmd: &[String],
    limit: Option<Duration>,
) -> Result<Output> {
    let ran = run(node, id, pod, cmd, limit).await;
    let failed = match &ran {
        Ok(output) if output.code == 0 => return ran,
        Ok(output) => {
            (format!("exit code {}", output.code), FailedExec::tail(&output.stdout, &output.stderr))
        }
        Err(err) => (sentence(err), String::new()),
    };
    let (outcome, output) = failed;
    let command = cmd.join(" ");
    node.history.failed_exec(id.as_str(), FailedExec { at_ns: now_ns(), command, outcome, output });
    ran
}

async fn run(
    node: &Arc<Node>,
    id: &ContainerId,
    pod: &Pod,
    cmd: &[String],
    limit: Option<Duration>,
) -> Result<Output> {
    let _slot = node.exec_slots.take(id).map_err(Error::from)?;
    let (stdout, stdout_in) = pipe()?;
    let (stderr, stderr_in) = pipe()?;
    let streams = Streams { stdin: false, stdout: true, stderr: true, tty: false };
    // The limit is for all of it: a launch may hang as well as a command.
    // A limit beyond the range of the clock is ignored.
    let over = limit.and_then(|limit| Some((limit, Instant::now().checked_add(limit)?)));
    let launch = start(node, id, pod, cmd, streams, vec![stdout_in, stderr_in]);
    let running = match over {
        // Dropped, it is killed on its way.
        Some((limit, at)) => timeout_at(at, launch)
            .await
            .map_err(|_| Error::ExecTimeout { limit, throttled_percent: None })??,
        None => launch.await?,
    };
    match collect(node, stdout, stderr, running, over).await {
        Err(failed) => Err(throttled::explain(node, id, pod, failed).await),
        ended => ended,
    }
}

/// A started process. Dropping this kills it, unless [`KillOnDrop::disarm`] was called.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) kill: KillOnDrop,
    pub(crate) ended: oneshot::Receiver<Exit>,
}

/// The operation that an error of a start names.
const DOING: &str = "run the command";

/// Starts `cmd` in a container with the descriptors that `streams` names, none of them a terminal.
pub(crate) async fn start(
    node: &Arc<Node>,
    id: &ContainerId,
    pod: &Pod,
    cmd: &[String],
    streams: Streams,
    fds: Vec<OwnedFd>,
) -> Result<Running> {
    let view = pod.view();
    let shown = running_thawed(node, &view, id, "run a command in")?;
    let mut process = process(node, &view, &shown, cmd).await?;
    process.terminal = None;
    launch(node, &view, &shown, process, streams, fds).await
}

/// Starts `cmd` in a container, at a terminal of the container's own with this many rows and columns. Returns the
/// master of the terminal too.
pub(crate) async fn start_at_terminal(
    node: &Arc<Node>,
    id: &ContainerId,
    pod: &Pod,
    cmd: &[String],
    size: Option<(u16, u16)>,
) -> Result<(Running, OwnedFd)> {
    let view = pod.view();
    let shown = running_thawed(node, &view, id, "run a command in")?;
    let mut process = process(node, &view, &shown, cmd).await?;
    process.terminal = size;
    if !process.env.iter().any(|variable| variable.starts_with(b"TERM=")) {
        // As containers with a terminal have it: the type of the client's terminal is not in a request.
        process.env.push(b"TERM=xterm".to_vec());
    }
    let (master, fd) = Master::prepare(&client(&view)?)?;
    let streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };
    let running = launch(node, &view, &shown, process, streams, vec![fd]).await?;
    // Dropped without a terminal, the process is killed.
    Ok((running, master.take()?))
}

/// The connection to the pod's monitor.
fn client(view: &crate::pod::PodSnapshot) -> Result<monitors::Client> {
    let lost = || Arc::new(Error::Monitor { doing: DOING, source: monitors::Error::Lost });
    view.client.clone().ok_or_else(lost)
}

async fn launch(
    node: &Arc<Node>,
    view: &crate::pod::PodSnapshot,
    shown: &container::ContainerSnapshot,
    process: hull_plan::Process,
    streams: Streams,
    fds: Vec<OwnedFd>,
) -> Result<Running> {
    let (client, id) = (client(view)?, &shown.id);
    let exec = node.next_exec();
    node.history.count_exec(id.as_str());
    let encoded = hull_plan::encode(&process);
    // From here on a caller that goes away takes the process with it.
    let mut kill = KillOnDrop { client: client.clone(), exec: Some(exec) };
    let began = Instant::now();
    let started = client.exec(id.clone(), exec, encoded, streams, fds);
    let waited = node.launch_max();
    let started = timeout(waited, started).await;
    count(node, shown, began.elapsed(), matches!(started, Ok(Ok(_))));
    let Ok(started) = started else {
        return Err(Arc::new(Error::LaunchTimeout { doing: DOING, waited }));
    };
    // One that hangs may launch it later.
    if matches!(&started, Err(err) if !matches!(err, monitors::Error::Hangs { .. })) {
        kill.disarm();
    }
    match started {
        Ok((_, ended)) => Ok(Running { kill, ended }),
        Err(monitors::Error::Refused { failure: MonitorFailure::Step(step) })
            if hull_plan::decode_step(&step).is_some_and(|error| hull_plan::is_gone(&error)) =>
        {
            // The container ended on the way, and its monitor has not said so yet.
            let (verb, id) = ("run a command in", id.to_string());
            Err(Arc::new(Error::WrongState { verb, kind: "container", id, state: "exited" }))
        }
        Err(monitors::Error::Refused { failure: MonitorFailure::Step(step) }) => {
            let (node, record) = (Arc::clone(node), Arc::clone(&shown.record));
            let (of, known, started) = (Arc::clone(&node), Arc::clone(&record), process.clone());
            let errno = container::start::exec_errno(&step);
            let failure = blocking(move || explain::exec(&node, &record, &process, &step)).await;
            let failure = program::denied(&of, &known, &started, errno, failure).await;
            Err(Arc::new(Error::Failed { doing: DOING, failure: Box::new(failure) }))
        }
        Err(source) => Err(Arc::new(Error::Monitor { doing: DOING, source })),
    }
}

/// Counts a launch. It is a span of the call, if that is traced.
fn count(node: &Node, shown: &container::ContainerSnapshot, took: Duration, succeeded: bool) {
    node.metrics.execs.count(&[if succeeded { "success" } else { "error" }]);
    node.metrics.ended(&EndedWork {
        part_of: "exec",
        name: "launch",
        took,
        failed: !succeeded,
        trace: tracer::current().map(|place| place.trace),
    });
    if let Some(call) = tracer::current() {
        let name = shown.record.metadata().0.to_owned();
        node.tracer.ended(Ended {
            span: Span::below(call),
            name: "launch".into(),
            is_call: false,
            took,
            error: if succeeded { String::new() } else { "not launched".into() },
            attributes: vec![("k8s.container.name", name)],
        });
    }
}

/// The snapshot of a container that must be running for `verb`.
///
/// # Errors
/// [`Error::NotFound`], or [`Error::WrongState`] if it does not run.
pub(crate) fn running(
    view: &crate::pod::PodSnapshot,
    id: &ContainerId,
    verb: &'static str,
) -> Result<Arc<container::ContainerSnapshot>> {
    let shown = view.containers.get(id).cloned();
    let shown = shown.ok_or_else(|| Error::NotFound { kind: "container", id: id.to_string() })?;
    if matches!(shown.record.state, State::Running { .. }) {
        return Ok(shown);
    }
    let state = shown.record.state.name();
    Err(Arc::new(Error::WrongState { verb, kind: "container", id: id.to_string(), state }))
}

/// The snapshot of a container for `verb` that must be running and not frozen: what is frozen neither runs a command
/// nor reads a client's input.
///
/// # Errors
/// As [`running`]; [`Error::Paused`] if the freezer holds the container.
pub(crate) fn running_thawed(
    node: &Node,
    view: &crate::pod::PodSnapshot,
    id: &ContainerId,
    verb: &'static str,
) -> Result<Arc<container::ContainerSnapshot>> {
    let shown = running(view, id, verb)?;
    // The kernel answers from memory: a thread for it would take longer than the answer.
    let Some(frozen) = freezer::frozen(node, &shown.record.cgroup) else { return Ok(shown) };
    let (pod, (container, _)) = (view.record.full_name(), shown.record.metadata());
    Err(Arc::new(Error::Paused {
        verb,
        id: id.to_string(),
        name: format!("{pod}/{container}"),
        above: frozen.above,
    }))
}

/// The monitor ended while a process was waited for.
pub(crate) fn lost() -> Arc<Error> {
    Arc::new(Error::Monitor { doing: "wait for the command", source: monitors::Error::Lost })
}

/// The process of an exec: as the container's own, with another command.
async fn process(
    node: &Arc<Node>,
    view: &crate::pod::PodSnapshot,
    shown: &Arc<container::ContainerSnapshot>,
    cmd: &[String],
) -> Result<hull_plan::Process> {
    if cmd.is_empty() {
        return Err(Arc::new(Error::Invalid { field: "cmd", why: "it is empty".into() }));
    }
    if let Some(known) = shown.execs.get() {
        return Ok(known.with(cmd));
    }
    let (node, pod, pod_record) = (Arc::clone(node), view.id.clone(), Arc::clone(&view.record));
    let of = Arc::clone(shown);
    let made = blocking(move || template(&node, &pod, &pod_record, &of.record)).await?;
    Ok(shown.execs.get_or_init(|| made).with(cmd))
}

/// The part of the plan that all execs of a container share, as CreateContainer resolved it: later changes on the
/// node do not count.
fn template(
    node: &Node,
    pod: &PodId,
    pod_record: &PodRecord,
    record: &ContainerRecord,
) -> std::result::Result<hull_plan::Template, Error> {
    if let Some(plan) = node.plans.load(&record.id) {
        let oom_score_adj = container::start::oom_score(record).or(plan.process.oom_score_adj);
        return Ok(hull_plan::Template::of(hull_plan::Process { oom_score_adj, ..plan.process }));
    }
    // Created by a release that kept no plans: resolved again, unless that would let an exec do what
    // the container itself may not.
    let image = node
        .images
        .find(&record.image_id)
        .ok_or_else(|| Error::NoImage { image: record.image_id.clone() })?;
    let spec = container::start::spec(node, pod, pod_record, record, &image, None)?;
    let made = hull_plan::Template::new(&spec, &node.host);
    let made = made.map_err(|source| Error::Plan { source })?;
    if !made.is_confined() && is_confined(record) {
        return Err(Error::ProfileLost { container: record.id.clone() });
    }
    Ok(made)
}

/// Whether seccomp filters the container's first process, as the kernel has it. `proc(5)`, `Seccomp` in
/// /proc/pid/status.
fn is_confined(record: &ContainerRecord) -> bool {
    let State::Running { pid, .. } = record.state else { return false };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() != "0")
}

/// A pipe for output: our side, and the process's.
pub(crate) fn pipe() -> std::result::Result<(Receiver, OwnedFd), Error> {
    let failed = |source| Error::ExecPipes { source };
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|err| failed(err.into()))?;
    rustix::io::ioctl_fionbio(&read, true).map_err(|err| failed(err.into()))?;
    Ok((Receiver::from_owned_fd(read).map_err(failed)?, write))
}

/// A pipe for input: our side, and the process's.
pub(crate) fn pipe_in() -> std::result::Result<(Sender, OwnedFd), Error> {
    let failed = |source| Error::ExecPipes { source };
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|err| failed(err.into()))?;
    rustix::io::ioctl_fionbio(&write, true).map_err(|err| failed(err.into()))?;
    Ok((Sender::from_owned_fd(write).map_err(failed)?, read))
}

/// Kills the exec when dropped, for example when the caller disconnects; [`disarm`](Self::disarm) prevents it.
#[derive(Debug)]
pub(crate) struct KillOnDrop {
    client: monitors::Client,
    exec: Option<u64>,
}

impl KillOnDrop {
    /// Kills the process and waits until it is gone.
    async fn finish(&mut self, ended: oneshot::Receiver<Exit>) {
        let Some(exec) = self.exec else { return };
        let killed = async {
            let command = Command::Signal { target: Target::Exec(exec), signal: SIGKILL };
            // A monitor that is gone has taken its execs along.
            let _gone = self.client.command(command, Vec::new()).await;
            let _ended = ended.await;
        };
        if timeout(waits::EXEC_KILLED_MAX, killed).await.is_ok() {
            self.disarm();
        }
    }

    /// The process has ended.
    pub(crate) fn disarm(&mut self) {
        self.exec = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let Some(exec) = self.exec.take() else { return };
        let client = self.client.clone();
        tokio::spawn(async move {
            let command = Command::Signal { target: Target::Exec(exec), signal: SIGKILL };
            // A monitor that is gone has taken its execs along.
            let _gone = client.command(command, Vec::new()).await;
        });
    }
}

/// Why a command is ended before it ends by itself.
enum Over {
    Time(Duration),
    Memory(UsedUp),
}

impl From<UsedUp> for Over {
    fn from(used_up: UsedUp) -> Self {
        Self::Memory(used_up)
    }
}

async fn collect(
    node: &Node,
    stdout: Receiver,
    stderr: Receiver,
    Running { mut kill, mut ended }: Running,
    over: Option<(Duration, Instant)>,
) -> Result<Output> {
    let most =
        usize::try_from(node.config.current().runtime.exec_output_bytes_max).unwrap_or(usize::MAX);
    let drain = Duration::from_secs(node.config.current().runtime.exec_drain_s);
    let mut captured = OutputCollector::new(stdout, stderr, node.call_memory.lease(), most);
    let exit = {
        let all = async {
            // Output is read while the process runs, or it would block on a full pipe.
            loop {
                tokio::select! {
                    exit = &mut ended => return Ok(exit),
                    filled = captured.fill(), if !captured.is_done() => filled?,
                }
            }
        };
        match over {
            Some((limit, at)) => timeout_at(at, all).await.unwrap_or(Err(Over::Time(limit))),
            None => all.await,
        }
    };
    let exit = match exit {
        Ok(exit) => exit,
        Err(over) => {
            // Before the wait: it is what others lack.
            drop(captured);
            // By the time the error is returned, the process is gone.
            kill.finish(ended).await;
            return Err(Arc::new(match over {
                Over::Time(limit) => Error::ExecTimeout { limit, throttled_percent: None },
                Over::Memory(used_up) => used_up.into(),
            }));
        }
    };
    kill.disarm();
    let exit = exit.map_err(|_| lost())?;
    // A grandchild may hold the pipes open after the process has ended; this bounds the wait for it.
    if let Ok(filled) = timeout(drain, captured.fill_up()).await {
        filled.map_err(Error::from)?;
    }
    let code = match exit.how {
        ExitHow::Code(code) => code,
        ExitHow::Signal(signal) => 128 + signal,
    };
    let (stdout, stderr, lease) = captured.finish();
    Ok(Output { stdout, stderr, code, held: call_memory::Held::new(lease) })
}
