// SPDX-License-Identifier: Apache-2.0
//! The terminal of a process, of the container's own devpts.
//!
//! ```text
//! parent ── socket ──▶ child, beneath the container's root: opens /dev/pts/ptmx, keeps the slave
//!    ▲                   │
//!    └──── the master ───┘
//! ```
//!
//! So the process sees its terminal by a name that exists, as in `tty(1)`, and no terminal of the host. The child
//! opens it with the rights of the container's root, in its cgroup and user namespace.

use crate::ids;
use crate::plan::{Process, Step, StepError};
use hull_sys::{Error, Pty, open_pty_in, send_fd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::termios::{OptionalActions, OutputModes, tcgetattr, tcsetattr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// The text that comes with a master: receivers of console sockets want a name.
const NAME: &[u8] = b"/dev/ptmx";

/// A terminal that the child opens, and the socket for its master.
#[derive(Debug)]
pub struct NewTerminal {
    to: OwnedFd,
    /// Whether the terminal adds a carriage return to each new line.
    carriage_returns: bool,
}

impl NewTerminal {
    /// For the receiver at the other end of `socket`, a stream socket. The master comes before the program runs.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { to: socket, carriage_returns: true }
    }

    /// With the receiver's end: for [`hull_sys::receive_master`], once the start has succeeded.
    ///
    /// # Errors
    /// `socketpair(2)` fails.
    pub fn pair() -> Result<(Self, OwnedFd), Error> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(Error::of(|| "socketpair(UNIX)"))?;
        Ok((Self::new(theirs), ours))
    }

    /// Turns off that the terminal adds a carriage return to each new line: for output that is copied to a terminal
    /// that does so itself.
    #[must_use]
    pub fn without_carriage_returns(self) -> Self {
        Self { carriage_returns: false, ..self }
    }

    /// In the child: opens the terminal beneath `root`, gives it to the user of `process`, and sends the master.
    /// Returns the slave.
    pub(crate) fn open(
        &self,
        root: BorrowedFd<'_>,
        process: &Process,
    ) -> Result<OwnedFd, StepError> {
        let Pty { master, slave } = open_pty_in(root).map_err(StepError::at(Step::Stdio))?;
        // The group stays the one of all terminals. Refused on a devpts that is read-only.
        let _refused = rustix::fs::fchown(&slave, ids::user(process.uid), None);
        if !self.carriage_returns {
            let failed = |call: &'static str| move |errno| StepError::new(Step::Stdio, errno, call);
            let mut settings = tcgetattr(&slave).map_err(failed("tcgetattr(slave)"))?;
            settings.output_modes.remove(OutputModes::ONLCR);
            tcsetattr(&slave, OptionalActions::Now, &settings)
                .map_err(failed("tcsetattr(slave)"))?;
        }
        send_fd(self.to.as_fd(), NAME, master.as_fd()).map_err(StepError::at(Step::Stdio))?;
        Ok(slave)
    }
}
