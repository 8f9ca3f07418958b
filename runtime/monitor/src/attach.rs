// SPDX-License-Identifier: Apache-2.0
//! Clients attached to a running container: its output goes to each through a socket of its own.
//!
//! The rule: the log comes first, and a container without input waits for no client: a client whose socket cannot
//! take the output at once is too slow, and is disconnected. An interactive container has its terminal or its pipe
//! at the client, and waits as a program at a terminal does; but only as long as the client goes on reading.
//!
//! ```text
//! fits ── does not, interactive ─▶ backlog: the stream is not read ─ all sent ─▶ fits
//!   └──── does not ─▶ disconnected    └─ WAIT_MAX ─▶ disconnected
//! ```
//!
//! Input does not pass here at all: the client gets the writing end.
//!
//! The daemon must distinguish a disconnected client from one whose stream has ended. So it puts a byte into each
//! socket, which is read only before an end: closing a socket with an unread byte gives `ECONNRESET`.

use crate::event_loop::{EventLoop, EventSource};
use crate::limits;
use crate::log::Stream;
use hull_proto::id::ContainerId;
use hull_proto::monitor::Failure;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Most sockets per container.
pub(crate) const CLIENTS_MAX: usize = limits::ATTACHED.count();
/// How long an interactive container waits for a client to take one chunk.
const WAIT_MAX: Duration = limits::ATTACH_WAIT_S.time();
/// Longest backlog of a client, in bytes: as much as an ended container can have left in a pipe.
const BACKLOG_BYTES_MAX: usize = limits::OWED_BYTES.count();
/// Most output kept until a terminal has its first client, in bytes.
const UNSEEN_BYTES_MAX: usize = limits::UNSEEN_BYTES.count();

/// A client's socket for one stream.
#[derive(Debug)]
struct Attached {
    stream: Stream,
    socket: OwnedFd,
    backlog: Option<Backlog>,
    /// The stream has ended: nothing follows the backlog.
    last: bool,
}

/// The last output of a terminal that has had no client yet, for the first one: a prompt is printed before anybody
/// can attach.
#[derive(Debug, Default)]
pub(crate) struct Unseen(Vec<u8>);

impl Unseen {
    /// Adds output; only the last [`UNSEEN_BYTES_MAX`] are kept.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(bytes.len().saturating_sub(UNSEEN_BYTES_MAX)..).unwrap_or_default();
        let over = (self.0.len() + bytes.len()).saturating_sub(UNSEEN_BYTES_MAX);
        self.0.drain(..over);
        self.0.extend_from_slice(bytes);
    }

    /// The output that was kept.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Output that did not fit into a socket.
#[derive(Debug)]
struct Backlog {
    bytes: Vec<u8>,
    until: Instant,
    /// Of the socket in the loop, once it is waited for.
    token: Option<u64>,
}

/// Whether a client stays connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Keep,
    Drop,
}

impl Attached {
    /// Sends what fits; the rest becomes the backlog, if the client has a `write_timeout`.
    fn send(&mut self, bytes: &[u8], write_timeout: Option<Duration>) -> Client {
        if let Some(backlog) = &mut self.backlog {
            backlog.bytes.extend_from_slice(bytes);
            let fits = backlog.bytes.len() <= BACKLOG_BYTES_MAX;
            return if fits { Client::Keep } else { Client::Drop };
        }
        let sent = match send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(_) => return Client::Drop,
        };
        let rest = bytes.get(sent..).unwrap_or_default();
        if rest.is_empty() {
            return Client::Keep;
        }
        let Some(limit) = write_timeout else { return Client::Drop };
        let until = Instant::now() + limit;
        self.backlog = Some(Backlog { bytes: rest.to_vec(), until, token: None });
        Client::Keep
    }

    /// Sends of the backlog what fits now.
    fn flush(&mut self) -> Client {
        let Some(backlog) = &mut self.backlog else { return Client::Keep };
        match send(&self.socket, &backlog.bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => drop(backlog.bytes.drain(..sent)),
            Err(Errno::AGAIN) if Instant::now() < backlog.until => {}
            Err(_) => return Client::Drop,
        }
        if !backlog.bytes.is_empty() {
            return if Instant::now() < backlog.until { Client::Keep } else { Client::Drop };
        }
        if self.last { Client::Drop } else { Client::Keep }
    }

    fn is_flushed(&self) -> bool {
        self.backlog.as_ref().is_none_or(|backlog| backlog.bytes.is_empty())
    }
}

