// SPDX-License-Identifier: Apache-2.0
//! A blocking netlink socket, and batches of messages.
//!
//! The rule: a batch is sent at once, and every response is read before the call returns. The first error
//! is reported, with the call that failed and the kernel's own explanation. The kernel processes a batch
//! in the sender's context, so the responses are available when the send returns.
//!
//! A socket belongs to the network namespace of the thread that opened it.

use crate::attributes::text;
use hull_sys::{Error, Result};
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR,
};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};
use std::cell::Cell;
use std::time::{Duration, Instant};

const HEADER: usize = 16;
/// Largest response of a dump.
const RESPONSE_BYTES: usize = 32 * 1024;
/// Receive timeout. It only expires if the kernel violates the protocol.
const RESPONSE_MAX: Duration = Duration::from_secs(10);

/// A netlink socket.
#[derive(Debug)]
pub struct Socket {
    socket: netlink_sys::Socket,
    next: Cell<u32>,
}

/// One message of a response: its type and payload.
#[derive(Debug)]
pub struct Response {
    pub kind: u16,
    pub body: Vec<u8>,
}

impl Socket {
    /// Opens a socket for links, addresses and routes. `rtnetlink(7)`.
    pub fn route() -> Result<Self> {
        Self::open(NETLINK_ROUTE, "NETLINK_ROUTE")
    }

    /// Opens a socket for nftables.
    pub fn netfilter() -> Result<Self> {
        Self::open(NETLINK_NETFILTER, "NETLINK_NETFILTER")
    }

    fn open(protocol: isize, name: &str) -> Result<Self> {
        let call = || format!("socket({name})");
        let socket = netlink_sys::Socket::new(protocol).map_err(Error::of_io(call))?;
        // Errors then carry an explanation, and do not repeat the rejected message.
        socket.set_ext_ack(true).map_err(Error::of_io(call))?;
        socket.set_cap_ack(true).map_err(Error::of_io(call))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(RESPONSE_MAX))
            .map_err(Error::of(call))?;
        Ok(Self { socket, next: Cell::new(1) })
    }

    /// Opens a socket that receives the notifications of a multicast group.
    pub(crate) fn subscribe(group: u32) -> Result<Self> {
        let mut heard = Self::route()?;
        let call = || format!("bind(NETLINK_ROUTE, group {group})");
        // The kernel notifies only sockets with an address.
        heard.socket.bind_auto().map_err(Error::of_io(call))?;
        heard.socket.add_membership(group).map_err(Error::of_io(call))?;
        Ok(heard)
    }

    /// Waits for notifications; `None` at the deadline. ENOBUFS: notifications were lost.
    pub(crate) fn receive(&self, until: Instant) -> Result<Option<Vec<Response>>> {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(None),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new(errno, "poll(NETLINK_ROUTE)")),
        }
        let mut buffer = vec![0; RESPONSE_BYTES];
        match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => {
                let response = |message: Message<'_>| Response {
                    kind: message.kind,
                    body: message.body.to_vec(),
                };
                Ok(Some(messages(&buffer[..length]).map(response).collect()))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Some(Vec::new())),
            Err(errno) => Err(Error::new(errno, "recv(NETLINK_ROUTE)")),
        }
    }

    /// Starts a batch on this socket.
    pub fn batch(&self) -> Batch<'_> {
        Batch { socket: self, first: self.next.get(), bytes: Vec::new(), calls: Vec::new() }
    }
}

/// Messages that are sent in one go.
#[derive(Debug)]
pub struct Batch<'s> {
    socket: &'s Socket,
    first: u32,
    bytes: Vec<u8>,
    calls: Vec<String>,
}

