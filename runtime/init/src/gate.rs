// SPDX-License-Identifier: Apache-2.0
//! The gate at which a container waits between create and start: a datagram socket in the directory
//! of its maker, bound by name there, held by the waiting process alone.
//!
//! That somebody waits is the kernel's word: the socket answers a `connect(2)` while its holder has not
//! been told and is alive, and never again. Who tells it to go hands over the pipe on which it reports:
//! end of file is the exec, anything else a [`StepError`].

use crate::plan::{Step, StepError};
use crate::starting::{reported, status_pipe};
use hull_sys::Error;
use rustix::io::{DupFlags, Errno, IoSlice, IoSliceMut, dup3};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    recvmsg, sendmsg, socket_with,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// Its name in the directory.
pub const NAME: &str = "start";

fn socket() -> Result<OwnedFd, Error> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::of(|| "socket(UNIX, DGRAM)"))
}

/// By way of the descriptor: a path of any length would not fit a socket's address.
fn address(directory: BorrowedFd<'_>) -> Result<SocketAddrUnix, Error> {
    let path = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
    SocketAddrUnix::new(path.as_str()).map_err(Error::of(|| "sockaddr_un(start)"))
}

/// Makes the gate in a directory that only root may enter.
pub fn make(directory: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let gate = socket()?;
    bind(&gate, &address(directory)?).map_err(Error::of(|| format!("bind({NAME})")))?;
    Ok(gate)
}

/// A socket connected to it; `None` when nobody waits there.
fn reach(directory: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Error> {
    let ours = socket()?;
    match connect(&ours, &address(directory)?) {
        Ok(()) => Ok(Some(ours)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(errno) => Err(Error::new(errno, format!("connect({NAME})"))),
    }
}

/// Whether somebody waits at it.
pub fn is_waited_at(directory: BorrowedFd<'_>) -> Result<bool, Error> {
    Ok(reach(directory)?.is_some())
}

/// Lets go who waits there; blocks until its exec went through or failed. `None` when nobody waits.
pub fn open(directory: BorrowedFd<'_>) -> Result<Option<Result<(), StepError>>, Error> {
    let Some(ours) = reach(directory)? else { return Ok(None) };
    let pipe =
        status_pipe().map_err(|err| Error::new(Errno::from_raw_os_error(err.errno), err.call));
    let (news, report) = pipe?;
    let fds = [report.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&fds));
    match sendmsg(&ours, &[IoSlice::new(b"go")], &mut rights, SendFlags::NOSIGNAL) {
        Ok(_) => {}
        Err(Errno::CONNREFUSED) => return Ok(None),
        Err(errno) => return Err(Error::new(errno, format!("sendmsg({NAME})"))),
    }
    drop(report);
    Ok(Some(reported(&news)))
}

/// In the child: says that it is ready, by the end of its report, and waits to be told. From then on
/// `report` is the pipe of whoever told it.
pub(crate) fn wait(gate: BorrowedFd<'_>, report: &mut OwnedFd) -> Result<(), StepError> {
    let failed = |call: &'static str| move |errno| StepError::new(Step::Pipe, errno, call);
    // Onto the same number: the pipe's last writer is gone with that.
    dup3(gate, report, DupFlags::CLOEXEC).map_err(failed("dup3(gate)"))?;
    // The gate goes with the report from here on: nothing else of it may be open at the exec.
    hull_sys::close_now(gate);
    loop {
        let mut word = [0; 2];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut words = [IoSliceMut::new(&mut word)];
        match recvmsg(&*report, &mut words, &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(failed("recvmsg(gate)")(errno)),
        }
        let told = rights.drain().find_map(|message| {
            let RecvAncillaryMessage::ScmRights(mut fds) = message else { return None };
            fds.next()
        });
        if let Some(theirs) = told {
            return dup3(&theirs, report, DupFlags::CLOEXEC).map_err(failed("dup3(report)"));
        }
    }
}
