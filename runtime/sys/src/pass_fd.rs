// SPDX-License-Identifier: Apache-2.0
//! Passes one descriptor over a Unix socket: `SCM_RIGHTS` of `unix(7)`.

use crate::{Error, Result};
use rustix::io::Errno;
use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Sends `fd` with the bytes `word`, of which there must be one at least. Never blocks.
///
/// # Errors
/// `sendmsg(2)` fails: nobody has the other end, or its queue is full. `EMSGSIZE` if the queue took only a part.
pub fn send_fd(socket: BorrowedFd<'_>, word: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    // The space is that of one.
    let _fits = ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let call = || "sendmsg(SCM_RIGHTS)";
    let sent =
        sendmsg(socket, &[IoSlice::new(word)], &mut ancillary, flags).map_err(Error::of(call))?;
    // A stream takes a part where it has not room for all.
    if sent == word.len() { Ok(()) } else { Err(Error::of(call)(Errno::MSGSIZE)) }
}

/// Receives one byte, and the descriptor that came with it, closed on exec; `None` if there was none. Never blocks.
///
/// # Errors
/// `recvmsg(2)` fails; `EAGAIN` when nothing has come.
pub fn receive_fd(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(socket, &mut into, &mut ancillary, flags)
        .map_err(Error::of(|| "recvmsg(SCM_RIGHTS)"))?;
    let mut found = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            found = fds.into_iter().next();
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_arrives_once() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(receive_fd(ours.as_fd()).unwrap_err().errno(), Errno::AGAIN);
        let (read, write) = rustix::pipe::pipe().unwrap();
        send_fd(theirs.as_fd(), b"x", write.as_fd()).unwrap();
        let passed = receive_fd(ours.as_fd()).unwrap().unwrap();
        drop(write);
        rustix::io::write(&passed, b"through").unwrap();
        let mut text = [0; 7];
        assert_eq!(rustix::io::read(&read, &mut text), Ok(7));
        // Not only dropped: a child that a test beside this one has just forked may have a copy.
        theirs.shutdown(Shutdown::Both).unwrap();
        assert!(receive_fd(ours.as_fd()).unwrap().is_none(), "the other end is closed");
    }

    #[test]
    fn words_that_the_queue_cuts_are_an_error() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let errno = send_fd(theirs.as_fd(), &vec![b'x'; 64 << 20], read.as_fd()).unwrap_err();
        assert_eq!(errno.errno(), Errno::MSGSIZE);
    }
}
