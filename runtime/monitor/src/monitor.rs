// SPDX-License-Identifier: Apache-2.0
//! The loop over the listening socket, the daemon, SIGCHLD, status pipes and output; and the state of the pod.

use crate::connection::RequestId;
use crate::containers::{Container, IoBuffers};
use crate::daemon::Daemon;
use crate::draining::FailedStart;
use crate::event_loop::{DAEMON, EventLoop, EventSource, LISTEN, SIGNAL};
use crate::execs::Exec;
use crate::hooks::HookRun;
use crate::log::Stream;
use crate::newcomers::Newcomers;
use crate::pause::Pause;
use hull_cgroup::{Cgroup, CgroupFs};
use hull_proto::id::{ContainerId, PodId};
use hull_proto::monitor::{Event, Response, VERSION_LOG_LOST, VERSION_LOGGING};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Reads of the daemon's requests, and connections, before other sources get their turn.
const TURN: usize = 64;

/// How long it must be quiet before the buffers for output are freed: mapping them again for every batch costs more
/// than the writing. Also how often clients with a backlog are checked.
const QUIET: Duration = Duration::from_millis(100);

/// The state of a pod's monitor.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) pod: PodId,
    pub(crate) pid: i32,
    pub(crate) host: CgroupFs,
    pub(crate) events: EventLoop,
    listener: UnixListener,
    signals: OwnedFd,
    pub(crate) pause_program: OwnedFd,
    pub(crate) daemon: Daemon,
    newcomers: Newcomers,
    pub(crate) pause: Option<Pause>,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    pub(crate) execs: BTreeMap<u64, Exec>,
    pub(crate) failed_starts: Vec<FailedStart>,
    /// Processes that run hooks, by number.
    pub(crate) hook_runs: BTreeMap<u64, HookRun>,
    pub(crate) next_hook_run: u64,
    /// The request for the shutdown.
    pub(crate) shutdown: Option<RequestId>,
    /// Buffers for output, while data flows.
    pub(crate) buffers: Option<IoBuffers>,
}

impl Monitor {
    pub(crate) fn new(
        pod: PodId,
        pid: i32,
        host: CgroupFs,
        events: EventLoop,
        listener: UnixListener,
        signals: OwnedFd,
        pause_program: OwnedFd,
    ) -> Self {
        Self {
            pod,
            pid,
            host,
            events,
            listener,
            signals,
            pause_program,
            daemon: Daemon::default(),
            newcomers: Newcomers::default(),
            pause: None,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            failed_starts: Vec::new(),
            hook_runs: BTreeMap::new(),
            next_hook_run: 0,
            shutdown: None,
            buffers: None,
        }
    }

