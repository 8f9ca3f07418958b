// SPDX-License-Identifier: Apache-2.0
//! Starting processes: the pause process, containers, execs. A start is answered when its program runs, or when
//! nothing of a failed one is left.

use crate::attach;
use crate::connection::RequestId;
use crate::containers::{Container, ContainerState, Output, Pause as Paused};
use crate::event_loop::EventSource;
use crate::execs::Exec;
use crate::hooks::ContainerHooks;
use crate::last_output::Tails;
use crate::log::Log;
use crate::log_rules::Rules;
use crate::memory_watch::MemoryWatch;
use crate::monitor::Monitor;
use crate::pause::Pause;
use crate::pending_start::{self, PendingStart};
use crate::requests::{Answer, Extras, decode};
use crate::stdio::{Pipes, copy, null, receive_terminal};
use hull_cgroup::{Cgroup, FurtherLimits, Version};
use hull_init::plan::{Namespace, Op, Source};
use hull_init::{
    ExecTarget, Io, LaunchOptions, NewTerminal, PausePlan, PendingProcess, Plan, Process,
    StartedPause, StepError,
};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Event, Failure, Logging, Response, SLOT_SHM, Started, Stdio, Streams};
use hull_sys::time::now_ns;
use rustix::event::epoll::EventFlags;
use rustix::fs::FileType;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// [`Extras`], decoded and with their descriptors.
struct Parts {
    log: Log,
    hooks: Option<ContainerHooks>,
    limits: Option<FurtherLimits>,
    resctrl: Option<OwnedFd>,
}

impl Monitor {
    pub(crate) fn start_pause(&mut self, request: RequestId, plan: &[u8], netns: bool) -> Answer {
        let netns = self.fds(usize::from(netns))?.pop();
        if self.pause.is_some() {
            return Err(Failure::AlreadyExists);
        }
        let plan: PausePlan = decode(plan)?;
        let cgroup = self.cgroup(&plan.cgroup.path)?;
        match self.create_pause(request, &plan, netns, &cgroup) {
            Ok(pause) => self.pause = Some(pause),
            Err(failure) => self.drain_failed_start(cgroup, request, failure, None),
        }
        Ok(None)
    }

    fn create_pause(
        &mut self,
        request: RequestId,
        plan: &PausePlan,
        netns: Option<OwnedFd>,
        cgroup: &Cgroup,
    ) -> Result<Pause, Failure> {
        let started = hull_init::pause(&self.host, plan, netns, self.pause_program.as_fd());
        let StartedPause { pending: process, procfs } = started.map_err(|error| step(&error))?;
        let (pid, pidfd) = (process.pid, copy(&process.pidfd)?);
        let pending = Some(self.pending(process, request, EventSource::PauseStatus)?);
        let cgroup = cgroup.clone();
        Ok(Pause { pid, pidfd, pending, started: None, exit: None, cgroup, procfs })
    }

    pub(crate) fn start_container(
        &mut self,
        request: RequestId,
        id: ContainerId,
        plan: &[u8],
        stdio: Stdio,
        extras: Extras<'_>,
    ) -> Answer {
        let log = self.fds(usize::from(stdio.log))?.pop();
        let dir = self.fds(usize::from(extras.hooks.is_some()))?.pop();
        let log = self.log(log, extras.logging)?;
        let resctrl = self.fds(usize::from(extras.resctrl))?.pop();
        let limits = extras.limits.map(decode).transpose()?;
        if self.containers.contains_key(&id) {
            return self.take_over(request, &id);
        }
        let plan: Plan = decode(plan)?;
        let hooks = match extras.hooks.zip(dir) {
            Some((hooks, dir)) => {
                Some(ContainerHooks { hooks: Rc::new(decode(hooks)?), dir: Rc::new(dir) })
            }
            None => None,
        };
        let cgroup = self.cgroup(&plan.cgroup.path)?;
        let slots = self.slots(&plan)?;
        let pipes = Pipes::new(stdio)?;
        let parts = Parts { log, hooks: hooks.clone(), limits, resctrl };
        match self.create_container(request, &id, plan, pipes, parts, &slots, &cgroup) {
            Ok(container) => {
                self.containers.insert(id, container);
            }
            Err(failure) => {
                let hooks = hooks.map(|hooks| (id, hooks));
                self.drain_failed_start(cgroup, request, failure, hooks);
            }
        }
        Ok(None)
    }

