// SPDX-License-Identifier: Apache-2.0
//! The pod's processes: on their way, running, ending, ended.
//!
//! ```text
//! Starting ─ exec went through ─▶ Running ─ reaped ─▶ Ending ─ cgroup empty, output drained ─▶ Ended
//!     └────── a step failed ─▶ forgotten
//! ```
//!
//! A container ends with its first process: the rest of its cgroup is killed then, so that its output
//! can end. The daemon hears of the end once the log has all of it.

use crate::attach::{self, Attached};
use crate::connection::Asked;
use crate::ending::Emptying;
use crate::log::{Log, Stream};
use crate::monitor::{Monitor, Watched};
use crate::text::Text;
use hull_cgroup::Cgroup;
use hull_init::plan::IdMaps;
use hull_init::{PendingProcess, PodProcfs};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Event, Exit, ExitHow, Failure, ProcessState, Response, Started};
use hull_sys::Reaped;
use hull_sys::time::now_ns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use std::os::fd::{AsFd as _, OwnedFd};

/// How much output is read at a time, in bytes: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// Chunks of one stream before the others get their turn.
const TURN: usize = 16;
/// Reads of what an ended container left in a pipe. It is in there already and a pipe holds a mebibyte
/// at most, so only a process that escaped, and goes on writing, gets as far as this.
const DRAIN_READS_MAX: usize = 256;

/// No process has this number: of a start whose program's process has not told its own yet.
const NOBODY: i32 = 0;

/// A process between clone and exec, and who waits for it.
#[derive(Debug)]
pub(crate) struct OnItsWay {
    pub(crate) starting: PendingProcess,
    pub(crate) token: u64,
    pub(crate) request: Asked,
}

/// Where a container's first process is.
#[derive(Debug)]
pub(crate) enum Stage {
    Starting(OnItsWay),
    Running(Started),
    /// Reaped; the rest of the cgroup is being killed.
    Ending {
        started: Started,
        how: ExitHow,
        at_ns: i64,
        emptying: Emptying,
    },
    Ended(Started, Exit),
}

/// Where output passes through, for all streams of the pod: there while data flows, see
/// [`Monitor::serve`].
#[derive(Debug)]
pub(crate) struct Room {
    chunk: Box<[u8]>,
    text: Text,
}

impl Room {
    fn new() -> Self {
        Self { chunk: vec![0; CHUNK].into_boxed_slice(), text: crate::log::room() }
    }
}

/// A stream that is read.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) fd: OwnedFd,
    pub(crate) token: u64,
    /// Out of the loop, as somebody attached must take what was read before.
    pub(crate) held: bool,
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stage: Stage,
    pub(crate) cgroup: Cgroup,
    pub(crate) cgroup_path: String,
    /// Maps of its user namespace, when that is not ours.
    pub(crate) id_maps: Option<IdMaps>,
    pub(crate) log: Log,
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Option<Output>,
    /// Kept open for those who attach.
    pub(crate) stdin: Option<OwnedFd>,
    /// The first who attaches closes it when going.
    pub(crate) stdin_once: bool,
    /// Somebody may type into it, so it waits for those who look at it.
    pub(crate) interactive: bool,
    /// Who gets a copy of the output.
    pub(crate) attached: Vec<Attached>,
    /// The daemon wants it forgotten as soon as it has ended.
    pub(crate) forget: bool,
    /// The connection that asked for its start, or took that over.
    pub(crate) asked_by: u64,
    /// The session keyring of all its processes: a name that nobody in it can guess beforehand.
    pub(crate) keyring: String,
}

/// The pause process.
#[derive(Debug)]
pub(crate) struct Pause {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) on_its_way: Option<OnItsWay>,
    pub(crate) started: Option<Started>,
    pub(crate) exit: Option<Exit>,
    pub(crate) cgroup: Cgroup,
    /// Of a pid namespace that the containers share.
    pub(crate) procfs: Option<PodProcfs>,
}

/// A further process in a container.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) on_its_way: Option<OnItsWay>,
}

