// SPDX-License-Identifier: Apache-2.0
//! journald as a second sink of a log: an entry for every line, in its native protocol (systemd's
//! "Native Journal Protocol").
//!
//! The rule: journald is never waited for. An entry that its socket does not take now is dropped and counted; the file
//! has the line all the same.

use crate::log_buffer::HEAD;
use crate::log_stream::Stream;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::{Errno, IoSlice};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::fs::File;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// The sink of one container.
#[derive(Debug)]
pub(crate) struct Journal {
    socket: OwnedFd,
    /// Fields of every entry, each with its line end.
    fields: Vec<u8>,
    /// Lines that it did not take.
    pub(crate) dropped: u64,
}

impl Journal {
    pub(crate) fn new(socket: OwnedFd, fields: Vec<u8>) -> Self {
        Self { socket, fields, dropped: 0 }
    }

    /// Sends every line of a text in the format of a log.
    pub(crate) fn send(&mut self, lines: &[u8]) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if self.entry(line).is_err() {
                self.dropped += 1;
            }
        }
    }

    fn entry(&self, line: &[u8]) -> Result<(), Errno> {
        // Errors of a program, and all else of it: as other runtimes have it.
        let priority: &[u8] = match Stream::of_line(line) {
            Stream::Stdout => b"PRIORITY=6\n",
            Stream::Stderr => b"PRIORITY=3\n",
        };
        let is_piece = line.get(HEAD - 2) == Some(&b'P');
        let partial: &[u8] = if is_piece { b"CONTAINER_PARTIAL_MESSAGE=true\n" } else { b"" };
        // With its line end, which ends the field too.
        let content = line.get(HEAD..).unwrap_or_default();
        let parts: [&[u8]; 5] = [&self.fields, priority, partial, b"MESSAGE=", content];
        let slices = parts.map(IoSlice::new);
        let mut nothing = SendAncillaryBuffer::default();
        loop {
            match sendmsg(&self.socket, &slices, &mut nothing, FLAGS) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                // More than its socket takes at once.
                Err(Errno::MSGSIZE) => return self.send_file(&parts),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Sends an entry in a sealed file in memory, whose descriptor comes with an empty datagram.
    fn send_file(&self, parts: &[&[u8]]) -> Result<(), Errno> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"journal-entry", flags)?);
        for part in parts {
            file.write_all(part).map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))?;
        }
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        let fds = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        // The space is that of one.
        let _fits = ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&self.socket, &[IoSlice::new(b"")], &mut ancillary, FLAGS).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::set_socket_send_buffer_size;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::io::{IoSliceMut, Read as _, Seek as _};
    use std::os::unix::net::UnixDatagram;

    const FIELDS: &[u8] = b"CONTAINER_NAME=web\nCONTAINER_ID=abc\n";

    fn journal() -> (Journal, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        (Journal::new(ours.into(), FIELDS.to_vec()), theirs)
    }

    fn received(from: &UnixDatagram) -> String {
        let mut bytes = [0; 1000];
        let got = from.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..got].to_vec()).unwrap()
    }

    #[test]
    fn a_line_is_an_entry() {
        let (mut journal, theirs) = journal();
        journal.send(
            b"2016-10-06T00:17:09.669794202Z stdout F all is well\n\
              2016-10-06T00:17:09.669794202Z stderr P half a li\n",
        );
        let text = String::from_utf8(FIELDS.to_vec()).unwrap();
        assert_eq!(received(&theirs), format!("{text}PRIORITY=6\nMESSAGE=all is well\n"));
        let second =
            format!("{text}PRIORITY=3\nCONTAINER_PARTIAL_MESSAGE=true\nMESSAGE=half a li\n");
        assert_eq!(received(&theirs), second);
        assert_eq!(journal.dropped, 0);
    }

    #[test]
    fn what_the_socket_does_not_take_is_counted_and_not_waited_for() {
        let (mut journal, theirs) = journal();
        let line = b"2016-10-06T00:17:09.669794202Z stdout F x\n".repeat(100_000);
        journal.send(&line);
        assert!(journal.dropped > 0 && journal.dropped < 100_000, "{}", journal.dropped);
        drop(theirs);
        let before = journal.dropped;
        journal.send(b"2016-10-06T00:17:09.669794202Z stdout F nobody\n");
        assert_eq!(journal.dropped, before + 1);
    }

    #[test]
    fn a_line_too_long_for_a_datagram_comes_in_a_sealed_file() {
        let (mut journal, theirs) = journal();
        set_socket_send_buffer_size(&journal.socket, 4096).unwrap();
        let content = "x".repeat(16 << 10);
        let line = format!("2016-10-06T00:17:09.669794202Z stdout F {content}\n");
        journal.send(line.as_bytes());
        assert_eq!(journal.dropped, 0);
        let mut bytes = [0; 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let got = recvmsg(&theirs, &mut into, &mut ancillary, flags).unwrap();
        assert_eq!(got.bytes, 0, "the datagram itself is empty");
        let mut files = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                files.extend(fds);
            }
        }
        let mut file = File::from(files.pop().unwrap());
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert!(text.ends_with(&format!("PRIORITY=6\nMESSAGE={content}\n")));
        assert!(file.write_all(b"x").is_err(), "it is sealed");
    }
}
