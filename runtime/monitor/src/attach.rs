// SPDX-License-Identifier: Apache-2.0
//! Clients that look at a running container: its output goes to each through a socket of its own.
//!
//! The rule: the log comes first, and a container that nobody can type into waits for no client: what
//! does not fit into its socket at once means that it is too slow, and it is let go. An interactive
//! container has its terminal or its pipe at the client, and waits as a program at a terminal does; but
//! only as long as the client goes on taking.
//!
//! ```text
//! fits ── does not, interactive ─▶ owed: the stream is not read ─ all taken ─▶ fits
//!   └──── does not ─▶ let go          └─ WAIT_MAX ─▶ let go
//! ```
//!
//! Input does not pass here at all: the client is handed the writing side.
//!
//! The daemon must tell a client that was let go from one whose stream has ended. So it puts a byte
//! into each socket, which is read only before an end: closed over it, a socket says `ECONNRESET`.

use crate::limits;
use crate::log::Stream;
use crate::monitor::{Monitor, Watched};
use crate::processes::{Container, Stage};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Failure, Response, Streams};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg,
};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Sockets per container.
const ATTACHED_MAX: usize = limits::ATTACHED.count();

/// How long an interactive container waits for a client to take one chunk.
const WAIT_MAX: Duration = limits::ATTACH_WAIT_S.time();
/// Most that is owed to a client, in bytes: what an ended container can have left in a pipe.
const OWED_BYTES_MAX: usize = limits::OWED_BYTES.count();

/// A client's socket for one stream.
#[derive(Debug)]
pub(crate) struct Attached {
    stream: Stream,
    socket: OwnedFd,
    owed: Option<Owed>,
    /// Nothing comes behind what is owed.
    last: bool,
}

/// What did not fit into a socket.
#[derive(Debug)]
struct Owed {
    bytes: Vec<u8>,
    until: Instant,
    /// In the loop, once it is waited for.
    token: Option<u64>,
}

/// What became of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Stays,
    Goes,
}

impl Monitor {
    /// Attaches a client: `fds` are its sockets for stdin, stdout and stderr, as `streams` names them.
    pub(crate) fn attach(
        &mut self,
        id: &ContainerId,
        streams: Streams,
        fds: Vec<OwnedFd>,
    ) -> Result<Option<Response>, Failure> {
        let mut fds = fds.into_iter();
        let container = self.containers.get_mut(id).ok_or(Failure::NoSuchContainer)?;
        if !matches!(container.stage, Stage::Running(_)) {
            return Err(Failure::NotRunning);
        }
        if container.attached.len() + 2 > ATTACHED_MAX {
            return Err(Failure::BadRequest(format!("{ATTACHED_MAX} are attached already")));
        }
        if let Some(socket) = streams.stdin.then(|| fds.next()).flatten() {
            container.hand_over_stdin(&socket)?;
        }
        for (stream, wanted) in [(Stream::Stdout, streams.stdout), (Stream::Stderr, streams.stderr)]
        {
            // A stream that has ended already ends for this client at once.
            let Some(socket) = wanted.then(|| fds.next()).flatten() else { continue };
            if container.is_open(stream) {
                container.attached.push(Attached { stream, socket, owed: None, last: false });
            } else {
                in_order(&socket);
            }
        }
        Ok(Some(Response::Ok))
    }
}

impl Container {
    /// Sends the writing side of its input. What is to be closed with the first client is that
    /// client's alone from now on.
    fn hand_over_stdin(&mut self, socket: &OwnedFd) -> Result<(), Failure> {
        let Some(stdin) = &self.stdin else { return Ok(()) };
        let fds = [stdin.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let _fits = ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(socket, &[IoSlice::new(b"i")], &mut ancillary, flags)
            .map_err(|errno| Failure::System(format!("sendmsg(stdin): {errno}")))?;
        if self.stdin_once {
            self.stdin = None;
        }
        Ok(())
    }

    fn is_open(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout.is_some(),
            Stream::Stderr => self.stderr.is_some(),
        }
    }
}