impl Exec {
    /// Takes the news of its start; its number may become another once. See [`PendingProcess::update`].
    fn update(&mut self) {
        if let Some(on_its_way) = &mut self.on_its_way
            && on_its_way.starting.update()
            && let Ok(pidfd) = on_its_way.starting.pidfd.try_clone()
        {
            (self.pid, self.pidfd) = (on_its_way.starting.pid, pidfd);
        }
    }

    /// Kills it, wherever it is on its way.
    pub(crate) fn kill(&mut self) {
        if let Some(on_its_way) = &mut self.on_its_way {
            on_its_way.starting.kill();
        }
        self.update();
        let _gone = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
    }
}

impl Container {
    /// Takes the news of its start; its number may become another once. See [`PendingProcess::update`].
    fn update(&mut self) {
        if let Stage::Starting(on_its_way) = &mut self.stage
            && on_its_way.starting.update()
            && let Ok(pidfd) = on_its_way.starting.pidfd.try_clone()
        {
            (self.pid, self.pidfd) = (on_its_way.starting.pid, pidfd);
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending { .. })
    }

    /// Its first process is still to be waited for.
    fn is_unreaped(&self) -> bool {
        matches!(self.stage, Stage::Starting(_) | Stage::Running(_))
    }

    pub(crate) fn fact(&self) -> ProcessState {
        match &self.stage {
            Stage::Starting(_) => ProcessState::Starting,
            // Until its log is whole it counts as running; the event follows.
            Stage::Running(started) | Stage::Ending { started, .. } => {
                ProcessState::Running(*started)
            }
            Stage::Ended(started, exit) => ProcessState::Exited(*started, *exit),
        }
    }
}

impl Monitor {
    /// Takes every child that has ended.
    pub(crate) fn reap(&mut self) {
        while let Some(pid) = hull_sys::next_ended() {
            // Whose number it is must be known before it is free for another.
            self.update_starts();
            let Some(reaped) = hull_sys::reap(pid) else { return };
            let (pid, how) = match reaped {
                Reaped::Code(pid, code) => (pid, ExitHow::Code(code)),
                Reaped::Signal(pid, signal) => (pid, ExitHow::Signal(signal)),
            };
            self.ended(pid, how);
        }
    }

    /// Takes the news of all starts that are under way.
    fn update_starts(&mut self) {
        self.containers.values_mut().for_each(Container::update);
        self.execs.values_mut().for_each(Exec::update);
    }

    fn ended(&mut self, pid: i32, how: ExitHow) {
        let at_ns = now_ns();
        // Only those not reaped yet: the number of one that was may be another's by now.
        if self.pause.as_ref().is_some_and(|pause| pause.pid == pid && pause.exit.is_none()) {
            self.settle_pause();
            self.pause_ended(how, at_ns);
            return;
        }
        let container = self.containers.iter().find(|(_, of)| of.pid == pid && of.is_unreaped());
        if let Some(id) = container.map(|(id, _)| id.clone()) {
            if let Some(container) = self.containers.get_mut(&id)
                && let Stage::Starting(on_its_way) = &mut container.stage
                && !on_its_way.starting.ended()
            {
                container.pid = NOBODY;
                return;
            }
            // Whether it ever ran its program is known by now.
            self.settle(&id);
            self.container_ended(&id, how, at_ns);
            return;
        }
        let exec = self.execs.iter().find(|(_, exec)| exec.pid == pid).map(|(number, _)| *number);
        if let Some(number) = exec {
            if let Some(exec) = self.execs.get_mut(&number)
                && let Some(on_its_way) = &mut exec.on_its_way
                && !on_its_way.starting.ended()
            {
                exec.pid = NOBODY;
                return;
            }
            self.settle_exec(number);
            if self.execs.remove(&number).is_some() {
                let exit = exit_of(how, at_ns);
                self.event(Event::ExecExited(number, exit));
            }
        }
        // Anything else was orphaned in the pod and is of no more interest.
    }

    fn pause_ended(&mut self, how: ExitHow, at_ns: i64) {
        let Some(pause) = &mut self.pause else { return };
        let Some(started) = pause.started else {
            self.pause = None;
            return;
        };
        let at_ns = at_ns.max(started.at_ns);
        let exit = exit_of(how, at_ns);
        pause.exit = Some(exit);
        self.event(Event::PauseExited(exit));
    }

