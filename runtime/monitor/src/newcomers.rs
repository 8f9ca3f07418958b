// SPDX-License-Identifier: Apache-2.0
//! Who has connected and has not said hello yet.
//!
//! ```text
//! connects ── may not be the daemon ─▶ closed
//!    └─▶ newcomer ── hello ─▶ the daemon, in place of the one before
//!            ├── anything else, too late ─▶ closed
//!            └── too many, and the oldest ─▶ closed
//! ```
//!
//! The rule: until it has said hello it changes nothing for anybody else. The newest is always let in, so
//! those that say nothing keep nobody out: a daemon says hello at once.

use crate::connection::{Broken, Connection};
use crate::limits;
use crate::monitor::{DAEMON, Monitor, Watched};
use hull_proto::monitor::Request;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How many there may be.
const NEWCOMERS_MAX: usize = limits::NEWCOMERS.count();
/// How long each may take: as long as a daemon waits for the answer.
const HELLO_MAX: Duration = limits::HELLO_S.time();

/// One of them.
#[derive(Debug)]
pub(crate) struct Newcomer {
    connection: Connection,
    token: u64,
    until: Instant,
}

impl Monitor {
    /// Takes a stream in, if its other end may be the daemon.
    pub(crate) fn newcomer(&mut self, stream: UnixStream) {
        let number = self.connections;
        let Some(connection) = Connection::accept(stream, number) else { return };
        if let Some(oldest) = self.newcomers.first().map(|of| of.connection.number)
            && self.newcomers.len() >= NEWCOMERS_MAX
        {
            self.hear(oldest);
            self.turn_away(oldest);
        }
        let watched = self.watch(connection.stream.as_fd(), Watched::Newcomer(number));
        let Ok(token) = watched else { return };
        self.connections += 1;
        self.newcomers.push(Newcomer { connection, token, until: Instant::now() + HELLO_MAX });
        self.hear(number);
    }

    /// Hears what one says.
    pub(crate) fn hear(&mut self, number: u64) {
        let newcomer = self.newcomers.iter_mut().find(|of| of.connection.number == number);
        let Some(newcomer) = newcomer else { return };
        match newcomer.connection.greeting() {
            Ok(Some(hello)) => self.welcome(number, hello),
            Ok(None) => {}
            Err(Broken) => self.turn_away(number),
        }
    }

    /// It is the daemon from now on: the newer one is the one that lives.
    fn welcome(&mut self, number: u64, hello: Request) {
        let Some(newcomer) = self.take_newcomer(number) else { return };
        let connection = newcomer.connection;
        let _there = epoll::delete(&self.epoll, &connection.stream);
        let data = EventData::new_u64(DAEMON);
        if epoll::add(&self.epoll, &connection.stream, data, EventFlags::IN).is_err() {
            return;
        }
        // The old connection leaves the loop as it closes.
        self.lose_daemon();
        self.daemon = Some(connection);
        self.request(number, hello);
    }

    /// Closes one that is still there.
    fn turn_away(&mut self, number: u64) {
        drop(self.take_newcomer(number));
    }

    fn take_newcomer(&mut self, number: u64) -> Option<Newcomer> {
        let at = self.newcomers.iter().position(|of| of.connection.number == number)?;
        let newcomer = self.newcomers.remove(at);
        self.watched.remove(&newcomer.token);
        Some(newcomer)
    }

    /// Closes those that have had their time.
    pub(crate) fn turn_away_silent(&mut self) {
        while let Some(oldest) = self.newcomers.first().filter(|of| of.until <= Instant::now()) {
            self.turn_away(oldest.connection.number);
        }
    }

    /// When the next one has had its time.
    pub(crate) fn next_silent(&self) -> Option<Instant> {
        self.newcomers.first().map(|of| of.until)
    }
}