    #[allow(clippy::too_many_arguments, reason = "all parts of one container, passed once")]
    fn create_container(
        &mut self,
        request: RequestId,
        id: &ContainerId,
        plan: Plan,
        pipes: Pipes,
        Parts { log, hooks, limits, resctrl }: Parts,
        slots: &[OwnedFd],
        cgroup: &Cgroup,
    ) -> Result<Container, Failure> {
        let (keyring, processes) = (keyring(), self.processes());
        let options = LaunchOptions {
            keyring: Some(&keyring),
            processes: Some(&processes),
            procfs: self.pause.as_ref().and_then(|pause| pause.procfs.as_ref()),
            hooks: hooks.as_ref().map(|of| &*of.hooks),
            hooks_beside: hooks.as_ref().map(|of| of.dir.as_fd()),
            init: plan.ops.contains(&Op::Init).then(|| self.pause_program.as_fd()),
            further_limits: limits.as_ref(),
            resctrl: resctrl.as_ref().map(OwnedFd::as_fd),
            ..LaunchOptions::default()
        };
        let is_terminal = pipes.stderr.is_none();
        let process = hull_init::launch(&self.host, &plan, pipes.io, slots, &options)
            .map_err(|error| step(&error))?;
        let (pid, pidfd) = (process.pid, copy(&process.pidfd)?);
        let pending = self.pending(process, request, EventSource::Status(id.clone()))?;
        let (stdout, terminal) = if is_terminal {
            (None, Some(pipes.stdout))
        } else {
            let stdout = self.watch_output(pipes.stdout, EventSource::Stdout(id.clone()))?;
            (Some(stdout), None)
        };
        let stderr = match pipes.stderr {
            Some(stderr) => Some(self.watch_output(stderr, EventSource::Stderr(id.clone()))?),
            None => None,
        };
        Ok(Container {
            id: id.clone(),
            pid,
            pidfd,
            state: ContainerState::Starting(pending),
            cgroup: cgroup.clone(),
            cgroup_path: plan.cgroup.path,
            id_maps: (plan.namespaces.user != Namespace::Inherit).then_some(plan.id_maps),
            log,
            memory: None,
            tails: Tails::default(),
            stdout,
            stderr,
            terminal,
            interactive: is_terminal || pipes.stdin.is_some(),
            stdin: pipes.stdin,
            stdin_once: pipes.stdin_once,
            clients: attach::Clients::default(),
            unseen: is_terminal.then(attach::Unseen::default),
            delete: false,
            requested_by: request.connection,
            hooks,
            resctrl,
            keyring,
        })
    }

    /// The log of a new container, with its rules and the descriptors that they name.
    fn log(&mut self, file: Option<OwnedFd>, logging: Option<Logging>) -> Result<Log, Failure> {
        let Some(logging) = logging else { return Ok(Log::new(file)) };
        let dir = self.fds(usize::from(logging.rotate.is_some()))?.pop();
        let journal = self.fds(usize::from(logging.journal.is_some()))?.pop();
        Ok(Log::with_rules(file, Some(Rules::new(logging, dir, journal)?)))
    }

    /// Adds the status pipe of a start to the loop.
    fn pending(
        &mut self,
        process: PendingProcess,
        request: RequestId,
        source: EventSource,
    ) -> Result<PendingStart, Failure> {
        let token = self
            .events
            .add(process.status.as_fd(), source, EventFlags::IN)
            .map_err(|errno| Failure::System(format!("epoll_ctl(status): {errno}")))?;
        Ok(PendingStart { process, token, request })
    }

    /// Adds an output to the loop.
    fn watch_output(&mut self, fd: OwnedFd, source: EventSource) -> Result<Output, Failure> {
        let token = self
            .events
            .add(fd.as_fd(), source, EventFlags::IN)
            .map_err(|errno| Failure::System(format!("epoll_ctl(output): {errno}")))?;
        Ok(Output { fd, token, pause: Paused::No })
    }

    fn cgroup(&self, path: &str) -> Result<Cgroup, Failure> {
        Cgroup::at(&self.host, path).map_err(|err| Failure::BadRequest(err.to_string()))
    }

    /// The processes whose namespaces a container of the pod may join: running, and our children.
    fn processes(&self) -> Vec<(i32, BorrowedFd<'_>)> {
        let pause = self.pause.iter().filter(|of| of.is_running());
        let pause = pause.map(|of| (of.pid, of.pidfd.as_fd()));
        let running = self.containers.values().filter(|of| of.is_running());
        pause.chain(running.map(|of| (of.pid, of.pidfd.as_fd()))).collect()
    }

