// SPDX-License-Identifier: Apache-2.0
//! A container in the monitor: the state of its first process, its output, its clients.
//!
//! ```text
//! Starting ─ exec succeeded ─▶ Running ─ reaped ─▶ Ending ─ cgroup empty, output drained ─▶ Ended
//!     └────── a step failed ─▶ removed
//! ```
//!
//! A container ends with its first process: the rest of its cgroup is killed then, so that its output can end. The
//! daemon is notified of the end when the log has all of it.

use crate::attach::{CLIENTS_MAX, Clients, Unseen, clean_eof, send_stdin};
use crate::draining::DrainingCgroup;
use crate::event_loop::EventLoop;
use crate::hooks::ContainerHooks;
use crate::last_output::Tails;
use crate::log::{self, Log, Stream};
use crate::log_buffer::LogBuffer;
use crate::memory_watch::MemoryWatch;
use crate::pending_start::PendingStart;
use hull_cgroup::Cgroup;
use hull_init::plan::IdMaps;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Exit, ExitHow, Failure, ProcessState, Started, Streams};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

/// How much output is read at a time, in bytes: the size of a pipe.
const CHUNK: usize = 64 << 10;
/// Chunks of one stream before other sources get their turn.
const TURN: usize = 16;
/// Most reads of the output that an ended container left in a pipe. A pipe holds a mebibyte at most, so only a
/// process that escaped, and goes on writing, reaches this limit.
const DRAIN_READS_MAX: usize = 256;

/// The state of a container's first process.
#[derive(Debug)]
pub(crate) enum ContainerState {
    Starting(PendingStart),
    Running(Started),
    /// Reaped; the rest of the cgroup is being killed.
    Ending {
        started: Started,
        how: ExitHow,
        at_ns: i64,
        draining: DrainingCgroup,
    },
    Ended(Started, Exit),
}

/// Buffers for output, shared by all streams of the pod. They exist while data flows; see the loop in
/// [`monitor`](crate::monitor).
#[derive(Debug)]
pub(crate) struct IoBuffers {
    chunk: Box<[u8]>,
    log: LogBuffer,
}

impl Default for IoBuffers {
    fn default() -> Self {
        Self { chunk: vec![0; CHUNK].into_boxed_slice(), log: log::buffer() }
    }
}

/// The result of reading from a stream.
enum ReadOutcome {
    More,
    Empty,
    /// A client must be waited for.
    Backlog,
    Closed,
}

/// A stream that is read.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) fd: OwnedFd,
    pub(crate) token: u64,
    pub(crate) pause: Pause,
}

/// Why a stream is out of the loop, if it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    No,
    /// A client must take earlier output first.
    Clients,
    /// The rate of its log is reached until then.
    Rate(Instant),
}

/// A container of the pod, until the daemon has deleted it.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) state: ContainerState,
    pub(crate) cgroup: Cgroup,
    pub(crate) cgroup_path: String,
    /// Maps of its user namespace, if that is not ours.
    pub(crate) id_maps: Option<IdMaps>,
    pub(crate) log: Log,
    /// Reports out-of-memory kills while it runs.
    pub(crate) memory: Option<MemoryWatch>,
    /// The end of its output.
    pub(crate) tails: Tails,
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Option<Output>,
    /// While it starts: the socket over which the master of its terminal comes.
    pub(crate) terminal: Option<OwnedFd>,
    /// Kept open for clients.
    pub(crate) stdin: Option<OwnedFd>,
    /// The first client closes it when it disconnects.
    pub(crate) stdin_once: bool,
    /// It has input, so it waits for its clients.
    pub(crate) interactive: bool,
    pub(crate) clients: Clients,
    /// Output for the first client of a terminal; `None` after it, and without a terminal.
    pub(crate) unseen: Option<Unseen>,
    /// The daemon wants it deleted as soon as it has ended.
    pub(crate) delete: bool,
    /// The connection that requested its start, or took that over.
    pub(crate) requested_by: u64,
    /// Its hooks, until its poststop hooks are begun.
    pub(crate) hooks: Option<ContainerHooks>,
    /// The group of resctrl of all its processes: its file `tasks`.
    pub(crate) resctrl: Option<OwnedFd>,
    /// Name of the session keyring of all its processes. No process in it can guess it beforehand.
    pub(crate) keyring: String,
}

impl Container {
    /// Updates the state of its start; see [`PendingStart::update`].
    pub(crate) fn update(&mut self) {
        if let ContainerState::Starting(pending) = &mut self.state
            && let Some((pid, pidfd)) = pending.update()
        {
            (self.pid, self.pidfd) = (pid, pidfd);
        }
    }

