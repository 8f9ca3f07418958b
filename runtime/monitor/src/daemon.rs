// SPDX-License-Identifier: Apache-2.0
//! The connected daemon, if there is one: replies and events for it.

use crate::connection::{Connection, Disconnected, RequestId};
use crate::event_loop::{DAEMON, EventLoop};
use hull_proto::monitor::{Event, Failure, Message, Request, Response};
use rustix::event::epoll::EventFlags;
use std::os::fd::{AsFd as _, OwnedFd};

/// The daemon's connection. Everything that is sent while there is none is dropped: the next daemon gets the state
/// of all processes with its hello.
#[derive(Debug, Default)]
pub(crate) struct Daemon {
    connection: Option<Connection>,
    /// The loop waits until it can be written to.
    waits_to_write: bool,
    /// A daemon was connected, and [`Daemon::take_lost`] has not reported yet that it is gone.
    lost: bool,
}

impl Daemon {
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Its protocol version; 0 if none is connected.
    pub(crate) fn version(&self) -> u16 {
        self.connection.as_ref().map_or(0, |connection| connection.version)
    }

    /// Sets the protocol version that its hello has.
    pub(crate) fn set_version(&mut self, version: u16) {
        if let Some(connection) = &mut self.connection {
            connection.version = version;
        }
    }

    /// Puts a connection in place of the one before, if the loop accepts it.
    pub(crate) fn replace(&mut self, connection: Connection, events: &EventLoop) -> bool {
        if events.add_fixed(connection.stream.as_fd(), DAEMON).is_err() {
            return false;
        }
        // The old connection leaves the loop as it closes.
        self.lose();
        (self.connection, self.waits_to_write) = (Some(connection), false);
        true
    }

    /// Closes the connection.
    pub(crate) fn lose(&mut self) {
        self.lost |= self.connection.take().is_some();
    }

    /// Whether a daemon was lost since the last call.
    pub(crate) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Reads once; `false` if nothing was there, or the connection is lost.
    pub(crate) fn read(&mut self) -> bool {
        let read = self.connection.as_mut().map_or(Ok(false), Connection::read);
        read.unwrap_or_else(|Disconnected| {
            self.lose();
            false
        })
    }

    /// The next complete request, with the number of its connection.
    pub(crate) fn next(&mut self) -> Option<(u64, Request)> {
        let connection = self.connection.as_mut()?;
        let number = connection.number;
        match connection.next() {
            Ok(request) => request.map(|request| (number, request)),
            Err(Disconnected) => {
                self.lose();
                None
            }
        }
    }

    /// The next `count` descriptors that came with the request.
    pub(crate) fn take_fds(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        self.connection.as_mut()?.take_fds(count)
    }

    /// Sends bytes that are still buffered.
    pub(crate) fn flush(&mut self) {
        if self.connection.as_mut().is_some_and(|connection| connection.flush().is_err()) {
            self.lose();
        }
    }

    /// Waits to write as long as there are buffered bytes.
    pub(crate) fn adjust(&mut self, events: &EventLoop) {
        let Some(connection) = &self.connection else { return };
        let wants_to_write = connection.wants_to_write();
        if wants_to_write == self.waits_to_write {
            return;
        }
        let write = if wants_to_write { EventFlags::OUT } else { EventFlags::empty() };
        events.modify(connection.stream.as_fd(), DAEMON, EventFlags::IN | write);
        self.waits_to_write = wants_to_write;
    }

    fn send(&mut self, message: &Message) {
        if self.connection.as_mut().is_some_and(|connection| connection.send(message).is_err()) {
            self.lose();
        }
    }

    /// Answers a request, if its connection is still there.
    pub(crate) fn reply(&mut self, request: RequestId, result: Result<Response, Failure>) {
        if self.connection.as_ref().is_some_and(|of| of.number == request.connection) {
            self.send(&Message::Reply { id: request.request, result });
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.send(&Message::Event(event));
    }
}