/// The sockets of all clients of a container.
#[derive(Debug, Default)]
pub(crate) struct Clients(Vec<Attached>);

impl Clients {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a client's socket for a stream that is open, and sends it `earlier` output. True if the client must be
    /// waited for before there can be more.
    pub(crate) fn add(&mut self, stream: Stream, socket: OwnedFd, earlier: &[u8]) -> bool {
        let mut client = Attached { stream, socket, backlog: None, last: false };
        if client.send(earlier, Some(WAIT_MAX)) == Client::Keep {
            self.0.push(client);
        }
        self.has_backlog_of(stream)
    }

    /// Copies output to the clients, and drops those that are too slow or gone. An interactive container has a write
    /// timeout. True if a client must be waited for before there can be more.
    pub(crate) fn copy(&mut self, of: Stream, bytes: &[u8], interactive: bool) -> bool {
        let write_timeout = interactive.then_some(WAIT_MAX);
        self.0.retain_mut(|one| one.stream != of || one.send(bytes, write_timeout) == Client::Keep);
        self.has_backlog_of(of)
    }

    /// Ends a stream for all clients; for those with a backlog, once they have it.
    pub(crate) fn end(&mut self, of: Stream) {
        self.0.retain_mut(|one| {
            if one.stream != of {
                return true;
            }
            one.last = true;
            if one.is_flushed() {
                clean_eof(&one.socket);
            }
            !one.is_flushed()
        });
    }

    /// Whether output of a stream is still to be sent.
    pub(crate) fn has_backlog_of(&self, of: Stream) -> bool {
        self.0.iter().any(|one| one.stream == of && !one.is_flushed())
    }

    /// Whether a client has, or had until the next [`Clients::flush`], a backlog.
    pub(crate) fn has_backlog(&self) -> bool {
        self.0.iter().any(|one| one.backlog.is_some())
    }

    /// Waits in the loop for the clients with a backlog.
    pub(crate) fn watch(&mut self, id: &ContainerId, events: &mut EventLoop) {
        for one in &mut self.0 {
            let Some(backlog) = one.backlog.as_mut().filter(|backlog| backlog.token.is_none())
            else {
                continue;
            };
            // If this fails, the client is still checked as long as it has a backlog.
            let source = EventSource::Client(id.clone());
            backlog.token = events.add(one.socket.as_fd(), source, EventFlags::OUT).ok();
        }
    }

    /// Sends backlogs, and drops the clients that were waited for long enough.
    pub(crate) fn flush(&mut self, events: &mut EventLoop) {
        self.0.retain_mut(|one| {
            let client = one.flush();
            if client == Client::Keep && !one.is_flushed() {
                return true;
            }
            if let Some(token) = one.backlog.as_ref().and_then(|backlog| backlog.token) {
                events.remove(one.socket.as_fd(), token);
            }
            if one.last && one.is_flushed() {
                clean_eof(&one.socket);
            }
            one.backlog = None;
            client == Client::Keep
        });
    }
}

/// Takes the daemon's byte, so that closing the socket is a clean end. Without it the client would count as
/// disconnected.
pub(crate) fn clean_eof(socket: &OwnedFd) {
    let _none = recv(socket, &mut [0; 1], RecvFlags::DONTWAIT);
}

/// Sends a client the writing end of the container's input.
pub(crate) fn send_stdin(socket: &OwnedFd, stdin: &OwnedFd) -> Result<(), Failure> {
    hull_sys::send_fd(socket.as_fd(), b"i", stdin.as_fd())
        .map_err(|err| Failure::System(err.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_unseen_output_is_kept() {
        let mut unseen = Unseen::default();
        unseen.take(b"first");
        unseen.take(&vec![b'x'; UNSEEN_BYTES_MAX - 2]);
        let kept = unseen.into_bytes();
        assert_eq!(kept.len(), UNSEEN_BYTES_MAX);
        assert!(kept.starts_with(b"stx"));
        let mut unseen = Unseen::default();
        unseen.take(&[vec![b'a'; 5], vec![b'b'; UNSEEN_BYTES_MAX]].concat());
        assert_eq!(unseen.into_bytes(), vec![b'b'; UNSEEN_BYTES_MAX]);
    }
}