    /// Removes what is left of an ended container.
    pub(crate) fn forget(&mut self, id: &ContainerId) {
        if let Some(container) = self.containers.remove(id) {
            self.watched.retain(|_, what| !matches!(what, Watched::Client(of) if of == id));
            // Busy only when something hangs in it; the daemon clears it by its path.
            let _busy = container.cgroup.remove();
        }
    }

    /// Hears how the start of a container went, if there is news.
    pub(crate) fn settle(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.update();
        let Stage::Starting(on_its_way) = &mut container.stage else { return };
        let Some(result) = on_its_way.starting.poll() else { return };
        let (request, token) = (on_its_way.request, on_its_way.token);
        let started = Started { pid: container.pid, at_ns: now_ns() };
        let before = std::mem::replace(&mut container.stage, Stage::Running(started));
        if let Stage::Starting(on_its_way) = before {
            self.unwatch(&on_its_way.starting.status, token);
        }
        match result {
            Ok(()) => self.reply(request, Ok(Response::Started(started))),
            Err(error) => self.discard(id, request, step(&error)),
        }
    }

    /// Takes away a container whose program never ran, and then answers.
    fn discard(&mut self, id: &ContainerId, request: Asked, failure: Failure) {
        let Some(mut container) = self.containers.remove(id) else { return };
        for output in [container.stdout.take(), container.stderr.take()].into_iter().flatten() {
            self.unwatch(&output.fd, output.token);
        }
        // Its process ends by itself; killed, in case it hangs before that.
        let _gone =
            rustix::process::pidfd_send_signal(&container.pidfd, rustix::process::Signal::KILL);
        self.leave(container.cgroup, request, failure);
    }

    /// Hears how the start of the pause process went, if there is news.
    pub(crate) fn settle_pause(&mut self) {
        let Some(pause) = &mut self.pause else { return };
        let Some(on_its_way) = &mut pause.on_its_way else { return };
        let Some(result) = on_its_way.starting.poll() else { return };
        let Some(on_its_way) = pause.on_its_way.take() else { return };
        let started = Started { pid: pause.pid, at_ns: now_ns() };
        if result.is_ok() {
            pause.started = Some(started);
        }
        self.unwatch(&on_its_way.starting.status, on_its_way.token);
        match result {
            Ok(()) => self.reply(on_its_way.request, Ok(Response::Started(started))),
            Err(error) => {
                let Some(pause) = self.pause.take() else { return };
                let _gone =
                    rustix::process::pidfd_send_signal(&pause.pidfd, rustix::process::Signal::KILL);
                self.leave(pause.cgroup, on_its_way.request, step(&error));
            }
        }
    }

    /// Hears how the start of an exec went, if there is news.
    pub(crate) fn settle_exec(&mut self, number: u64) {
        let Some(exec) = self.execs.get_mut(&number) else { return };
        exec.update();
        let Some(on_its_way) = &mut exec.on_its_way else { return };
        let Some(result) = on_its_way.starting.poll() else { return };
        let started = Started { pid: exec.pid, at_ns: now_ns() };
        let Some(on_its_way) = exec.on_its_way.take() else { return };
        self.unwatch(&on_its_way.starting.status, on_its_way.token);
        let reply = match result {
            Ok(()) => Ok(Response::Started(started)),
            Err(error) => {
                self.execs.remove(&number);
                Err(step(&error))
            }
        };
        self.reply(on_its_way.request, reply);
    }

    /// Reads a stream's output into the log, for one turn.
    pub(crate) fn output(&mut self, id: &ContainerId, stream: Stream) {
        match self.without_output(id, stream) {
            Some(Flow::Closed) => return self.close(id, stream),
            Some(Flow::More | Flow::Empty | Flow::Held) => return,
            None => {}
        }
        let mut room = self.room.take().unwrap_or_else(Room::new);
        for _ in 0..TURN {
            match self.read_output(id, stream, &mut room) {
                Flow::More => {}
                Flow::Empty => break,
                Flow::Held => {
                    self.hold(id, stream);
                    break;
                }
                Flow::Closed => {
                    self.close(id, stream);
                    break;
                }
            }
        }
        self.room = Some(room);
    }

