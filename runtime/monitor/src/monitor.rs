// SPDX-License-Identifier: Apache-2.0
//! The loop: one epoll over the listening socket, the daemon, SIGCHLD, status pipes and output.

use crate::connection::{Asked, Broken, Connection};
use crate::ending::Leaving;
use crate::newcomers::Newcomer;
use crate::processes::{Container, Exec, Pause, Room};
use hull_cgroup::CgroupFs;
use hull_proto::id::{ContainerId, PodId};
use hull_proto::monitor::{Event, Failure, Message, Response};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// Tokens of the fixed descriptors; the others are counted up from [`FIRST_FREE`].
pub(crate) const LISTEN: u64 = 0;
pub(crate) const SIGNAL: u64 = 1;
pub(crate) const DAEMON: u64 = 2;
const FIRST_FREE: u64 = 3;

/// Reads of the daemon's requests, and connections, before others get their turn.
const TURN: usize = 64;

/// How long it must be quiet before the room for output is given back: mapping it
/// anew for every batch costs more than the writing. Also how often clients are looked at that are
/// waited for.
const QUIET: Duration = Duration::from_millis(100);

/// What the kernel's clocks may be short of.
const TICK: Duration = Duration::from_millis(1);

/// What a descriptor of the loop stands for.
#[derive(Debug, Clone)]
pub(crate) enum Watched {
    /// Somebody who has not said hello.
    Newcomer(u64),
    Status(ContainerId),
    PauseStatus,
    ExecStatus(u64),
    Stdout(ContainerId),
    Stderr(ContainerId),
    /// Somebody attached to the container, who is owed output.
    Client(ContainerId),
    /// A cgroup that is being emptied: each is looked at after every turn.
    Emptying,
}

/// All there is to know.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) pod: PodId,
    pub(crate) pid: i32,
    pub(crate) host: CgroupFs,
    pub(crate) epoll: OwnedFd,
    listener: UnixListener,
    signals: OwnedFd,
    pub(crate) pause_program: OwnedFd,
    pub(crate) daemon: Option<Connection>,
    /// Not the daemon yet, the oldest first.
    pub(crate) newcomers: Vec<Newcomer>,
    pub(crate) pause: Option<Pause>,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    pub(crate) execs: BTreeMap<u64, Exec>,
    /// Of starts that failed.
    pub(crate) leaving: Vec<Leaving>,
    pub(crate) watched: BTreeMap<u64, Watched>,
    pub(crate) next_token: u64,
    /// The request that asked for the end.
    pub(crate) shutdown: Option<Asked>,
    /// Room for output, while there is any.
    pub(crate) room: Option<Room>,
    /// How many connections there were of who may be the daemon.
    pub(crate) connections: u64,
}

impl Monitor {
    pub(crate) fn new(
        pod: PodId,
        pid: i32,
        host: CgroupFs,
        epoll: OwnedFd,
        listener: UnixListener,
        signals: OwnedFd,
        pause_program: OwnedFd,
    ) -> Self {
        Self {
            pod,
            pid,
            host,
            epoll,
            listener,
            signals,
            pause_program,
            daemon: None,
            newcomers: Vec::new(),
            pause: None,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            leaving: Vec::new(),
            watched: BTreeMap::new(),
            next_token: FIRST_FREE,
            shutdown: None,
            room: None,
            connections: 0,
        }
    }

