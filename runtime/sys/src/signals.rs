// SPDX-License-Identifier: Apache-2.0
//! Signals, children, terminals.

use crate::{Error, Result};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, WaitOptions, WaitStatus};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

/// A child that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// It exited with this code.
    Code(i32, i32),
    /// This signal killed it.
    Signal(i32, i32),
}

/// Blocks SIGCHLD and gives a descriptor that can be read when one is pending; ignores the signals
/// that would end a process for what happens elsewhere (SIGPIPE, SIGHUP). `signalfd(2)`.
pub fn block_signals() -> Result<OwnedFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(of("sigprocmask(SIGCHLD)"))?;
    for signal in [Signal::SIGPIPE, Signal::SIGHUP] {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }
            .map_err(of("signal(SIG_IGN)"))?;
    }
    let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(of("signalfd(SIGCHLD)"))?;
    let fd: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(&fd);
    fd.try_clone_to_owned().map_err(Error::of_io(|| "dup(signalfd)"))
}

/// Blocks every signal that can be blocked, and gives a descriptor that they are read from; see
/// [`next_signal`]. `signalfd(2)`.
pub fn signals_by_descriptor() -> Result<OwnedFd> {
    let all = SigSet::all();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), None).map_err(of("sigprocmask(all)"))?;
    let fd = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(of("signalfd(all)"))?;
    let fd: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(&fd);
    fd.try_clone_to_owned().map_err(Error::of_io(|| "dup(signalfd)"))
}

/// The number of a signal that is pending there; `None` when none is.
pub fn next_signal(signals: BorrowedFd<'_>) -> Option<i32> {
    // `struct signalfd_siginfo`, which begins with the number.
    let mut info = [0; 128];
    match rustix::io::read(signals, &mut info) {
        Ok(got) if got == info.len() => {
            Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
        }
        _ => None,
    }
}

/// Gives every signal its default action and unblocks all: what a program expects when it starts.
///
/// `rt_sigaction(2)` itself: libc's refuses the two or three real-time signals that it uses, and one
/// of them that was ignored when we were started would stay so.
pub fn reset_signals() -> Result<()> {
    const SIGNALS: i32 = 64;
    // `struct sigaction` of the kernel: handler (SIG_DFL is 0), flags, restorer, mask.
    let default = [0_u64; 4];
    for signal in (1..=SIGNALS).filter(|signal| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP)) {
        let (action, set_bytes) = (&raw const default, size_of::<u64>());
        // SAFETY: the kernel only reads `default`, which is as long as its structure; a default
        // action runs no code of ours.
        let ret = unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, action, std::ptr::null::<u8>(), set_bytes)
        };
        if ret != 0 {
            return Err(Error::last(format!("rt_sigaction({signal}, SIG_DFL)")));
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(of("rt_sigprocmask(SIG_SETMASK)"))
}

/// Blocks every signal that can be blocked: what comes waits for the program that this process becomes.
pub fn block_all_signals() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .map_err(of("rt_sigprocmask(SIG_SETMASK, all)"))
}

/// Ignores the signals by which a terminal stops processes in its background (SIGTTIN, SIGTTOU). With a handler, the
/// call that the signal interrupts would be begun again for ever. An exec keeps them ignored.
pub fn ignore_terminal_stops() -> Result<()> {
    for signal in [Signal::SIGTTIN, Signal::SIGTTOU] {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }
            .map_err(of("signal(SIG_IGN)"))?;
    }
    Ok(())
}

/// Ends this process on each of the signals that usually end one, with 128 and the signal's number as its code: as the
/// first process of a pid namespace it would not see them otherwise, `pid_namespaces(7)`. An exec undoes it.
pub fn exit_on_signals() -> Result<()> {
    extern "C" fn exit(signal: libc::c_int) {
        crate::exit_now(128_i32.wrapping_add(signal))
    }
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGTERM,
    ] {
        // SAFETY: the handler only makes a call that is safe in one.
        unsafe { nix::sys::signal::signal(signal, SigHandler::Handler(exit)) }
            .map_err(of("rt_sigaction(exit)"))?;
    }
    Ok(())
}

