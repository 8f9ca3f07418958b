// SPDX-License-Identifier: Apache-2.0
//! A pod's pause process, held by a descriptor: its number alone may come to mean a stranger, whose
//! network would then be shown or connected to.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// A process known to have been the pod's when its descriptor was opened.
#[derive(Debug)]
pub(crate) struct Pause {
    pid: i32,
    process: OwnedFd,
}

impl Pause {
    /// Opens the process of this number. Whether it is the pod's is for the caller to find out, before
    /// anybody gets this.
    pub(super) fn open(pid: i32) -> io::Result<Self> {
        let number = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let process = pidfd_open(number, PidfdFlags::empty())?;
        Ok(Self { pid, process })
    }

    /// Its network namespace. Fails when the process has ended.
    pub(crate) fn netns(&self) -> io::Result<OwnedFd> {
        let netns = File::open(format!("/proc/{}/ns/net", self.pid))?;
        // It runs still, so the number was its own when the file was opened.
        let mut fds =
            [PollFd::from_borrowed_fd(std::os::fd::AsFd::as_fd(&self.process), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        if fds[0].revents().is_empty() {
            return Ok(netns.into());
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, "the pod's pause process has ended"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_that_ended_has_no_network_even_if_its_number_is_there() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pause = Pause::open(i32::try_from(child.id()).unwrap()).unwrap();
        pause.netns().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        pause.netns().unwrap_err();
        // As if the number had come to be ours.
        let pause = Pause { pid: rustix::process::getpid().as_raw_nonzero().get(), ..pause };
        assert_eq!(pause.netns().unwrap_err().kind(), io::ErrorKind::NotConnected);
    }
}