impl Attached {
    /// Sends what fits; the rest is owed, if there is `patience`.
    fn send(&mut self, bytes: &[u8], patience: bool) -> Client {
        if let Some(owed) = &mut self.owed {
            owed.bytes.extend_from_slice(bytes);
            return if owed.bytes.len() > OWED_BYTES_MAX { Client::Goes } else { Client::Stays };
        }
        let sent = match send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(_) => return Client::Goes,
        };
        let rest = bytes.get(sent..).unwrap_or_default();
        if rest.is_empty() {
            return Client::Stays;
        }
        let until = Instant::now() + WAIT_MAX;
        self.owed = patience.then(|| Owed { bytes: rest.to_vec(), until, token: None });
        if patience { Client::Stays } else { Client::Goes }
    }

    /// Sends of what is owed what fits now.
    fn pay(&mut self) -> Client {
        let Some(owed) = &mut self.owed else { return Client::Stays };
        match send(&self.socket, &owed.bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => drop(owed.bytes.drain(..sent)),
            Err(Errno::AGAIN) if Instant::now() < owed.until => {}
            Err(_) => return Client::Goes,
        }
        if !owed.bytes.is_empty() {
            return if Instant::now() < owed.until { Client::Stays } else { Client::Goes };
        }
        if self.last { Client::Goes } else { Client::Stays }
    }

    fn is_paid(&self) -> bool {
        self.owed.as_ref().is_none_or(|owed| owed.bytes.is_empty())
    }
}

/// Copies output to those who look at it; lets those go that are too slow or gone. True when somebody
/// must be waited for before there can be more.
pub(crate) fn copy(attached: &mut Vec<Attached>, of: Stream, bytes: &[u8], patience: bool) -> bool {
    attached.retain_mut(|one| one.stream != of || one.send(bytes, patience) == Client::Stays);
    attached.iter().any(|one| one.stream == of && !one.is_paid())
}

/// Ends a stream for all; for those who are owed something, once they have it.
pub(crate) fn end(attached: &mut Vec<Attached>, of: Stream) {
    attached.retain_mut(|one| {
        if one.stream != of {
            return true;
        }
        one.last = true;
        if one.is_paid() {
            in_order(&one.socket);
        }
        !one.is_paid()
    });
}

/// Takes the daemon's byte, so that the end is one. Without it the daemon says the worse.
fn in_order(socket: &OwnedFd) {
    let _none = recv(socket, &mut [0; 1], RecvFlags::DONTWAIT);
}

impl Container {
    /// Somebody is owed output.
    pub(crate) fn is_owing(&self) -> bool {
        self.attached.iter().any(|one| one.owed.is_some())
    }
}

impl Monitor {
    /// Waits for those who are owed output of a stream, which is not read meanwhile.
    pub(crate) fn hold(&mut self, id: &ContainerId, of: Stream) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let output = match of {
            Stream::Stdout => &mut container.stdout,
            Stream::Stderr => &mut container.stderr,
        };
        if let Some(output) = output
            && !output.held
        {
            let _closed = epoll::delete(&self.epoll, &output.fd);
            output.held = true;
        }
        for one in &mut container.attached {
            let Some(owed) = one.owed.as_mut().filter(|owed| owed.token.is_none()) else {
                continue;
            };
            let data = EventData::new_u64(self.next_token);
            // Without it the client is looked at as long as it is waited for, all the same.
            if epoll::add(&self.epoll, &one.socket, data, EventFlags::OUT).is_ok() {
                self.watched.insert(self.next_token, Watched::Client(id.clone()));
                owed.token = Some(self.next_token);
                self.next_token += 1;
            }
        }
    }

    /// Sends what is owed, lets go of whom was waited for long enough, and reads on where nobody is
    /// owed any more.
    pub(crate) fn pay(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let (epoll, watched) = (&self.epoll, &mut self.watched);
        container.attached.retain_mut(|one| {
            let client = one.pay();
            if client == Client::Stays && !one.is_paid() {
                return true;
            }
            if let Some(token) = one.owed.as_ref().and_then(|owed| owed.token) {
                let _gone = epoll::delete(epoll, &one.socket);
                watched.remove(&token);
            }
            if one.last && one.is_paid() {
                in_order(&one.socket);
            }
            one.owed = None;
            client == Client::Stays
        });
        let owing = |of| container.attached.iter().any(|one| one.stream == of && !one.is_paid());
        let (stdout, stderr) = (owing(Stream::Stdout), owing(Stream::Stderr));
        for (output, owing) in [(&mut container.stdout, stdout), (&mut container.stderr, stderr)] {
            let Some(output) = output.as_mut().filter(|output| output.held && !owing) else {
                continue;
            };
            let data = EventData::new_u64(output.token);
            let _there = epoll::add(epoll, &output.fd, data, EventFlags::IN);
            output.held = false;
        }
    }

    /// Looks after everybody who is owed something.
    pub(crate) fn pay_all(&mut self) {
        let owing = self.containers.iter().filter(|(_, container)| container.is_owing());
        let ids: Vec<_> = owing.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.pay(&id);
        }
    }
}
