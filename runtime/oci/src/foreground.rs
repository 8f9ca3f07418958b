// SPDX-License-Identifier: Apache-2.0
//! Supervises a process that is not detached: forwards signals, relays its terminal, and returns its exit
//! code.
//!
//! Without a terminal the process inherits this program's standard streams, and nothing is copied.

use crate::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use std::os::fd::{AsFd as _, OwnedFd};

const CHLD: i32 = 17;
const URG: i32 = 23;
const WINCH: i32 = 28;
const CHUNK_BYTES: usize = 64 << 10;

/// Queues signals from now on, to be forwarded. Called before the process is created, so none is lost.
pub(crate) fn signals() -> Result<OwnedFd> {
    hull_sys::signals_by_descriptor().map_err(Error::call)
}

/// Guard that keeps this program's own terminal in raw mode.
struct Raw(Termios);

impl Raw {
    fn set() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _gone = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Relays a terminal's master, with input that it has not accepted yet.
struct TerminalRelay<'a> {
    master: &'a OwnedFd,
    pending: Vec<u8>,
    input_open: bool,
    output_open: bool,
}

/// Waits for a child process; returns its exit code, or 128 plus the signal number.
pub(crate) fn supervise(
    process: &OwnedFd,
    signals: &OwnedFd,
    master: Option<&OwnedFd>,
    resize: bool,
) -> Result<u8> {
    let _raw = master.filter(|_| isatty(rustix::stdio::stdin())).and_then(|_| Raw::set());
    let mut relay = master.map(TerminalRelay::new).transpose()?;
    if resize && let Some(master) = master {
        copy_size(master);
    }
    loop {
        let stdin = rustix::stdio::stdin();
        let mut fds =
            vec![PollFd::new(process, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(relay) = &relay {
            fds.push(PollFd::new(relay.master, relay.wanted()));
            if relay.input_open && relay.pending.is_empty() {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::of(|| "poll()")(errno)),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[1] {
            forward(process, signals, master)?;
        }
        if let Some(relay) = &mut relay {
            if ready.get(3) == Some(&true) {
                relay.take_input();
            }
            relay.pass_input();
            if ready[2] {
                relay.pass_output();
            }
        }
        if ready[0] {
            if let Some(relay) = &mut relay {
                relay.pass_output();
            }
            return code(process);
        }
    }
}

fn forward(process: &OwnedFd, signals: &OwnedFd, master: Option<&OwnedFd>) -> Result<()> {
    while let Some(signal) = hull_sys::next_signal(signals.as_fd()) {
        match (signal, master) {
            (CHLD | URG, _) => {}
            (WINCH, Some(master)) => copy_size(master),
            (signal, _) => {
                hull_sys::pidfd_send_signal(process.as_fd(), signal).map_err(Error::call)?;
            }
        }
    }
    Ok(())
}

fn copy_size(master: &OwnedFd) {
    // If stdin is not a terminal, the size stays as it is.
    if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
        let _gone = tcsetwinsize(master, size);
    }
}

fn code(process: &OwnedFd) -> Result<u8> {
    let status = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED)
        .map_err(Error::of(|| "waitid()"))?;
    let status = status.map(|status| (status.exit_status(), status.terminating_signal()));
    Ok(match status {
        Some((Some(code), _)) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        Some((None, Some(signal))) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        _ => u8::MAX,
    })
}

impl<'a> TerminalRelay<'a> {
    fn new(master: &'a OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(master, true).map_err(Error::of(|| "ioctl(FIONBIO)"))?;
        Ok(Self { master, pending: Vec::new(), input_open: true, output_open: true })
    }

    fn wanted(&self) -> PollFlags {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, self.output_open);
        wanted.set(PollFlags::OUT, !self.pending.is_empty());
        wanted
    }

    fn take_input(&mut self) {
        let mut chunk = vec![0; CHUNK_BYTES];
        match read(rustix::stdio::stdin(), &mut chunk) {
            Ok(0) => {
                // End of file on a terminal is ^D.
                self.input_open = false;
                self.pending.push(4);
            }
            Ok(got) => self.pending.extend_from_slice(&chunk[..got]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input_open = false,
        }
    }

    fn pass_input(&mut self) {
        while !self.pending.is_empty() {
            match write(self.master, &self.pending) {
                Ok(taken) => drop(self.pending.drain(..taken)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.pending.clear(),
            }
        }
    }

    /// Copies all available output.
    fn pass_output(&mut self) {
        let mut chunk = vec![0; CHUNK_BYTES];
        while self.output_open {
            match read(self.master, &mut chunk) {
                // EIO: the other side is closed.
                Ok(0) | Err(Errno::IO) => self.output_open = false,
                Ok(got) => self.output_open = to_stdout(&chunk[..got]),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

fn to_stdout(mut left: &[u8]) -> bool {
    while !left.is_empty() {
        match write(rustix::stdio::stdout(), left) {
            Ok(written) => left = &left[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let stdout = rustix::stdio::stdout();
                let _woken = poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None);
            }
            Err(_) => return false,
        }
    }
    true
}
