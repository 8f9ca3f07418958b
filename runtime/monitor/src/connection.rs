// SPDX-License-Identifier: Apache-2.0
//! The daemon's connection: requests with their descriptors in, messages out. Nothing it sends can
//! hurt more than the connection itself.

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

/// Bytes that may wait for a daemon that does not read before it is dropped.
const WAITING_BYTES_MAX: usize = crate::limits::WAITING_BYTES.count();
/// Descriptors that may wait for their request.
const FDS_WAITING_MAX: usize = 64;
/// Longest hello, in bytes; one has eleven.
const HELLO_BYTES_MAX: u32 = 64;
/// Bytes that are read at a time, at most.
const CHUNK: usize = 4096;

/// The connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// Who waits for an answer. Numbers of requests are each connection's own: an answer for a daemon
/// that is gone must not reach the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) connection: u64,
    pub(crate) request: u64,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    /// Which one this is, in the order they came.
    pub(crate) number: u64,
    /// What it speaks; 0 before it said hello.
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

    /// Reads once; `false` when nothing was there. Never past the request's end: descriptors that came are
    /// its own, and while it is carried out nothing of the next one is in our memory, which a newborn process
    /// has a copy of.
    pub(crate) fn read(&mut self) -> Result<bool, Broken> {
        // Not on the stack, where it would stay: there may be secrets in it.
        let mut bytes = vec![0; self.frames.missing_bytes().min(CHUNK)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&self.stream, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(RecvMsg { bytes: 0, .. }) => Err(Broken),
            Ok(RecvMsg { bytes: got, .. }) => {
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(fds) = message {
                        self.fds.extend(fds);
                    }
                }
                self.frames.feed(&bytes[..got]);
                let most = if self.said_hello() { FDS_WAITING_MAX } else { FDS_MAX };
                if self.fds.len() > most { Err(Broken) } else { Ok(true) }
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::INTR) => Ok(true),
            Err(_) => Err(Broken),
        }
    }

    fn said_hello(&self) -> bool {
        self.version != 0
    }

    /// The hello of one that has not said it before; broken by anything else.
    pub(crate) fn greeting(&mut self) -> Result<Option<Request>, Broken> {
        loop {
            match self.frames.take_at_most(HELLO_BYTES_MAX).map_err(|_| Broken)? {
                Some(Request { id, command: Command::Hello { version } }) if version != 0 => {
                    self.version = version;
                    return Ok(Some(Request { id, command: Command::Hello { version } }));
                }
                Some(_) => return Err(Broken),
                None if self.read()? => {}
                None => return Ok(None),
            }
        }
    }

    /// The next request that is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Request>, Broken> {
        let request = self.frames.take().map_err(|_| Broken)?;
        if request.is_none() && self.frames.is_empty() {
            // Descriptors come with a request's first byte: with no request begun, nobody wants these.
            self.fds = VecDeque::new();
        }
        Ok(request)
    }

    /// The next `count` descriptors that came along.
    pub(crate) fn take_fds(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        if self.fds.len() < count {
            return None;
        }
        Some(self.fds.drain(..count).collect())
    }

    /// Sends a message, or as much of it as fits now.
    pub(crate) fn send(&mut self, message: &Message) -> Result<(), Broken> {
        let bytes = encode(message).map_err(|_| Broken)?;
        self.out.extend(bytes);
        self.flush()?;
        if self.out.len() > WAITING_BYTES_MAX { Err(Broken) } else { Ok(()) }
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) -> Result<(), Broken> {
        while !self.out.is_empty() {
            let (first, _) = self.out.as_slices();
            match send(&self.stream, first, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.out.drain(..sent);
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Broken),
            }
        }
        self.out = VecDeque::new();
        Ok(())
    }

    /// Something waits to be sent.
    pub(crate) fn wants_to_write(&self) -> bool {
        !self.out.is_empty()
    }
}