    /// Answers a daemon that requests a start which an earlier one requested: that one is gone, and this one cannot
    /// know how far the start got. There is never a second start.
    fn take_over(&mut self, request: RequestId, id: &ContainerId) -> Answer {
        let container = self.containers.get_mut(id).filter(|container| {
            // A second request of the same daemon is an error.
            container.requested_by != request.connection && !container.delete
        });
        let container = container.ok_or(Failure::AlreadyExists)?;
        container.requested_by = request.connection;
        match &mut container.state {
            ContainerState::Starting(pending) => {
                pending.request = request;
                Ok(None)
            }
            ContainerState::Running(started) | ContainerState::Ending { started, .. } => {
                Ok(Some(Response::Started(*started)))
            }
            ContainerState::Ended(started, exit) => {
                let (started, exit) = (*started, *exit);
                // The event was sent when no daemon knew that the container had run.
                self.daemon.reply(request, Ok(Response::Started(started)));
                self.daemon.event(Event::ContainerExited(id.clone(), exit));
                Ok(None)
            }
        }
    }

    /// The detached mounts that a plan's binds name.
    fn slots(&self, plan: &Plan) -> Result<Vec<OwnedFd>, Failure> {
        let shm = Source::Slot(SLOT_SHM);
        if !plan.ops.iter().any(|op| matches!(op, Op::Bind { source, .. } if *source == shm)) {
            return Ok(Vec::new());
        }
        // Until its program runs its root is the host's, which must never be passed to a container.
        let Some(pause) = self.pause.as_ref().filter(|of| of.is_running()) else {
            return Err(Failure::BadRequest("the pod has no pause process that runs".into()));
        };
        let shm = hull_init::pod_shm(pause.pidfd.as_fd());
        Ok(vec![shm.map_err(|err| Failure::System(err.to_string()))?])
    }

    pub(crate) fn start_exec(
        &mut self,
        request: RequestId,
        id: &ContainerId,
        exec: u64,
        process: &[u8],
        streams: Streams,
    ) -> Answer {
        let count = if streams.tty {
            1
        } else {
            [streams.stdin, streams.stdout, streams.stderr].into_iter().filter(|on| *on).count()
        };
        let mut fds = self.fds(count)?.into_iter();
        let process: Process = decode(process)?;
        let container = self.containers.get(id).ok_or(Failure::NoSuchContainer)?;
        if !container.is_running() {
            return Err(Failure::NotRunning);
        }
        if self.execs.contains_key(&exec) {
            return Err(Failure::AlreadyExists);
        }
        let io = if streams.tty {
            terminal(fds.next().ok_or(Failure::NotRunning)?)?
        } else {
            let mut next = |on: bool| match on.then(|| fds.next()).flatten() {
                Some(fd) => Ok(fd),
                None => null(),
            };
            Io::Streams {
                stdin: next(streams.stdin)?,
                stdout: next(streams.stdout)?,
                stderr: next(streams.stderr)?,
            }
        };
        let cgroup = self.exec_cgroup(container);
        let target = ExecTarget {
            pidfd: container.pidfd.as_fd(),
            id_maps: container.id_maps.as_ref(),
            cgroup: &cgroup,
        };
        let options = LaunchOptions {
            keyring: Some(&container.keyring),
            resctrl: container.resctrl.as_ref().map(OwnedFd::as_fd),
            ..LaunchOptions::default()
        };
        let process = hull_init::launch_exec(&self.host, &target, &process, &io, &options)
            .map_err(|error| step(&error))?;
        let (pid, pidfd) = (process.pid, copy(&process.pidfd)?);
        let pending = self.pending(process, request, EventSource::ExecStatus(exec))?;
        let watch = self.containers.get(id).and_then(|of| of.memory.as_ref());
        let (container, oom_kills_before) = (id.clone(), watch.map(MemoryWatch::reported));
        let pending = Some(pending);
        self.execs.insert(exec, Exec { pid, pidfd, pending, container, oom_kills_before });
        Ok(None)
    }

    /// The cgroup of a further process of a container: the container's; or that of its first process, if that has
    /// created cgroups of its own, since a cgroup that delegates controllers takes no process.
    fn exec_cgroup(&self, container: &Container) -> String {
        let own = container.cgroup_path.as_str();
        if self.host.version() != Version::V2 {
            return own.to_owned();
        }
        let first = self.host.unified_of(container.pid).ok().flatten();
        let below =
            |path: &String| path.strip_prefix(own).is_some_and(|rest| rest.starts_with('/'));
        first.filter(below).unwrap_or_else(|| own.to_owned())
    }

    /// Answers the start of a container, if its result is known.
    pub(crate) fn poll_start(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.update();
        let ContainerState::Starting(pending) = &mut container.state else { return };
        let Some(result) = pending.poll() else { return };
        let request = pending.request;
        pending.unwatch(&mut self.events);
        let started = Started { pid: container.pid, at_ns: now_ns() };
        container.state = ContainerState::Running(started);
        let result = result.map_err(|error| step(&error)).and_then(|()| self.take_terminal(id));
        match result {
            Ok(()) => {
                self.watch_memory(id);
                self.answer_start(id, request, started);
            }
            Err(failure) => self.abort_start(id, request, failure),
        }
    }

