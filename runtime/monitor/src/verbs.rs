// SPDX-License-Identifier: Apache-2.0
//! What the daemon can ask for.

use crate::connection::Asked;
use crate::ending::told;
use crate::log::Log;
use crate::monitor::{Monitor, Watched};
use crate::processes::{Container, Exec, OnItsWay, Pause, Stage, step};
use hull_cgroup::{Cgroup, Limits, Version};
use hull_init::plan::{Namespace, Op, Source};
use hull_init::{
    ExecTarget, Io, LaunchOptions, PausePlan, PendingProcess, Plan, Process, StartedPause,
};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{
    Command, Event, Failure, HelloReply, ProcessState, Request, Response, SLOT_SHM, Stdio, Streams,
    Target, VERSION,
};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// A command that answers later gives `None`.
type Answer = Result<Option<Response>, Failure>;

impl Monitor {
    pub(crate) fn request(&mut self, connection: u64, request: Request) {
        let Request { id, command } = request;
        let id = Asked { connection, request: id };
        // It comes back when there is output; until then nobody reads in a newborn process what a container
        // has written.
        self.room = None;
        let answer = match command {
            Command::Hello { version } => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.version = version;
                }
                self.forget_told_losses();
                Ok(Some(Response::Hello(self.hello())))
            }
            Command::StartPause { .. } | Command::StartContainer { .. } | Command::Exec { .. }
                if self.shutdown.is_some() =>
            {
                Err(Failure::BadRequest("the pod is being shut down".into()))
            }
            Command::StartPause { plan, netns } => self.start_pause(id, &plan, netns),
            Command::StartContainer { container, plan, stdio } => {
                self.start_container(id, container, &plan, stdio)
            }
            Command::Exec { container, exec, process, streams } => {
                self.exec(id, &container, exec, &process, streams)
            }
            Command::Signal { target, signal } => {
                self.signal(&target, signal).map(|()| Some(Response::Ok))
            }
            Command::Update { container, limits } => self.update(&container, &limits),
            Command::ReopenLog { container } => self.reopen(&container),
            Command::Delete { container } => {
                self.forget_when_ended(&container);
                Ok(Some(Response::Ok))
            }
            Command::Attach { container, streams } => {
                let wanted = [streams.stdin, streams.stdout, streams.stderr];
                let count = wanted.into_iter().filter(|on| *on).count();
                self.fds(count).and_then(|fds| self.attach(&container, streams, fds))
            }
            Command::Shutdown => {
                self.begin_shutdown(id);
                Ok(None)
            }
        };
        match answer {
            Ok(Some(done)) => self.reply(id, Ok(done)),
            Ok(None) => {}
            Err(failure) => self.reply(id, Err(failure)),
        }
    }

    fn hello(&self) -> HelloReply {
        let pause = self.pause.as_ref().map(|pause| match (pause.started, pause.exit) {
            (Some(started), Some(exit)) => ProcessState::Exited(started, exit),
            (Some(started), None) => ProcessState::Running(started),
            (None, _) => ProcessState::Starting,
        });
        let containers =
            self.containers.iter().map(|(id, container)| (id.clone(), container.fact()));
        HelloReply {
            version: VERSION,
            pod: self.pod.clone(),
            monitor_pid: self.pid,
            pause,
            containers: containers.collect(),
        }
    }

    /// The descriptors that come with a request.
    fn fds(&mut self, count: usize) -> Result<Vec<OwnedFd>, Failure> {
        let fds = self.daemon.as_mut().and_then(|daemon| daemon.take_fds(count));
        fds.ok_or_else(|| {
            Failure::BadRequest(format!("it needs {count} descriptors to come with it"))
        })
    }

    fn cgroup(&self, path: &str) -> Result<Cgroup, Failure> {
        Cgroup::at(&self.host, path).map_err(|err| Failure::BadRequest(err.to_string()))
    }

    fn on_its_way(
        &mut self,
        starting: PendingProcess,
        request: Asked,
        what: Watched,
    ) -> Result<OnItsWay, Failure> {
        let token = self
            .watch(starting.status.as_fd(), what)
            .map_err(|errno| Failure::System(format!("epoll_ctl(status): {errno}")))?;
        Ok(OnItsWay { starting, token, request })
    }

    fn start_pause(&mut self, request: Asked, plan: &[u8], netns: bool) -> Answer {
        let netns = self.fds(usize::from(netns))?.pop();
        if self.pause.is_some() {
            return Err(Failure::AlreadyExists);
        }
        let plan: PausePlan = decode(plan)?;
        let cgroup = self.cgroup(&plan.cgroup.path)?;
        match self.make_pause(request, &plan, netns, &cgroup) {
            Ok(pause) => {
                self.pause = Some(pause);
                Ok(None)
            }
            Err(failure) => {
                self.leave(cgroup, request, failure);
                Ok(None)
            }
        }
    }

    fn make_pause(
        &mut self,
        request: Asked,
        plan: &PausePlan,
        netns: Option<OwnedFd>,
        cgroup: &Cgroup,
    ) -> Result<Pause, Failure> {
        let started = hull_init::pause(&self.host, plan, netns, self.pause_program.as_fd());
        let StartedPause { pending: starting, procfs } = started.map_err(|error| step(&error))?;
        let (pid, pidfd) = (starting.pid, copy(&starting.pidfd)?);
        let on_its_way = Some(self.on_its_way(starting, request, Watched::PauseStatus)?);
        let cgroup = cgroup.clone();
        Ok(Pause { pid, pidfd, on_its_way, started: None, exit: None, cgroup, procfs })
    }

    fn start_container(
        &mut self,
        request: Asked,
        id: ContainerId,
        plan: &[u8],
        stdio: Stdio,
    ) -> Answer {
        let log = self.fds(usize::from(stdio.log))?.pop();
        if self.containers.contains_key(&id) {
            return self.take_over(request, &id);
        }
        let plan: Plan = decode(plan)?;
        let cgroup = self.cgroup(&plan.cgroup.path)?;
        let slots = self.slots(&plan)?;
        let pipes = Pipes::make(stdio)?;
        match self.make_container(request, &id, plan, pipes, log, &slots, &cgroup) {
            Ok(container) => {
                self.containers.insert(id, container);
                Ok(None)
            }
            Err(failure) => {
                self.leave(cgroup, request, failure);
                Ok(None)
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "all parts of one container, handed over once")]
    fn make_container(
        &mut self,
        request: Asked,
        id: &ContainerId,
        plan: Plan,
        pipes: Pipes,
        log: Option<OwnedFd>,
        slots: &[OwnedFd],
        cgroup: &Cgroup,
    ) -> Result<Container, Failure> {
        let stdin_once = pipes.stdin_once;
        let (keyring, processes) = (keyring(), self.processes());
        let launch = LaunchOptions {
            keyring: Some(&keyring),
            processes: Some(&processes),
            procfs: self.pause.as_ref().and_then(|pause| pause.procfs.as_ref()),
            ..LaunchOptions::default()
        };
        let starting = hull_init::launch(&self.host, &plan, pipes.io, slots, &launch)
            .map_err(|error| step(&error))?;
        let (pid, pidfd) = (starting.pid, copy(&starting.pidfd)?);
        let on_its_way = self.on_its_way(starting, request, Watched::Status(id.clone()))?;
        let stdout = self.watch_output(pipes.stdout, Watched::Stdout(id.clone()))?;
        let stderr = match pipes.stderr {
            Some(stderr) => Some(self.watch_output(stderr, Watched::Stderr(id.clone()))?),
            None => None,
        };
        Ok(Container {
            pid,
            pidfd,
            stage: Stage::Starting(on_its_way),
            cgroup: cgroup.clone(),
            cgroup_path: plan.cgroup.path,
            id_maps: (plan.namespaces.user != Namespace::Inherit).then_some(plan.id_maps),
            log: Log::new(log),
            stdout: Some(stdout),
            stderr,
            interactive: pipes.stdin.is_some(),
            stdin: pipes.stdin,
            stdin_once,
            attached: Vec::new(),
            forget: false,
            asked_by: request.connection,
            keyring,
        })
    }

    /// Whose namespaces a container of the pod may join: running, and our children.
    fn processes(&self) -> Vec<(i32, BorrowedFd<'_>)> {
        let pause = self.pause.iter().filter(|of| of.started.is_some() && of.exit.is_none());
        let pause = pause.map(|of| (of.pid, of.pidfd.as_fd()));
        let running = self.containers.values().filter(|of| matches!(of.stage, Stage::Running(_)));
        pause.chain(running.map(|of| (of.pid, of.pidfd.as_fd()))).collect()
    }

    /// Answers a daemon that asks for a start which an earlier one asked for: that one is gone, and
    /// this one cannot know how far the start got. There is never a second start.
    fn take_over(&mut self, request: Asked, id: &ContainerId) -> Answer {
        let container = self.containers.get_mut(id).filter(|container| {
            // One daemon that asks twice is mistaken.
            container.asked_by != request.connection && !container.forget
        });
        let container = container.ok_or(Failure::AlreadyExists)?;
        container.asked_by = request.connection;
        match &mut container.stage {
            Stage::Starting(on_its_way) => {
                on_its_way.request = request;
                Ok(None)
            }
            Stage::Running(started) | Stage::Ending { started, .. } => {
                Ok(Some(Response::Started(*started)))
            }
            Stage::Ended(started, exit) => {
                let (started, exit) = (*started, *exit);
                // Told before when nobody knew that it had run.
                self.reply(request, Ok(Response::Started(started)));
                self.event(Event::ContainerExited(id.clone(), exit));
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
        // Until its program runs its root is the host's; that must never be handed to a container.
        let Some(pause) =
            self.pause.as_ref().filter(|of| of.started.is_some() && of.exit.is_none())
        else {
            return Err(Failure::BadRequest("the pod has no pause process that runs".into()));
        };
        let shm = hull_init::pod_shm(pause.pidfd.as_fd());
        Ok(vec![shm.map_err(|err| Failure::System(err.to_string()))?])
    }

    fn exec(
        &mut self,
        request: Asked,
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
        if !matches!(container.stage, Stage::Running(_)) {
            return Err(Failure::NotRunning);
        }
        if self.execs.contains_key(&exec) {
            return Err(Failure::AlreadyExists);
        }
        let io = if streams.tty {
            let slave = fds.next().ok_or(Failure::NotRunning)?;
            Io::Terminal { slave, path: String::new() }
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
        let cgroup = self.cgroup_inside(container);
        let target = ExecTarget {
            pidfd: container.pidfd.as_fd(),
            id_maps: container.id_maps.as_ref(),
            cgroup: &cgroup,
        };
        let launch =
            LaunchOptions { keyring: Some(&container.keyring), ..LaunchOptions::default() };
        let starting = hull_init::launch_exec(&self.host, &target, &process, &io, &launch)
            .map_err(|error| step(&error))?;
        let (pid, pidfd) = (starting.pid, copy(&starting.pidfd)?);
        let on_its_way = self.on_its_way(starting, request, Watched::ExecStatus(exec))?;
        self.execs.insert(exec, Exec { pid, pidfd, on_its_way: Some(on_its_way) });
        Ok(None)
    }

    /// Where a further process of a container goes: into its cgroup; or where its first process is, when
    /// that has made cgroups of its own, since a cgroup that hands controllers down takes no process.
    fn cgroup_inside(&self, container: &Container) -> String {
        let own = container.cgroup_path.as_str();
        if container.id_maps.is_none() || self.host.version() != Version::V2 {
            return own.to_owned();
        }
        let first = self.host.unified_of(container.pid).ok().flatten();
        let below =
            |path: &String| path.strip_prefix(own).is_some_and(|rest| rest.starts_with('/'));
        first.filter(below).unwrap_or_else(|| own.to_owned())
    }

    fn signal(&mut self, target: &Target, signal: i32) -> Result<(), Failure> {
        let pidfd = match target {
            Target::ContainerAll(id) => {
                let Some(container) = self.containers.get(id) else { return Ok(()) };
                if matches!(container.stage, Stage::Ended(..)) {
                    return Ok(());
                }
                return self.kill(&container.cgroup).map_err(|err| Failure::System(told(&err)));
            }
            Target::Container(id) => match self.containers.get(id) {
                Some(container) if matches!(container.stage, Stage::Running(_)) => &container.pidfd,
                Some(_) => return Ok(()),
                None => return Err(Failure::NoSuchContainer),
            },
            Target::Exec(exec) => match self.execs.get_mut(exec) {
                Some(exec) if signal == Signal::KILL.as_raw() => {
                    exec.kill();
                    return Ok(());
                }
                Some(exec) => &exec.pidfd,
                None => return Ok(()),
            },
            Target::Pause => match &self.pause {
                Some(pause) => &pause.pidfd,
                None => return Ok(()),
            },
        };
        hull_sys::pidfd_send_signal(pidfd.as_fd(), signal)
            .map_err(|err| Failure::System(err.to_string()))
    }

    fn update(&mut self, id: &ContainerId, limits: &[u8]) -> Answer {
        let limits: Limits = decode(limits)?;
        let container = self.containers.get(id).ok_or(Failure::NoSuchContainer)?;
        container.cgroup.update(&limits).map_err(|err| {
            let hint = err.hint().map_or(String::new(), |hint| format!(" (hint: {hint})"));
            Failure::System(format!("{}{hint}", told(&err)))
        })?;
        Ok(Some(Response::Ok))
    }

    fn reopen(&mut self, id: &ContainerId) -> Answer {
        let file = self.fds(1)?.pop();
        let container = self.containers.get_mut(id).ok_or(Failure::NoSuchContainer)?;
        if let Some(file) = file {
            container.log.reopen(file);
        }
        Ok(Some(Response::Ok))
    }

    /// An ended container is forgotten at once, another is killed and forgotten then.
    fn forget_when_ended(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if matches!(container.stage, Stage::Ended(..)) {
            self.forget(id);
            return;
        }
        container.forget = true;
        let cgroup = container.cgroup.clone();
        let _gone = self.kill(&cgroup);
    }

    fn begin_shutdown(&mut self, request: Asked) {
        self.shutdown = Some(request);
        for container in self.containers.values().filter(|of| !matches!(of.stage, Stage::Ended(..)))
        {
            let _gone = self.kill(&container.cgroup);
        }
        if let Some(pause) = &self.pause {
            let _gone = pidfd_send_signal(&pause.pidfd, Signal::KILL);
            // It may be frozen.
            let _gone = self.kill(&pause.cgroup);
        }
    }

    /// Removes the cgroups that were made here: all processes are gone.
    pub(crate) fn remove_cgroups(&mut self) {
        let ids: Vec<_> = self.containers.keys().cloned().collect();
        for id in ids {
            self.forget(&id);
        }
        if let Some(pause) = self.pause.take() {
            let _busy = pause.cgroup.remove();
        }
    }
}

fn decode<T: borsh::BorshDeserialize>(bytes: &[u8]) -> Result<T, Failure> {
    borsh::from_slice(bytes).map_err(|err| Failure::BadRequest(err.to_string()))
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, Failure> {
    fd.try_clone().map_err(|err| Failure::System(format!("dup(): {err}")))
}

/// The name of a new session keyring. Whoever knew it could make one of that name first.
fn keyring() -> String {
    let mut bytes = [0; 16];
    hull_sys::random(&mut bytes);
    bytes.iter().fold("_ses.".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// Stands for the container's own null device.
fn null() -> Result<OwnedFd, Failure> {
    rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Failure::System(format!("open(/dev/null): {errno}")))
}

/// A container's streams: its side and ours.
struct Pipes {
    io: Io,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdin_once: bool,
}

impl Pipes {
    fn make(stdio: Stdio) -> Result<Self, Failure> {
        if stdio.tty { Self::terminal() } else { Self::both(stdio) }
    }

    fn both(stdio: Stdio) -> Result<Self, Failure> {
        let failed = |errno| Failure::System(format!("pipe2(): {errno}"));
        let (stdout, to_stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let (stderr, to_stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        for ours in [&stdout, &stderr] {
            rustix::io::ioctl_fionbio(ours, true).map_err(failed)?;
        }
        let (from_stdin, stdin) = if stdio.stdin {
            let (from, to) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
            (from, Some(to))
        } else {
            (null()?, None)
        };
        let io = Io::Streams { stdin: from_stdin, stdout: to_stdout, stderr: to_stderr };
        Ok(Self { io, stdout, stderr: Some(stderr), stdin, stdin_once: stdio.stdin_once })
    }

    fn terminal() -> Result<Self, Failure> {
        use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
        let failed = |call: &'static str| move |errno| Failure::System(format!("{call}: {errno}"));
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).map_err(failed("openpt()"))?;
        grantpt(&master).map_err(failed("grantpt()"))?;
        unlockpt(&master).map_err(failed("unlockpt()"))?;
        let path = ptsname(&master, Vec::new()).map_err(failed("ptsname()"))?;
        let slave = ioctl_tiocgptpeer(&master, flags).map_err(failed("ioctl(TIOCGPTPEER)"))?;
        rustix::io::ioctl_fionbio(&master, true).map_err(failed("ioctl(FIONBIO)"))?;
        let io = Io::Terminal { slave, path: path.to_string_lossy().into_owned() };
        let stdin = Some(copy(&master)?);
        // Closing one of our descriptors of a terminal ends nothing.
        Ok(Self { io, stdout: master, stderr: None, stdin, stdin_once: false })
    }
}
