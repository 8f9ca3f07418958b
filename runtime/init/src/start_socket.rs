// SPDX-License-Identifier: Apache-2.0
//! The socket at which a container waits between create and start: a datagram socket, bound by name in the
//! container's directory, and held by the waiting process alone.
//!
//! The kernel says whether a process waits: `connect(2)` to the socket succeeds while its holder is alive and has
//! not been released, and never afterwards. The releasing process passes the pipe on which the start is reported:
//! end of file is the exec, anything else a [`StepError`].

use crate::pending_process::{reported_before, status_pipe};
use crate::plan::{Step, StepError};
use hull_sys::Error;
use rustix::io::{DupFlags, Errno, IoSlice, IoSliceMut, dup3};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    recvmsg, sendmsg, socket_with,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Name of the socket in the directory.
pub const NAME: &str = "start";

fn socket() -> Result<OwnedFd, Error> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::of(|| "socket(UNIX, DGRAM)"))
}

/// Its address, by the directory's descriptor: a socket's address has no space for a path of any length.
fn address(directory: BorrowedFd<'_>) -> Result<SocketAddrUnix, Error> {
    let path = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
    SocketAddrUnix::new(path.as_str()).map_err(Error::of(|| "sockaddr_un(start)"))
}

/// Creates the socket in a directory that only root may enter.
pub fn create(directory: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let listener = socket()?;
    bind(&listener, &address(directory)?).map_err(Error::of(|| format!("bind({NAME})")))?;
    Ok(listener)
}

/// A socket connected to it; `None` if no process waits there.
fn try_connect(directory: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Error> {
    let ours = socket()?;
    match connect(&ours, &address(directory)?) {
        Ok(()) => Ok(Some(ours)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(errno) => Err(Error::new(errno, format!("connect({NAME})"))),
    }
}

/// Whether a process waits at it.
pub fn has_waiter(directory: BorrowedFd<'_>) -> Result<bool, Error> {
    Ok(try_connect(directory)?.is_some())
}

/// The outcome of a release.
#[derive(Debug)]
pub enum Released {
    /// No process waited there.
    NoWaiter,
    /// Its exec has succeeded, or a step before it failed.
    Reported(Result<(), StepError>),
    /// Neither, in the time that it had. It still runs.
    TimedOut,
}

/// Releases the waiting process; blocks until its exec has succeeded or failed, or that time is over. The time is kept
/// here, outside of the container: a process of a pid namespace that it shares could stop it.
pub fn release(directory: BorrowedFd<'_>, time: Option<Duration>) -> Result<Released, Error> {
    let until = time.map(|time| Instant::now() + time);
    let Some(ours) = try_connect(directory)? else { return Ok(Released::NoWaiter) };
    let pipe =
        status_pipe().map_err(|err| Error::new(Errno::from_raw_os_error(err.errno), err.call));
    let (news, report) = pipe?;
    let fds = [report.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&fds));
    match sendmsg(&ours, &[IoSlice::new(b"go")], &mut rights, SendFlags::NOSIGNAL) {
        Ok(_) => {}
        Err(Errno::CONNREFUSED) => return Ok(Released::NoWaiter),
        Err(errno) => return Err(Error::new(errno, format!("sendmsg({NAME})"))),
    }
    drop(report);
    Ok(match reported_before(&news, until) {
        Ok(Some(())) => Released::Reported(Ok(())),
        Ok(None) => Released::TimedOut,
        Err(error) => Released::Reported(Err(error)),
    })
}

/// In the child: signals that it is ready, by closing its report, and waits to be released. From then on
/// `report` is the pipe of the releasing process.
pub(crate) fn wait(socket: BorrowedFd<'_>, report: &mut OwnedFd) -> Result<(), StepError> {
    let failed = |call: &'static str| move |errno| StepError::new(Step::Pipe, errno, call);
    // Onto the same number: this closes the last writer of the pipe.
    dup3(socket, report, DupFlags::CLOEXEC).map_err(failed("dup3(start socket)"))?;
    // `report` is the socket from here on: no other descriptor of it may be open at the exec.
    hull_sys::close_now(socket);
    loop {
        let mut word = [0; 2];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut words = [IoSliceMut::new(&mut word)];
        match recvmsg(&*report, &mut words, &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(failed("recvmsg(start socket)")(errno)),
        }
        let received = rights.drain().find_map(|message| {
            let RecvAncillaryMessage::ScmRights(mut fds) = message else { return None };
            fds.next()
        });
        if let Some(theirs) = received {
            return dup3(&theirs, report, DupFlags::CLOEXEC).map_err(failed("dup3(report)"));
        }
    }
}