    /// Connects the terminal of a started container, if it has one: its process has sent the master.
    fn take_terminal(&mut self, id: &ContainerId) -> Result<(), Failure> {
        let terminal = self.containers.get_mut(id).and_then(|of| of.terminal.take());
        let Some(socket) = terminal else { return Ok(()) };
        let (output, input) = receive_terminal(&socket)?;
        let output = self.watch_output(output, EventSource::Stdout(id.clone()))?;
        if let Some(container) = self.containers.get_mut(id) {
            (container.stdout, container.stdin) = (Some(output), Some(input));
        }
        Ok(())
    }

    /// Kills and removes a container whose start failed, and then answers.
    fn abort_start(&mut self, id: &ContainerId, request: RequestId, failure: Failure) {
        let Some(mut container) = self.containers.remove(id) else { return };
        container.close_unread(&mut self.events);
        let failure = of_memory(failure, &container.cgroup);
        // Its process ends by itself; killed, in case it hangs before that.
        pending_start::kill(&container.pidfd);
        let hooks = container.hooks.map(|hooks| (id.clone(), hooks));
        self.drain_failed_start(container.cgroup, request, failure, hooks);
    }

    /// Answers the start of the pause process, if its result is known.
    pub(crate) fn poll_pause_start(&mut self) {
        let Some(pause) = &mut self.pause else { return };
        let Some(result) = pause.pending.as_mut().and_then(PendingStart::poll) else { return };
        let Some(pending) = pause.pending.take() else { return };
        pending.unwatch(&mut self.events);
        let started = Started { pid: pause.pid, at_ns: now_ns() };
        match result {
            Ok(()) => {
                pause.started = Some(started);
                self.daemon.reply(pending.request, Ok(Response::Started(started)));
            }
            Err(error) => {
                let Some(pause) = self.pause.take() else { return };
                let failure = of_memory(step(&error), &pause.cgroup);
                pending_start::kill(&pause.pidfd);
                self.drain_failed_start(pause.cgroup, pending.request, failure, None);
            }
        }
    }

    /// Answers the start of an exec, if its result is known.
    pub(crate) fn poll_exec_start(&mut self, number: u64) {
        let Some(exec) = self.execs.get_mut(&number) else { return };
        exec.update();
        let Some(result) = exec.pending.as_mut().and_then(PendingStart::poll) else { return };
        let started = Started { pid: exec.pid, at_ns: now_ns() };
        let Some(pending) = exec.pending.take() else { return };
        pending.unwatch(&mut self.events);
        let reply = match result {
            Ok(()) => Ok(Response::Started(started)),
            Err(error) => {
                let exec = self.execs.remove(&number);
                Err(step(&match exec {
                    Some(exec) => self.exec_failure(&exec, error),
                    None => error,
                }))
            }
        };
        self.daemon.reply(pending.request, reply);
    }

    /// Why an exec did not come to its program. The kernel may have killed it for its container's memory.
    fn exec_failure(&self, exec: &Exec, error: StepError) -> StepError {
        match (self.containers.get(&exec.container), exec.oom_kills_before) {
            (Some(container), Some(before)) => error.or_memory(&container.cgroup, before),
            (None, _) | (_, None) => error,
        }
    }
}

/// The terminal of an exec: the socket for the master of one that is opened in the container; the slave of one that a
/// daemon of an earlier release opened on the host.
fn terminal(fd: OwnedFd) -> Result<Io, Failure> {
    let stat = rustix::fs::fstat(&fd).map_err(|err| Failure::System(format!("fstat(): {err}")))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
        return Ok(Io::NewTerminal(NewTerminal::new(fd)));
    }
    Ok(Io::Terminal(fd))
}

/// A failed step as the daemon reads it.
fn step(error: &StepError) -> Failure {
    match borsh::to_vec(error) {
        Ok(bytes) => Failure::Step(bytes),
        Err(err) => Failure::System(err.to_string()),
    }
}

/// The failure of a start whose process ended without a report. If the kernel killed it for its cgroup's memory, that is
/// the reason.
fn of_memory(failure: Failure, cgroup: &Cgroup) -> Failure {
    let Failure::Step(bytes) = &failure else { return failure };
    match borsh::from_slice::<StepError>(bytes) {
        Ok(error) => step(&error.or_memory(cgroup, 0)),
        Err(_) => failure,
    }
}

/// The name of a new session keyring. Random: a process that knew it could create a keyring of that name first.
fn keyring() -> String {
    let mut bytes = [0; 16];
    hull_sys::random(&mut bytes);
    bytes.iter().fold("_ses.".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}
