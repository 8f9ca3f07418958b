// SPDX-License-Identifier: Apache-2.0
//! The daemon's connection: requests with their descriptors in, messages out. Nothing it sends can
//! hurt more than the connection itself.

use crate::frame::{Frames, encode};
use hull_proto::monitor::{FDS_MAX, Message, Request};
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
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Descriptors that may wait for their request.
const FDS_WAITING_MAX: usize = 64;

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
    frames: Frames,
    fds: VecDeque<OwnedFd>,
    out: VecDeque<u8>,
}

impl Connection {
    /// Takes a stream whose other end is root's; `None` for anybody else.
    pub(crate) fn accept(stream: UnixStream, number: u64) -> Option<Self> {
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
        if !peer.uid.is_root() || stream.set_nonblocking(true).is_err() {
            return None;
        }
        let (frames, fds, out) = (Frames::default(), VecDeque::new(), VecDeque::new());
        Some(Self { stream, number, version: 0, frames, fds, out })
    }

    /// Reads once; `false` when nothing was there. Never past a message with descriptors, so after
    /// each of these the requests are taken and descriptors are theirs.
    pub(crate) fn read(&mut self) -> Result<bool, Broken> {
        let mut bytes = [0; 4096];
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
                if self.fds.len() > FDS_WAITING_MAX { Err(Broken) } else { Ok(true) }
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::INTR) => Ok(true),
            Err(_) => Err(Broken),
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
        let bytes = encode(message).ok_or(Broken)?;
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