impl Batch<'_> {
    /// Adds a message with an acknowledgement. `call` names it in errors.
    pub fn push(&mut self, kind: u16, flags: u16, call: impl Into<String>, body: &impl Emitable) {
        let mut bytes = vec![0; body.buffer_len()];
        body.emit(&mut bytes);
        self.push_raw(kind, flags | NLM_F_ACK, call, &bytes);
    }

    /// Adds a message with exactly these flags and NLM_F_REQUEST.
    pub fn push_raw(&mut self, kind: u16, flags: u16, call: impl Into<String>, body: &[u8]) {
        let number = u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(self.first.wrapping_add(number).to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.calls.push(call.into());
    }

    /// Sends the batch and waits for the acknowledgements.
    pub fn run(self) -> Result<()> {
        self.exchange(false, None).map(|_answers| ())
    }

    /// Sends the batch and waits for the acknowledgement of message `acknowledged`, not of the last one.
    pub fn run_until(self, acknowledged: usize) -> Result<()> {
        self.exchange(false, Some(acknowledged)).map(|_answers| ())
    }

    /// Sends the batch and returns the responses before the last acknowledgement.
    pub fn query(self) -> Result<Vec<Response>> {
        self.exchange(false, None)
    }

    /// Sends the batch and returns the responses to a dump request.
    pub fn dump(self) -> Result<Vec<Response>> {
        self.exchange(true, None)
    }

    fn exchange(self, dump: bool, last: Option<usize>) -> Result<Vec<Response>> {
        let Some(default) = self.calls.len().checked_sub(1) else { return Ok(Vec::new()) };
        let last = last.unwrap_or(default);
        let after = self.first.wrapping_add(u32::try_from(self.calls.len()).unwrap_or(u32::MAX));
        self.socket.next.set(after);
        let described = || self.calls.first().cloned().unwrap_or_default();
        self.socket.socket.send(&self.bytes, 0).map_err(Error::of_io(described))?;

        let mut received = Responses { responses: Vec::new(), refused: None, done: false };
        let mut buffer = vec![0; RESPONSE_BYTES];
        while !received.done {
            // After an error the kernel may send nothing more; everything else has arrived by now.
            let flags =
                if received.refused.is_some() { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
            let length = match recv(&self.socket.socket, &mut buffer[..], flags) {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) if received.refused.is_some() => break,
                Err(Errno::AGAIN) => return Err(Error::new(Errno::TIMEDOUT, described())),
                Err(errno) => return Err(Error::new(errno, described())),
            };
            for message in messages(&buffer[..length]) {
                self.take(&message, dump, last, &mut received);
            }
        }
        match received.refused {
            Some(refused) => Err(refused),
            None => Ok(received.responses),
        }
    }

    fn take(&self, message: &Message<'_>, dump: bool, last: usize, received: &mut Responses) {
        let number =
            usize::try_from(message.sequence.wrapping_sub(self.first)).unwrap_or(usize::MAX);
        let Some(call) = self.calls.get(number) else { return };
        match message.kind {
            NLMSG_ERROR => {
                let errno = message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                if errno != 0 && received.refused.is_none() {
                    let errno = Errno::from_raw_os_error(errno.saturating_neg());
                    let call = match extended_ack(message) {
                        Some(reason) => format!("{call} \"{reason}\""),
                        None => call.clone(),
                    };
                    received.refused = Some(Error::new(errno, call));
                }
                // The only response to a failed dump is the error.
                received.done |= number >= last;
            }
            NLMSG_DONE => received.done |= dump,
            kind => received.responses.push(Response { kind, body: message.body.to_vec() }),
        }
    }
}

/// The responses received so far.
struct Responses {
    responses: Vec<Response>,
    refused: Option<Error>,
    done: bool,
}

/// A decoded message that borrows from the receive buffer.
struct Message<'b> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'b [u8],
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = usize::try_from(word(0)).ok()?;
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind: half(4), flags: half(6), sequence: word(8), body })
    })
}

/// The kernel's explanation of an error.
fn extended_ack(message: &Message<'_>) -> Option<String> {
    const TEXT: u16 = 1;
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    // An error code, then the header of the rejected message, and its body unless it was capped.
    let refused = if message.flags & NLM_F_CAPPED != 0 {
        HEADER
    } else {
        let length = message.body.get(4..8)?.first_chunk()?;
        usize::try_from(u32::from_ne_bytes(*length)).ok()?.next_multiple_of(4)
    };
    text(message.body.get(4 + refused..)?, TEXT)
}

/// Flags of a request that lists all objects.
pub(crate) const LIST: u16 = NLM_F_DUMP;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_padded_and_numbered() {
        let socket = Socket::route().unwrap();
        let mut batch = socket.batch();
        batch.push_raw(16, 0x400, "one", &[1, 2, 3]);
        batch.push_raw(17, 0, "two", &[4]);
        assert_eq!(batch.bytes.len(), 40);
        let found: Vec<_> = messages(&batch.bytes)
            .map(|m| (m.kind, m.flags, m.sequence, m.body.to_vec()))
            .collect();
        assert_eq!(found, [(16, 0x401, 1, vec![1, 2, 3]), (17, 1, 2, vec![4])]);
    }

    #[test]
    fn a_message_cut_short_is_not_read_beyond() {
        for bytes in
            [&[16_u8, 0, 0][..], &[32, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0; 16]]
        {
            assert_eq!(messages(bytes).take(9).count(), 0, "{bytes:?}");
        }
    }
}