    /// Serves until the pod is shut down.
    pub(crate) fn serve(mut self) -> Result<(), String> {
        let mut events = Vec::with_capacity(16);
        loop {
            events.clear();
            self.daemon.adjust(&self.events);
            match self.events.wait(&mut events, self.timeout()) {
                Ok(0) => self.buffers = None,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(format!("wait for events: {errno}")),
            }
            for event in &events {
                self.handle(event.data.u64(), event.flags);
                self.end_execs_of_lost_daemon();
            }
            self.newcomers.close_silent(&mut self.events);
            self.check_cgroups();
            self.resume_memory();
            self.containers.values_mut().for_each(|of| of.resume_rate(&self.events));
            self.report_log_loss();
            self.flush_clients();
            self.end_execs_of_lost_daemon();
            if self.should_exit() {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, token: u64, flags: EventFlags) {
        match token {
            LISTEN => self.accept(),
            SIGNAL => {
                // Pending signals are merged, so every child that has ended is reaped.
                let mut drop_it = [0; 128 * 4];
                let _again = rustix::io::read(&self.signals, &mut drop_it);
                self.reap();
            }
            DAEMON => self.serve_daemon(flags),
            other => match self.events.source(other) {
                Some(EventSource::Newcomer(number)) => self.greet(number),
                Some(EventSource::Status(id)) => self.poll_start(&id),
                Some(EventSource::PauseStatus) => self.poll_pause_start(),
                Some(EventSource::ExecStatus(exec)) => self.poll_exec_start(exec),
                Some(EventSource::Stdout(id)) => self.read_output(&id, Stream::Stdout),
                Some(EventSource::Stderr(id)) => self.read_output(&id, Stream::Stderr),
                Some(EventSource::Client(id)) => {
                    if let Some(container) = self.containers.get_mut(&id) {
                        container.flush_clients(&mut self.events);
                    }
                }
                Some(EventSource::Memory(id)) => self.out_of_memory(&id),
                Some(EventSource::Hooks(number)) => self.read_hooks(number),
                Some(EventSource::Draining) | None => {}
            },
        }
    }

    fn accept(&mut self) {
        for _ in 0..TURN {
            let Ok((stream, _)) = self.listener.accept() else { return };
            self.add_newcomer(stream);
        }
    }

    fn add_newcomer(&mut self, stream: UnixStream) {
        let Some(connection) = self.newcomers.connection(stream) else { return };
        if let Some(oldest) = self.newcomers.oldest_if_full() {
            self.greet(oldest);
            drop(self.newcomers.remove(oldest, &mut self.events));
        }
        if let Some(number) = self.newcomers.add(connection, &mut self.events) {
            self.greet(number);
        }
    }

    /// Makes a newcomer that has sent hello the daemon: the newest daemon is the one that lives.
    fn greet(&mut self, number: u64) {
        let Some((connection, hello)) = self.newcomers.read(number, &mut self.events) else {
            return;
        };
        if self.daemon.replace(connection, &self.events) {
            self.end_execs_of_lost_daemon();
            self.request(number, hello);
        }
    }

    fn serve_daemon(&mut self, flags: EventFlags) {
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            for _ in 0..TURN {
                if !self.daemon.read() {
                    break;
                }
                while let Some((number, request)) = self.daemon.next() {
                    self.request(number, request);
                }
            }
        }
        if flags.contains(EventFlags::OUT) {
            self.daemon.flush();
        }
    }

    /// Kills the execs of a daemon that is gone: nothing reads their output any more. They are reaped as every child.
    fn end_execs_of_lost_daemon(&mut self) {
        if self.daemon.take_lost() {
            self.execs.values_mut().for_each(Exec::kill);
        }
    }

    fn read_output(&mut self, id: &ContainerId, stream: Stream) {
        if let Some(container) = self.containers.get_mut(id) {
            container.read_turn(stream, &mut self.buffers, &mut self.events);
        }
    }

    /// Sends the backlogs of all clients.
    fn flush_clients(&mut self) {
        for container in self.containers.values_mut().filter(|of| of.clients.has_backlog()) {
            container.flush_clients(&mut self.events);
        }
    }

    /// Reports output that could not be logged, to a daemon whose version has the event: when that begins, when it
    /// is over for now, and before the container's end. A container's output is never delayed by it.
    pub(crate) fn report_log_loss(&mut self) {
        if self.daemon.version() < VERSION_LOG_LOST {
            return;
        }
        for (id, container) in &mut self.containers {
            let last = container.has_ended();
            if let Some(lost) = container.log.news(last) {
                let (container, errno) = (id.clone(), lost.errno.raw_os_error());
                self.daemon.event(Event::LogLost { container, bytes: lost.bytes, errno });
            }
            if self.daemon.version() >= VERSION_LOGGING
                && let Some(dropped) = container.log.news_of_rules(last)
            {
                self.daemon.event(Event::LogDropped { container: id.clone(), dropped });
            }
        }
    }

    /// When a log has something to do or to report, whatever else happens.
    fn log_times(&self) -> impl Iterator<Item = Instant> {
        let reports = self.daemon.version() >= VERSION_LOGGING;
        self.containers.values().flat_map(move |container| {
            let news = if reports { container.log.news_at() } else { None };
            news.into_iter().chain(container.rate_time())
        })
    }

    /// The cgroup of the pod, known once it has a pause process.
    pub(crate) fn pod_cgroup(&self) -> Option<Cgroup> {
        self.pause.as_ref().and_then(|pause| pause.cgroup.parent())
    }

    /// How long to wait for events at most; `None` for ever.
    fn timeout(&self) -> Option<Duration> {
        let has_backlog = self.containers.values().any(|of| of.clients.has_backlog());
        let quiet = (has_backlog || self.buffers.is_some()).then_some(QUIET);
        let times = self.next_check().into_iter().chain(self.newcomers.next_timeout());
        let times = times.chain(self.log_times());
        let left =
            times.chain(self.memory_times()).map(|at| at.saturating_duration_since(Instant::now()));
        quiet.into_iter().chain(left).min()
    }

    /// Whether the pod has been shut down; or nothing was ever started, and no daemon is left to request it, as one
    /// was killed half-way.
    fn should_exit(&mut self) -> bool {
        if let Some(request) = self.shutdown {
            if !self.has_no_process() {
                return false;
            }
            self.remove_cgroups();
            self.daemon.reply(request, Ok(Response::Ok));
            return true;
        }
        self.newcomers.had_any()
            && !self.daemon.is_connected()
            && self.newcomers.is_empty()
            && self.pause.is_none()
            && self.containers.is_empty()
            && self.failed_starts.is_empty()
            && self.hook_runs.is_empty()
    }
}
