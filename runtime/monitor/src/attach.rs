// SPDX-License-Identifier: Apache-2.0
//! Clients that look at a running container: its output goes to each through a socket of its own.
//!
//! The rule: the log comes first and nothing waits for a client. What does not fit into its socket
//! at once means that it is too slow, and it is let go. Input does not pass here at all: the client
//! is handed the writing side.
//!
//! The daemon must tell a client that was let go from one whose stream has ended. So it puts a byte
//! into each socket, which is read only before an end: closed over it, a socket says `ECONNRESET`.

use crate::log::Stream;
use crate::monitor::Monitor;
use crate::processes::{Container, Stage};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Done, Failure, Streams};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg,
};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

/// Sockets per container.
const ATTACHED_MAX: usize = 32;

/// A client's socket for one stream.
#[derive(Debug)]
pub(crate) struct Attached {
    stream: Stream,
    socket: OwnedFd,
}

impl Monitor {
    /// Attaches a client: `fds` are its sockets for stdin, stdout and stderr, as `streams` names them.
    pub(crate) fn attach(
        &mut self,
        id: &ContainerId,
        streams: Streams,
        fds: Vec<OwnedFd>,
    ) -> Result<Option<Done>, Failure> {
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
                container.attached.push(Attached { stream, socket });
            } else {
                in_order(&socket);
            }
        }
        Ok(Some(Done::Ok))
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

/// Copies output to those who look at it; lets those go that are too slow or gone.
pub(crate) fn copy(attached: &mut Vec<Attached>, of: Stream, bytes: &[u8]) {
    attached.retain(|Attached { stream, socket }| {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        *stream != of || send(socket, bytes, flags).is_ok_and(|sent| sent == bytes.len())
    });
}

/// Ends a stream for all.
pub(crate) fn end(attached: &mut Vec<Attached>, of: Stream) {
    attached.retain(|Attached { stream, socket }| {
        if *stream == of {
            in_order(socket);
        }
        *stream != of
    });
}

/// Takes the daemon's byte, so that the end is one. Without it the daemon says the worse.
fn in_order(socket: &OwnedFd) {
    let _none = recv(socket, &mut [0; 1], RecvFlags::DONTWAIT);
}
