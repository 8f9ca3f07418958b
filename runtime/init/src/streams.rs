// SPDX-License-Identifier: Apache-2.0
//! Standard streams of a new process.
//!
//! The rule: they are pipes, the process's own terminal, or the container's own null device. Never the
//! host's: a process that changes a file through `/proc/self/fd/0` must not change a file of the host.

use crate::id_maps::to_host_id;
use crate::ids;
use crate::plan::{IdMaps, Namespace, Plan, Process, Step, StepError};
use crate::rootfs::kind;
use crate::terminal::NewTerminal;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::Winsize;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Standard streams of a new process.
#[derive(Debug)]
pub enum Io {
    /// One descriptor each. The host's null device is replaced by the container's own.
    Streams {
        /// Standard input, descriptor 0.
        stdin: OwnedFd,
        /// Standard output, descriptor 1.
        stdout: OwnedFd,
        /// Standard error, descriptor 2.
        stderr: OwnedFd,
    },
    /// The slave of a terminal, for all three; it becomes the controlling terminal.
    Terminal(OwnedFd),
    /// The same, of a terminal that the child opens in the container. A container has it as /dev/console too.
    NewTerminal(NewTerminal),
}

/// The null device, as [`kind`] returns it.
const NULL: (FileType, u32, u32) = (FileType::CharacterDevice, 1, 3);

impl Io {
    /// The terminal that the child is to open, if this is one.
    pub(crate) fn new_terminal(&self) -> Option<&NewTerminal> {
        match self {
            Self::NewTerminal(new) => Some(new),
            Self::Terminal(_) | Self::Streams { .. } => None,
        }
    }

    /// Lets the container's user open its own streams again, as in `/dev/stdout`. Done by the parent: in a
    /// user namespace the child may not change the owner of files of the host. A refusal does not fail the
    /// start.
    pub(crate) fn chown_stdio_of(&self, plan: &Plan) {
        let maps = (plan.namespaces.user != Namespace::Inherit).then_some(&plan.id_maps);
        self.chown_stdio(plan.process.uid, plan.process.gid, maps);
    }

    /// Changes their owner to these ids of the container.
    pub(crate) fn chown_stdio(&self, uid: u32, gid: u32, maps: Option<&IdMaps>) {
        match maps {
            Some(IdMaps { uids, gids }) => {
                self.chown(to_host_id(uids, uid), to_host_id(gids, gid));
            }
            None => self.chown(Some(uid), Some(gid)),
        }
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) {
        let (uid, gid) = (uid.and_then(ids::user), gid.and_then(ids::group));
        match self {
            // The child does it.
            Self::NewTerminal(_) => {}
            Self::Terminal(slave) => {
                // The group stays the one of all terminals.
                let _refused = rustix::fs::fchown(slave, uid, None);
            }
            Self::Streams { stdin, stdout, stderr } => {
                for stream in [stdin, stdout, stderr] {
                    let is_pipe = kind(stream.as_fd()).is_ok_and(|of| of.0 == FileType::Fifo);
                    // Never /dev/null or a file of the host.
                    if is_pipe {
                        let _refused = rustix::fs::fchown(stream, uid, gid);
                    }
                }
            }
        }
    }

    /// In the child, inside the container's root: puts them on 0 to 2.
    pub(crate) fn install(&self, process: &Process) -> Result<(), StepError> {
        let failed = |errno| StepError::new(Step::Stdio, errno, "dup2()");
        let (stdin, stdout, stderr) = match self {
            Self::Streams { stdin, stdout, stderr } => {
                (inside(stdin, true)?, inside(stdout, false)?, inside(stderr, false)?)
            }
            Self::NewTerminal(_) => {
                let call = "open(/dev/pts/ptmx): the container has no root of its own";
                return Err(StepError::new(Step::Stdio, Errno::NOTTY, call));
            }
            Self::Terminal(slave) => {
                if let Some((rows, columns)) = process.terminal.filter(|size| *size != (0, 0)) {
                    let size =
                        Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                    rustix::termios::tcsetwinsize(slave, size)
                        .map_err(|errno| StepError::new(Step::Stdio, errno, "ioctl(TIOCSWINSZ)"))?;
                }
                (Stream::Given(slave), Stream::Given(slave), Stream::Given(slave))
            }
        };
        rustix::stdio::dup2_stdin(stdin.fd()).map_err(failed)?;
        rustix::stdio::dup2_stdout(stdout.fd()).map_err(failed)?;
        rustix::stdio::dup2_stderr(stderr.fd()).map_err(failed)
    }

    /// In the child, leader of a session of its own: makes the terminal that session's controlling one.
    pub(crate) fn control(&self) -> Result<(), StepError> {
        match self {
            Self::Streams { .. } => Ok(()),
            Self::Terminal(_) | Self::NewTerminal(_) => {
                hull_sys::controlling_terminal(rustix::stdio::stdin())
                    .map_err(StepError::at(Step::Stdio))
            }
        }
    }
}

enum Stream<'a> {
    Given(&'a OwnedFd),
    Opened(OwnedFd),
}

impl Stream<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Given(fd) => fd.as_fd(),
            Self::Opened(fd) => fd.as_fd(),
        }
    }
}

/// The stream itself, or the container's own null device in place of the host's. Input without one is a
/// pipe at its end.
fn inside(given: &OwnedFd, is_input: bool) -> Result<Stream<'_>, StepError> {
    let failed = |call: &'static str| move |errno| StepError::new(Step::Stdio, errno, call);
    if kind(given.as_fd()).map_err(failed("statx(stream)"))? != NULL {
        return Ok(Stream::Given(given));
    }
    match own_null() {
        Ok(null) => Ok(Stream::Opened(null)),
        Err(_) if is_input => {
            let (end, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe2(CLOEXEC)"))?;
            drop(writer);
            Ok(Stream::Opened(end))
        }
        Err(errno) => Err(failed("open(/dev/null) of the container, for its output")(errno)),
    }
}

/// The container's /dev/null, if that is the null device and no link led there.
fn own_null() -> Result<OwnedFd, Errno> {
    let only = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open =
        |flags: OFlags| openat2(CWD, "/dev/null", flags | OFlags::CLOEXEC, Mode::empty(), only);
    let verified = |fd: OwnedFd| if kind(fd.as_fd())? == NULL { Ok(fd) } else { Err(Errno::NODEV) };
    drop(verified(open(OFlags::PATH)?)?);
    // Opened a second time, so verified a second time.
    let null = verified(open(OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK)?)?;
    rustix::io::ioctl_fionbio(&null, false)?;
    Ok(null)
}