    /// Serves until the pod is shut down.
    pub(crate) fn serve(mut self) -> Result<(), String> {
        let mut events = Vec::with_capacity(16);
        loop {
            events.clear();
            // Never shorter than what is waited for, or it would be looked at in vain.
            let wait = self.wait().and_then(|wait| Timespec::try_from(wait + TICK).ok());
            let space = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, space, wait.as_ref()) {
                Ok(0) => self.room = None,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(format!("wait for events: {errno}")),
            }
            for event in &events {
                self.handle(event.data.u64(), event.flags);
            }
            self.turn_away_silent();
            self.look_at_ending();
            self.tell_losses();
            self.pay_all();
            if self.is_over() {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, token: u64, flags: EventFlags) {
        match token {
            LISTEN => self.accept(),
            SIGNAL => {
                // What is pending is all the same: every child that has ended is taken.
                let mut drop_it = [0; 128 * 4];
                let _again = rustix::io::read(&self.signals, &mut drop_it);
                self.reap();
            }
            DAEMON => self.daemon(flags),
            other => match self.watched.get(&other).cloned() {
                Some(Watched::Newcomer(number)) => self.hear(number),
                Some(Watched::Status(id)) => self.settle(&id),
                Some(Watched::PauseStatus) => self.settle_pause(),
                Some(Watched::ExecStatus(exec)) => self.settle_exec(exec),
                Some(Watched::Stdout(id)) => self.output(&id, crate::log::Stream::Stdout),
                Some(Watched::Stderr(id)) => self.output(&id, crate::log::Stream::Stderr),
                Some(Watched::Client(id)) => self.pay(&id),
                Some(Watched::Emptying) | None => {}
            },
        }
    }

    fn accept(&mut self) {
        for _ in 0..TURN {
            let Ok((stream, _)) = self.listener.accept() else { return };
            self.newcomer(stream);
        }
    }

    fn daemon(&mut self, flags: EventFlags) {
        let Some(connection) = &mut self.daemon else { return };
        let mut state = Ok(());
        if flags.contains(EventFlags::OUT) {
            state = connection.flush();
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            for _ in 0..TURN {
                let Some(connection) = &mut self.daemon else { return };
                match connection.read() {
                    Ok(true) => self.requests(),
                    Ok(false) => break,
                    Err(Broken) => {
                        state = Err(Broken);
                        break;
                    }
                }
            }
        }
        if state.is_err() {
            self.lose_daemon();
        }
        self.adjust_daemon();
    }

    /// The daemon is gone, and with it whoever waited for an exec: nobody reads what it says any
    /// more. Its end is still taken, as every child's.
    pub(crate) fn lose_daemon(&mut self) {
        self.daemon = None;
        self.execs.values_mut().for_each(Exec::kill);
    }

    fn requests(&mut self) {
        while let Some(connection) = &mut self.daemon {
            let number = connection.number;
            match connection.next() {
                Ok(Some(request)) => self.request(number, request),
                Ok(None) => return,
                Err(Broken) => self.lose_daemon(),
            }
        }
    }

    /// Waits for room to write only while there is something to write.
    fn adjust_daemon(&mut self) {
        let Some(connection) = &self.daemon else { return };
        let mut flags = EventFlags::IN;
        if connection.wants_to_write() {
            flags |= EventFlags::OUT;
        }
        let data = EventData::new_u64(DAEMON);
        let _same = epoll::modify(&self.epoll, &connection.stream, data, flags);
    }

    /// Sends a message to the daemon, if there is one.
    pub(crate) fn tell(&mut self, message: &Message) {
        let Some(connection) = &mut self.daemon else { return };
        if connection.send(message).is_err() {
            self.lose_daemon();
            return;
        }
        self.adjust_daemon();
    }

    /// Answers, if who asked is still there.
    pub(crate) fn reply(&mut self, asked: Asked, result: Result<Response, Failure>) {
        if self.daemon.as_ref().is_some_and(|daemon| daemon.number == asked.connection) {
            self.tell(&Message::Reply { id: asked.request, result });
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.tell(&Message::Event(event));
    }

    /// Adds a descriptor to the loop.
    pub(crate) fn watch(&mut self, fd: BorrowedFd<'_>, what: Watched) -> Result<u64, Errno> {
        let token = self.next_token;
        self.next_token += 1;
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?;
        self.watched.insert(token, what);
        Ok(token)
    }

    /// Takes a descriptor out of the loop.
    pub(crate) fn unwatch(&mut self, fd: &OwnedFd, token: u64) {
        let _closed = epoll::delete(&self.epoll, fd.as_fd());
        self.watched.remove(&token);
    }

    /// How long to wait for events at most; for ever when nothing else is to be done.
    fn wait(&self) -> Option<Duration> {
        let owing = self.containers.values().any(Container::is_owing);
        let quiet = (owing || self.room.is_some()).then_some(QUIET);
        let look = self.next_look().map(|at| at.saturating_duration_since(Instant::now()));
        let silent = self.next_silent().map(|at| at.saturating_duration_since(Instant::now()));
        quiet.into_iter().chain(look).chain(silent).min()
    }

    /// Nothing was ever started and nobody is there who could ask for it: a daemon was killed half
    /// way through. Or the pod has been shut down.
    fn is_over(&mut self) -> bool {
        if let Some(request) = self.shutdown {
            if !self.is_empty() {
                return false;
            }
            self.remove_cgroups();
            self.reply(request, Ok(Response::Ok));
            return true;
        }
        self.connections > 0
            && self.daemon.is_none()
            && self.newcomers.is_empty()
            && self.pause.is_none()
            && self.containers.is_empty()
            && self.leaving.is_empty()
    }
}
