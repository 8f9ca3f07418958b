// SPDX-License-Identifier: Apache-2.0
//! Netlink messages and a socket for them, synchronous: `netlink(7)`.
//!
//! One encoder serves rtnetlink and nftables. Several messages go in one send, and every
//! acknowledgement is looked at.

use crate::Error;
use netlink_sys::{Socket, SocketAddr, protocols};
use std::io;

/// `NLM_F_*`.
pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCL: u16 = 0x200;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEAD: usize = 16;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// One message being written.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    /// What it asks for, for the error.
    what: String,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16, what: impl Into<String>) -> Self {
        let mut bytes = vec![0; HEAD];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Self { bytes, what: what.into() }
    }

    /// Appends the family's own header.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.bytes, kind, value);
        self
    }

    /// A text with its NUL.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    pub(crate) fn nest(mut self, kind: u16, attrs: Attrs) -> Self {
        put(&mut self.bytes, kind | NESTED, &attrs.0);
        self
    }

    fn finish(mut self, sequence: u32) -> (Vec<u8>, u16) {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        (self.bytes, flags)
    }
}

/// Attributes inside an attribute.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attrs(Vec<u8>);

impl Attrs {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Begins with a struct (a veth's peer has a whole link header).
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.0, kind, value);
        self
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// nftables' numbers are big-endian.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(mut self, kind: u16, attrs: Attrs) -> Self {
        put(&mut self.0, kind | NESTED, &attrs.0);
        self
    }
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The attributes of a message, without what does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some(head) = bytes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let Some(value) = bytes.get(4..length) else { break };
        found.push((kind, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Which half of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Route,
    Netfilter,
}

/// A socket, bound to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open(family: Family) -> Result<Self, Error> {
        let protocol = match family {
            Family::Route => protocols::NETLINK_ROUTE,
            Family::Netfilter => protocols::NETLINK_NETFILTER,
        };
        let failed = |source| Error::Netlink { what: "open a netlink socket".into(), source };
        let mut socket = Socket::new(protocol).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        Ok(Self { socket, sequence: 1 })
    }

    /// Sends all messages at once and waits for the acknowledgement of each that asks for one. The
    /// first refusal is the error.
    pub(crate) fn carry_out(&mut self, messages: Vec<Message>) -> Result<(), Error> {
        let mut whole = Vec::new();
        let mut waiting = Vec::new();
        let first = messages.first().map(|message| message.what.clone()).unwrap_or_default();
        for message in messages {
            let (what, sequence) = (message.what.clone(), self.sequence);
            self.sequence += 1;
            let (bytes, flags) = message.finish(sequence);
            whole.extend(bytes);
            if flags & ACK != 0 {
                waiting.push((sequence, what));
            }
        }
        self.send(&whole, &first)?;
        while !waiting.is_empty() {
            for (kind, sequence, body) in self.receive(&first)? {
                if kind != ERROR {
                    continue;
                }
                let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                let at = waiting.iter().position(|(of, _)| *of == sequence);
                let what = at.map(|at| waiting.remove(at).1);
                if code != 0 {
                    // What was not answered yet is not interesting any more: the socket goes.
                    let source = io::Error::from_raw_os_error(-code);
                    return Err(Error::Netlink { what: what.unwrap_or(first), source });
                }
            }
        }
        Ok(())
    }

    /// Sends a request and gives the bodies of all answers.
    pub(crate) fn ask(&mut self, message: Message) -> Result<Vec<Vec<u8>>, Error> {
        let what = message.what.clone();
        let sequence = self.sequence;
        self.sequence += 1;
        let (bytes, flags) = message.finish(sequence);
        self.send(&bytes, &what)?;
        let mut found = Vec::new();
        loop {
            for (kind, of, body) in self.receive(&what)? {
                if of != sequence {
                    continue;
                }
                match kind {
                    DONE => return Ok(found),
                    ERROR => {
                        let code =
                            body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                        if code == 0 {
                            return Ok(found);
                        }
                        let source = io::Error::from_raw_os_error(-code);
                        return Err(Error::Netlink { what, source });
                    }
                    _ => found.push(body),
                }
            }
            if flags & DUMP != DUMP && !found.is_empty() {
                return Ok(found);
            }
        }
    }

    fn send(&self, bytes: &[u8], what: &str) -> Result<(), Error> {
        let failed = |source| Error::Netlink { what: what.to_owned(), source };
        self.socket.send(bytes, 0).map(drop).map_err(failed)
    }

    fn receive(&self, what: &str) -> Result<Vec<(u16, u32, Vec<u8>)>, Error> {
        let failed = |source| Error::Netlink { what: what.to_owned(), source };
        let (bytes, _) = loop {
            match self.socket.recv_from_full() {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(failed)?,
            }
        };
        let mut found = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some(head) = rest.first_chunk::<HEAD>() {
            let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
            let length = usize::try_from(length).unwrap_or(0);
            let kind = u16::from_ne_bytes([head[4], head[5]]);
            let sequence = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
            let Some(body) = rest.get(HEAD..length) else { break };
            found.push((kind, sequence, body.to_vec()));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let mut bytes = Vec::new();
        put(&mut bytes, 3, b"eth0\0");
        put(&mut bytes, 4, &1500u32.to_ne_bytes());
        assert_eq!(bytes.len(), 12 + 8);
        assert_eq!(attributes(&bytes), [(3, b"eth0\0".as_slice()), (4, &1500u32.to_ne_bytes())]);
        assert!(attributes(&[9, 0, 3]).is_empty());
        assert!(attributes(&[200, 0, 3, 0, 1]).is_empty(), "a length past the end");
    }
}