/// Takes one child that has ended, of any kind; `None` when there is none. `wait4(2)`.
///
/// Numbers of signals stay numbers here: nix has names for those below 32 only, and reports the end by another one as
/// an error, when the child is gone already.
pub fn reap_any() -> Option<Reaped> {
    taken(rustix::process::wait(WaitOptions::NOHANG))
}

/// Takes this child, if it has ended. `wait4(2)`.
#[must_use]
pub fn reap(pid: i32) -> Option<Reaped> {
    taken(rustix::process::waitpid(Some(Pid::from_raw(pid)?), WaitOptions::NOHANG))
}

fn taken(waited: rustix::io::Result<Option<(Pid, WaitStatus)>>) -> Option<Reaped> {
    let (pid, status) = waited.ok()??;
    let pid = pid.as_raw_nonzero().get();
    let code = status.exit_status().map(|code| Reaped::Code(pid, code));
    code.or_else(|| status.terminating_signal().map(|signal| Reaped::Signal(pid, signal)))
}

/// The number of a child that has ended and that [`reap_any`] has not taken yet; `None` when there is
/// none. `waitid(2)`, WNOWAIT.
#[must_use]
pub fn next_ended() -> Option<i32> {
    ended(libc::P_ALL, 0)
}

fn ended(kind: libc::idtype_t, id: libc::id_t) -> Option<i32> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel writes at most one siginfo_t, for which `info` has room.
    let ret = unsafe { libc::waitid(kind, id, info.as_mut_ptr(), options) };
    if ret != 0 {
        return None;
    }
    // SAFETY: all bytes are zero or what the kernel wrote; every bit pattern is a siginfo_t.
    let info = unsafe { info.assume_init() };
    // SAFETY: the structure of waitid has the field, which stays zero if no child has ended.
    let pid = unsafe { info.si_pid() };
    (pid != 0).then_some(pid)
}

/// Makes `terminal` the controlling terminal of our session. `ioctl_tty(2)`, TIOCSCTTY.
pub fn controlling_terminal(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the request takes a plain number; the descriptor is open.
    let ret = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if ret == 0 { Ok(()) } else { Err(Error::last("ioctl(TIOCSCTTY)")) }
}

fn of(call: &'static str) -> impl FnOnce(nix::errno::Errno) -> Error {
    move |errno| Error::new(rustix::io::Errno::from_raw_os_error(errno as i32), call)
}

/// Sends a signal by number, also one without a name (real-time). A process that has ended counts as
/// a success. `pidfd_send_signal(2)`, Linux 5.1.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: plain numbers and an open descriptor; a null siginfo is the documented default.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<u8>(),
            0,
        )
    };
    let call = || format!("pidfd_send_signal({signal})");
    match if ret == 0 { Ok(()) } else { Err(Error::last(call())) } {
        Err(err) if err.errno() == rustix::io::Errno::SRCH => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::process::Command;

    /// The end of a shell that has run `script`, as the two functions report it.
    #[allow(clippy::zombie_processes, reason = "it is reaped by the function under test")]
    fn end_of(script: &str) -> Reaped {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_raw(pid).unwrap()), options).unwrap();
        assert_eq!(ended(libc::P_PID, libc::id_t::from(child.id())), Some(pid), "{script}");
        let reaped = reap(pid).unwrap();
        assert_eq!(reap(pid), None, "{script}");
        match reaped {
            Reaped::Code(of, value) => {
                assert_eq!(of, pid);
                Reaped::Code(0, value)
            }
            Reaped::Signal(of, value) => {
                assert_eq!(of, pid);
                Reaped::Signal(0, value)
            }
        }
    }

    #[test]
    fn an_end_is_reported_whichever_signal_it_was() {
        assert_eq!(end_of("exit 7"), Reaped::Code(0, 7));
        for signal in [9, 15, 31, 34, 35, 50, 64] {
            assert_eq!(end_of(&format!("kill -{signal} $$")), Reaped::Signal(0, signal));
        }
    }
}
