// SPDX-License-Identifier: Apache-2.0
//! Connections that have not sent hello yet.
//!
//! ```text
//! connects ── cannot be the daemon ─▶ closed
//!    └─▶ newcomer ── hello ─▶ the daemon, in place of the one before
//!            ├── anything else, too late ─▶ closed
//!            └── too many, and the oldest ─▶ closed
//! ```
//!
//! The rule: until it has sent hello, a connection changes nothing for any other. The newest is always accepted, so
//! silent ones keep nobody out: a daemon sends hello at once.

use crate::connection::{Connection, Disconnected};
use crate::event_loop::{EventLoop, EventSource};
use crate::limits;
use hull_proto::monitor::Request;
use rustix::event::epoll::EventFlags;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Most newcomers at a time.
const NEWCOMERS_MAX: usize = limits::NEWCOMERS.count();
/// Time until hello: as long as a daemon waits for the answer.
const HELLO_MAX: Duration = limits::HELLO_S.time();

/// A connection that has not sent hello.
#[derive(Debug)]
struct Newcomer {
    connection: Connection,
    token: u64,
    until: Instant,
}

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Newcomers {
    list: Vec<Newcomer>,
    /// Number of connections so far that could be the daemon's.
    accepted: u64,
}

impl Newcomers {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a connection was ever accepted.
    pub(crate) fn had_any(&self) -> bool {
        self.accepted > 0
    }

    /// A connection for a stream whose other end may be the daemon; `None` for any other.
    pub(crate) fn connection(&self, stream: UnixStream) -> Option<Connection> {
        Connection::accept(stream, self.accepted)
    }

    /// The number of the oldest, if there is no room for one more.
    pub(crate) fn oldest_if_full(&self) -> Option<u64> {
        let oldest = self.list.first().filter(|_| self.list.len() >= NEWCOMERS_MAX);
        oldest.map(|of| of.connection.number)
    }

    /// Adds a connection; returns its number.
    pub(crate) fn add(&mut self, connection: Connection, events: &mut EventLoop) -> Option<u64> {
        let number = connection.number;
        let (fd, source) = (connection.stream.as_fd(), EventSource::Newcomer(number));
        let token = events.add(fd, source, EventFlags::IN).ok()?;
        self.accepted += 1;
        self.list.push(Newcomer { connection, token, until: Instant::now() + HELLO_MAX });
        Some(number)
    }

    /// Reads from a newcomer. Returns it when it has sent hello; closes it when it has sent anything else.
    pub(crate) fn read(
        &mut self,
        number: u64,
        events: &mut EventLoop,
    ) -> Option<(Connection, Request)> {
        let newcomer = self.list.iter_mut().find(|of| of.connection.number == number)?;
        match newcomer.connection.read_hello() {
            Ok(hello) => {
                let hello = hello?;
                self.remove(number, events).map(|connection| (connection, hello))
            }
            Err(Disconnected) => {
                drop(self.remove(number, events));
                None
            }
        }
    }

    /// Takes a connection out of the list and the loop.
    pub(crate) fn remove(&mut self, number: u64, events: &mut EventLoop) -> Option<Connection> {
        let at = self.list.iter().position(|of| of.connection.number == number)?;
        let newcomer = self.list.remove(at);
        events.remove(newcomer.connection.stream.as_fd(), newcomer.token);
        Some(newcomer.connection)
    }

    /// Closes those whose time is over.
    pub(crate) fn close_silent(&mut self, events: &mut EventLoop) {
        while let Some(oldest) = self.list.first().filter(|of| of.until <= Instant::now()) {
            drop(self.remove(oldest.connection.number, events));
        }
    }

    /// When the time of the next one is over.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.list.first().map(|of| of.until)
    }
}
