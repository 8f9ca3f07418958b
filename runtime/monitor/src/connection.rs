// SPDX-License-Identifier: Apache-2.0
//! The daemon's connection: requests with their descriptors in, messages out. Invalid bytes end only the
//! connection itself.

use crate::peer;
use hull_proto::monitor::frame::{FrameDecoder, encode};
use hull_proto::monitor::{Command, FDS_MAX, Message, Request};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, SendFlags, recvmsg, send,
};
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Most bytes that are buffered for a daemon that does not read, before its connection is closed.
const WAITING_BYTES_MAX: usize = crate::limits::WAITING_BYTES.count();
/// Most descriptors that are kept for requests that are not complete.
const FDS_WAITING_MAX: usize = 64;
/// Longest hello, in bytes; one has eleven.
const HELLO_BYTES_MAX: u32 = 64;
/// Bytes that are read at a time, at most.
const CHUNK: usize = 4096;

/// The connection is closed, or must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disconnected;

/// A request of one connection. Each connection numbers its own requests: the answer for a daemon that is gone must
/// not reach the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId {
    pub(crate) connection: u64,
    pub(crate) request: u64,
}

/// A connection of a daemon, or of a newcomer.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    /// Counted in the order in which connections were accepted.
    pub(crate) number: u64,
    /// Its protocol version; 0 before its hello.
    pub(crate) version: u16,
    frames: FrameDecoder,
    fds: VecDeque<OwnedFd>,
    out: VecDeque<u8>,
}

impl Connection {
    /// Takes a stream whose other end may be the daemon; `None` for anybody else.
    pub(crate) fn accept(stream: UnixStream, number: u64) -> Option<Self> {
        if !peer::may_be_the_daemon(&stream) || stream.set_nonblocking(true).is_err() {
            return None;
        }
        let (frames, fds, out) = (FrameDecoder::default(), VecDeque::new(), VecDeque::new());
        Some(Self { stream, number, version: 0, frames, fds, out })
    }

    /// Reads once; `false` if nothing was there. Never past the request's end: descriptors that came are
    /// its own, and while it is executed, nothing of the next one is in our memory, of which every new process
    /// has a copy.
    pub(crate) fn read(&mut self) -> Result<bool, Disconnected> {
        // Not on the stack, where it would stay: there may be secrets in it.
        let mut bytes = vec![0; self.frames.missing_bytes().min(CHUNK)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&self.stream, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(RecvMsg { bytes: 0, .. }) => Err(Disconnected),
            Ok(RecvMsg { bytes: got, .. }) => {
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(fds) = message {
                        self.fds.extend(fds);
                    }
                }
                self.frames.feed(&bytes[..got]);
                let most = if self.has_sent_hello() { FDS_WAITING_MAX } else { FDS_MAX };
                if self.fds.len() > most { Err(Disconnected) } else { Ok(true) }
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::INTR) => Ok(true),
            Err(_) => Err(Disconnected),
        }
    }

    fn has_sent_hello(&self) -> bool {
        self.version != 0
    }

    /// The hello of a new connection; any other request is an error.
    pub(crate) fn read_hello(&mut self) -> Result<Option<Request>, Disconnected> {
        loop {
            match self.frames.take_at_most(HELLO_BYTES_MAX).map_err(|_| Disconnected)? {
                Some(Request { id, command: Command::Hello { version } }) if version != 0 => {
                    self.version = version;
                    return Ok(Some(Request { id, command: Command::Hello { version } }));
                }
                Some(_) => return Err(Disconnected),
                None if self.read()? => {}
                None => return Ok(None),
            }
        }
    }

    /// The next complete request.
    pub(crate) fn next(&mut self) -> Result<Option<Request>, Disconnected> {
        let request = self.frames.take().map_err(|_| Disconnected)?;
        if request.is_none() && self.frames.is_empty() {
            // Descriptors come with a request's first byte: without one these belong to none.
            self.fds = VecDeque::new();
        }
        Ok(request)
    }

    /// The next `count` descriptors that came with the request.
    pub(crate) fn take_fds(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        if self.fds.len() < count {
            return None;
        }
        Some(self.fds.drain(..count).collect())
    }

    /// Sends a message, or as much of it as fits now.
    pub(crate) fn send(&mut self, message: &Message) -> Result<(), Disconnected> {
        let bytes = encode(message).map_err(|_| Disconnected)?;
        self.out.extend(bytes);
        self.flush()?;
        if self.out.len() > WAITING_BYTES_MAX { Err(Disconnected) } else { Ok(()) }
    }

    /// Sends buffered bytes.
    pub(crate) fn flush(&mut self) -> Result<(), Disconnected> {
        while !self.out.is_empty() {
            let (first, _) = self.out.as_slices();
            match send(&self.stream, first, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.out.drain(..sent);
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Disconnected),
            }
        }
        self.out = VecDeque::new();
        Ok(())
    }

    /// Whether bytes are buffered.
    pub(crate) fn wants_to_write(&self) -> bool {
        !self.out.is_empty()
    }
}