    /// As [`Self::update`], before the child `ended` of this process is reaped.
    pub(crate) fn update_before_reaping(&mut self, ended: i32) {
        if let ContainerState::Starting(pending) = &mut self.state
            && let Some((pid, pidfd)) = pending.update_before_reaping(ended)
        {
            (self.pid, self.pidfd) = (pid, pidfd);
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running(_))
    }

    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.state, ContainerState::Ending { .. })
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, ContainerState::Ended(..))
    }

    /// Whether its first process is still to be reaped.
    pub(crate) fn is_unreaped(&self) -> bool {
        matches!(self.state, ContainerState::Starting(_) | ContainerState::Running(_))
    }

    pub(crate) fn process_state(&self) -> ProcessState {
        match &self.state {
            ContainerState::Starting(_) => ProcessState::Starting,
            // Until its log is complete it counts as running; the event follows.
            ContainerState::Running(started) | ContainerState::Ending { started, .. } => {
                ProcessState::Running(*started)
            }
            ContainerState::Ended(started, exit) => ProcessState::Exited(*started, *exit),
        }
    }

    /// Attaches a client: `fds` are its sockets for stdin, stdout and stderr, those that `streams` names.
    pub(crate) fn attach(
        &mut self,
        streams: Streams,
        fds: Vec<OwnedFd>,
        events: &mut EventLoop,
    ) -> Result<(), Failure> {
        let mut fds = fds.into_iter();
        if !self.is_running() {
            return Err(Failure::NotRunning);
        }
        if self.clients.len() + 2 > CLIENTS_MAX {
            return Err(Failure::BadRequest(format!("{CLIENTS_MAX} are attached already")));
        }
        if let Some(socket) = streams.stdin.then(|| fds.next()).flatten()
            && let Some(stdin) = &self.stdin
        {
            send_stdin(&socket, stdin)?;
            if self.stdin_once {
                // From now on only that client has it, and closes it.
                self.stdin = None;
            }
        }
        for (stream, wanted) in [(Stream::Stdout, streams.stdout), (Stream::Stderr, streams.stderr)]
        {
            let Some(socket) = wanted.then(|| fds.next()).flatten() else { continue };
            // A stream that has ended already ends for this client at once.
            if self.output(stream).is_some() {
                let unseen = self.unseen.take().map(Unseen::into_bytes).unwrap_or_default();
                if self.clients.add(stream, socket, &unseen) {
                    self.pause_reading(stream, events);
                }
            } else {
                clean_eof(&socket);
            }
        }
        Ok(())
    }

    fn output(&self, stream: Stream) -> Option<&Output> {
        match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        }
    }

    /// Reads a stream's output into the log, for one turn.
    pub(crate) fn read_turn(
        &mut self,
        stream: Stream,
        buffers: &mut Option<IoBuffers>,
        events: &mut EventLoop,
    ) {
        match self.outcome_without_data(stream, buffers.is_some()) {
            Some(ReadOutcome::Closed) => return self.close(stream, events),
            Some(ReadOutcome::More | ReadOutcome::Empty | ReadOutcome::Backlog) => return,
            None => {}
        }
        let buffers = buffers.get_or_insert_default();
        for _ in 0..TURN {
            let room = match self.log.room(stream) {
                Ok(room) => room,
                Err(until) => return self.pause(stream, Pause::Rate(until), events),
            };
            match self.read_chunk(stream, room, buffers) {
                ReadOutcome::More => {}
                ReadOutcome::Empty => return,
                ReadOutcome::Backlog => return self.pause_reading(stream, events),
                ReadOutcome::Closed => return self.close(stream, events),
            }
        }
    }

    /// Reads the rest of a stream's output: the processes are gone, so no more comes, and nobody waits for the rate of
    /// the log.
    pub(crate) fn drain(
        &mut self,
        stream: Stream,
        buffers: &mut Option<IoBuffers>,
        events: &mut EventLoop,
    ) {
        self.log.stop_waiting();
        if self.outcome_without_data(stream, buffers.is_some()).is_none() {
            let buffers = buffers.get_or_insert_default();
            for _ in 0..DRAIN_READS_MAX {
                match self.read_chunk(stream, CHUNK, buffers) {
                    // No process has to wait any more, so the backlog may grow.
                    ReadOutcome::More | ReadOutcome::Backlog => {}
                    ReadOutcome::Empty | ReadOutcome::Closed => break,
                }
            }
        }
        self.pause_reading(stream, events);
        self.close(stream, events);
    }

    /// The outcome of a read if there are no data; `None` if there are. Most containers end with empty pipes, and
    /// buffers are the largest cost of an end: they are mapped, cleared, and wiped when they are freed. Not checked
    /// while buffers exist.
    fn outcome_without_data(&self, stream: Stream, has_buffers: bool) -> Option<ReadOutcome> {
        let fd = self.output(stream).filter(|_| !has_buffers)?.fd.as_fd();
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).ok()?;
        let ready = fds[0].revents();
        if ready.contains(PollFlags::IN) {
            None
        } else if ready.intersects(PollFlags::HUP | PollFlags::ERR) {
            Some(ReadOutcome::Closed)
        } else {
            Some(ReadOutcome::Empty)
        }
    }

    /// Reads at most `most` bytes of a stream's output.
    fn read_chunk(&mut self, stream: Stream, most: usize, buffers: &mut IoBuffers) -> ReadOutcome {
        let Some(output) = self.output(stream) else { return ReadOutcome::Closed };
        match read(output.fd.as_fd(), &mut buffers.chunk[..most.min(CHUNK)]) {
            Ok(0) => ReadOutcome::Closed,
            Ok(got) => {
                let bytes = &buffers.chunk[..got];
                self.log.take(stream, bytes, &mut buffers.log);
                self.tails.add(stream, bytes);
                if let Some(unseen) = &mut self.unseen {
                    unseen.take(bytes);
                }
                if self.clients.copy(stream, bytes, self.interactive) {
                    ReadOutcome::Backlog
                } else {
                    ReadOutcome::More
                }
            }
            Err(Errno::INTR) => ReadOutcome::More,
            Err(Errno::AGAIN) => ReadOutcome::Empty,
            // EIO of a terminal whose other side is closed.
            Err(_) => ReadOutcome::Closed,
        }
    }

    pub(crate) fn close(&mut self, stream: Stream, events: &mut EventLoop) {
        let output = match stream {
            Stream::Stdout => self.stdout.take(),
            Stream::Stderr => self.stderr.take(),
        };
        self.log.end(stream);
        self.clients.end(stream);
        if let Some(output) = output {
            events.remove(output.fd.as_fd(), output.token);
        }
    }

    /// Closes both streams without reading them: its program never ran.
    pub(crate) fn close_unread(&mut self, events: &mut EventLoop) {
        for output in [self.stdout.take(), self.stderr.take()].into_iter().flatten() {
            events.remove(output.fd.as_fd(), output.token);
        }
    }

    /// Waits for the clients with a backlog of a stream, which is not read meanwhile.
    fn pause_reading(&mut self, of: Stream, events: &mut EventLoop) {
        self.pause(of, Pause::Clients, events);
        self.clients.watch(&self.id, events);
    }

    /// Takes a stream out of the loop, if it is not already.
    fn pause(&mut self, of: Stream, why: Pause, events: &EventLoop) {
        let output = match of {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if let Some(output) = output.as_mut().filter(|output| output.pause == Pause::No) {
            events.suspend(output.fd.as_fd());
            output.pause = why;
        }
    }

    /// Sends the backlogs of its clients, and reads again from streams without a backlog.
    pub(crate) fn flush_clients(&mut self, events: &mut EventLoop) {
        self.clients.flush(events);
        for (stream, output) in
            [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)]
        {
            let has_backlog = self.clients.has_backlog_of(stream);
            let paused = output.as_mut().filter(|output| output.pause == Pause::Clients);
            if let Some(output) = paused.filter(|_| !has_backlog) {
                events.resume(output.fd.as_fd(), output.token);
                output.pause = Pause::No;
            }
        }
    }

    /// When a stream is to be read again that waits for the rate of the log.
    pub(crate) fn rate_time(&self) -> Option<Instant> {
        let outputs = [&self.stdout, &self.stderr].into_iter().flatten();
        let times = outputs.filter_map(|output| match output.pause {
            Pause::Rate(until) => Some(until),
            Pause::No | Pause::Clients => None,
        });
        times.min()
    }

    /// Reads again from streams that have waited long enough for the rate of the log.
    pub(crate) fn resume_rate(&mut self, events: &EventLoop) {
        let now = Instant::now();
        for (stream, output) in
            [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)]
        {
            let Some(output) = output else { continue };
            if !matches!(output.pause, Pause::Rate(until) if until <= now) {
                continue;
            }
            if self.clients.has_backlog_of(stream) {
                output.pause = Pause::Clients;
            } else {
                events.resume(output.fd.as_fd(), output.token);
                output.pause = Pause::No;
            }
        }
    }
}
