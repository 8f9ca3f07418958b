// SPDX-License-Identifier: Apache-2.0
//! Terminals: created here, and their masters sent to the console socket.

use crate::error::{Error, Result};
use hull_init::Io;
use hull_sys::{Pty, open_pty};
use rustix::io::IoSlice;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with,
};
use rustix::termios::{OptionalActions, OutputModes, tcgetattr, tcsetattr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// A terminal for a process, and its master.
pub(crate) fn terminal() -> Result<(Io, OwnedFd)> {
    let Pty { master, slave, path } = open_pty().map_err(Error::call)?;
    Ok((Io::Terminal { slave, path }, master))
}

/// Turns off that the terminal adds a carriage return to each new line: this program copies the output to a terminal
/// that does so itself. As runc in the foreground.
pub(crate) fn without_carriage_returns(master: &OwnedFd) -> Result<()> {
    let mut attributes = tcgetattr(master).map_err(Error::of(|| "tcgetattr(master)"))?;
    attributes.output_modes.remove(OutputModes::ONLCR);
    tcsetattr(master, OptionalActions::Now, &attributes).map_err(Error::of(|| "tcsetattr(master)"))
}

/// The receiver of the master. It is connected before anything is created, so that a wrong path fails early.
#[derive(Debug)]
pub(crate) struct Receiver(OwnedFd);

impl Receiver {
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let call = || format!("connect({})", path.display());
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(Error::of(|| "socket(UNIX)"))?;
        let address = SocketAddrUnix::new(path).map_err(Error::of(call))?;
        connect(&socket, &address).map_err(Error::of(call))?;
        Ok(Self(socket))
    }

    /// Hands over a master.
    pub(crate) fn give(&self, master: &OwnedFd) -> Result<()> {
        let fds = [master.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&fds));
        // Receivers want a name along with it.
        sendmsg(&self.0, &[IoSlice::new(b"/dev/ptmx")], &mut rights, SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(Error::of(|| "sendmsg(console socket)"))
    }
}
