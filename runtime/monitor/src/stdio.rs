// SPDX-License-Identifier: Apache-2.0
//! Standard streams of a new container: pipes or a terminal, and their two sides.

use hull_init::{Io, NewTerminal};
use hull_proto::monitor::{Failure, Stdio};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd as _, OwnedFd};

/// The host's null device; the child replaces it by the container's own.
pub(crate) fn null() -> Result<OwnedFd, Failure> {
    rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Failure::System(format!("open(/dev/null): {errno}")))
}

/// A second descriptor of the same file.
pub(crate) fn copy(fd: &OwnedFd) -> Result<OwnedFd, Failure> {
    fd.try_clone().map_err(|err| Failure::System(format!("dup(): {err}")))
}

/// The streams of a container: `io` for the container, the others for the monitor.
pub(crate) struct Pipes {
    pub(crate) io: Io,
    /// Of a terminal it is the socket over which the master comes.
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdin_once: bool,
}

impl Pipes {
    pub(crate) fn new(stdio: Stdio) -> Result<Self, Failure> {
        if stdio.tty { Self::with_terminal() } else { Self::with_pipes(stdio) }
    }

    fn with_pipes(stdio: Stdio) -> Result<Self, Failure> {
        let failed = |errno| Failure::System(format!("pipe2(): {errno}"));
        let (stdout, to_stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let (stderr, to_stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        for ours in [&stdout, &stderr] {
            rustix::io::ioctl_fionbio(ours, true).map_err(failed)?;
        }
        let (from_stdin, stdin) = if stdio.stdin {
            let (from, to) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
            (from, Some(to))
        } else {
            (null()?, None)
        };
        let io = Io::Streams { stdin: from_stdin, stdout: to_stdout, stderr: to_stderr };
        Ok(Self { io, stdout, stderr: Some(stderr), stdin, stdin_once: stdio.stdin_once })
    }

    fn with_terminal() -> Result<Self, Failure> {
        let (new, master) = NewTerminal::pair().map_err(system)?;
        Ok(Self {
            io: Io::NewTerminal(new),
            stdout: master,
            stderr: None,
            stdin: None,
            stdin_once: false,
        })
    }
}

/// The master of a container's terminal, twice: for its output, and for its input. It has come when the container's
/// program runs.
pub(crate) fn receive_terminal(socket: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Failure> {
    let master = hull_sys::receive_master(socket.as_fd()).map_err(system)?;
    rustix::io::ioctl_fionbio(&master, true)
        .map_err(hull_sys::Error::of(|| "ioctl(FIONBIO)"))
        .map_err(system)?;
    // Closing one of our descriptors of a terminal ends nothing.
    let input = copy(&master)?;
    Ok((master, input))
}

fn system(err: hull_sys::Error) -> Failure {
    Failure::System(err.to_string())
}