    /// Reads all that is there: the processes are gone, so no more comes.
    pub(crate) fn drain(&mut self, id: &ContainerId, stream: Stream) {
        if self.without_output(id, stream).is_none() {
            let mut room = self.room.take().unwrap_or_else(Room::new);
            for _ in 0..DRAIN_READS_MAX {
                match self.read_output(id, stream, &mut room) {
                    // Nobody can be held up any more, so what is owed may grow.
                    Flow::More | Flow::Held => {}
                    Flow::Empty | Flow::Closed => break,
                }
            }
            self.room = Some(room);
        }
        self.hold(id, stream);
        self.close(id, stream);
    }

    /// How a read would end when there is nothing to read; `None` when there is. Most containers end with
    /// nothing left in their pipes, and room for output costs more than all else at an end: it is mapped,
    /// cleared, and wiped when it is given back. Not asked while there is room.
    fn without_output(&self, id: &ContainerId, stream: Stream) -> Option<Flow> {
        let container = self.containers.get(id)?;
        let output = match stream {
            Stream::Stdout => &container.stdout,
            Stream::Stderr => &container.stderr,
        };
        let fd = output.as_ref().filter(|_| self.room.is_none())?.fd.as_fd();
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).ok()?;
        let seen = fds[0].revents();
        if seen.contains(PollFlags::IN) {
            None
        } else if seen.intersects(PollFlags::HUP | PollFlags::ERR) {
            Some(Flow::Closed)
        } else {
            Some(Flow::Empty)
        }
    }

    fn read_output(&mut self, id: &ContainerId, stream: Stream, room: &mut Room) -> Flow {
        let Some(container) = self.containers.get_mut(id) else { return Flow::Closed };
        let output = match stream {
            Stream::Stdout => &container.stdout,
            Stream::Stderr => &container.stderr,
        };
        let Some(output) = output else { return Flow::Closed };
        match read(output.fd.as_fd(), &mut *room.chunk) {
            Ok(0) => Flow::Closed,
            Ok(got) => {
                container.log.take(stream, &room.chunk[..got], &mut room.text);
                let (clients, patience) = (&mut container.attached, container.interactive);
                if attach::copy(clients, stream, &room.chunk[..got], patience) {
                    Flow::Held
                } else {
                    Flow::More
                }
            }
            Err(Errno::INTR) => Flow::More,
            Err(Errno::AGAIN) => Flow::Empty,
            // EIO of a terminal whose other side is closed.
            Err(_) => Flow::Closed,
        }
    }

    fn close(&mut self, id: &ContainerId, stream: Stream) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let output = match stream {
            Stream::Stdout => container.stdout.take(),
            Stream::Stderr => container.stderr.take(),
        };
        container.log.end(stream);
        attach::end(&mut container.attached, stream);
        if let Some(output) = output {
            self.unwatch(&output.fd, output.token);
        }
    }

    /// Adds an output to the loop.
    pub(crate) fn watch_output(&mut self, fd: OwnedFd, what: Watched) -> Result<Output, Failure> {
        let token = self
            .watch(fd.as_fd(), what)
            .map_err(|errno| Failure::System(format!("epoll_ctl(output): {errno}")))?;
        Ok(Output { fd, token, held: false })
    }

    /// No process of the pod is left.
    pub(crate) fn is_empty(&self) -> bool {
        let ended = |container: &Container| matches!(container.stage, Stage::Ended(..));
        self.pause.as_ref().is_none_or(|pause| pause.exit.is_some())
            && self.containers.values().all(ended)
            && self.execs.is_empty()
            && self.leaving.is_empty()
    }
}

enum Flow {
    More,
    Empty,
    /// Somebody attached must be waited for.
    Held,
    Closed,
}

fn exit_of(how: ExitHow, at_ns: i64) -> Exit {
    Exit { how, at_ns, oom_kills: 0, memory_peak_bytes: None, pids_refused: 0 }
}

/// A failed step as the daemon reads it.
pub(crate) fn step(error: &hull_init::StepError) -> Failure {
    match borsh::to_vec(error) {
        Ok(bytes) => Failure::Step(bytes),
        Err(err) => Failure::System(err.to_string()),
    }
}
