// SPDX-License-Identifier: Apache-2.0
//! A process between its clone and its exec, as its parent sees it: the status pipe closes by itself
//! when the exec goes through, and carries a [`StepError`] when something failed before.

use crate::plan::{Step, StepError};
use crate::sysctl::read_proc;
use hull_cgroup::Cgroup;
use hull_sys::BirthSlot;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// Longest report, in bytes: fits a pipe's buffer, so that it is written at once.
const REPORT_BYTES_MAX: usize = 4096;

/// Stands for what was cut out of a call's text.
const CUT: &str = "[…]";
/// How much of the end of such a text stays, in bytes.
const CALL_TAIL_BYTES: usize = 1024;

/// The process whose pid and descriptor a [`PendingProcess`] has.
#[derive(Debug)]
enum PidOwner {
    /// The process of the program.
    Program,
    /// The process that is about to create the program's, whose pid the kernel will write into `slot`. With
    /// `kill`, that process is to be killed as soon as it exists.
    Creator { slot: BirthSlot, kill: bool },
    /// The process of the program, which has ended and may be reaped: so its pid may be another's by now.
    Ended { before_exec: bool },
}

/// The event behind the end of a status pipe without a report, of a process that was not killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The exec closed it.
    Exec,
    /// The process closed it, and waits at its start socket.
    Waits,
}

/// A process between its clone and its exec.
#[derive(Debug)]
pub struct PendingProcess {
    /// In our pid namespace. Changes once in [`PendingProcess::update`] for a process in a pid namespace of others.
    pub pid: i32,
    /// The process, for waiting and signals. Changes together with `pid`.
    pub pidfd: OwnedFd,
    /// Readable when its state has changed; see [`PendingProcess::poll`].
    pub status: OwnedFd,
    owner: PidOwner,
    /// The process that created the program's, until it was reaped.
    creator: Option<OwnedFd>,
    /// The meaning of the pipe's end without a report, unless the process was killed before.
    silence: Silence,
    report: Vec<u8>,
    end: Option<Result<(), StepError>>,
}

/// The two ends of a status pipe.
pub(crate) fn status_pipe() -> Result<(OwnedFd, OwnedFd), StepError> {
    let failed = |errno: Errno| StepError::new(Step::Pipe, errno, "pipe2(CLOEXEC)");
    let (news, report) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    rustix::io::ioctl_fionbio(&news, true).map_err(failed)?;
    Ok((news, report))
}

/// In the child: reports the failed step, and ends.
pub(crate) fn fail(report: impl AsFd, error: &StepError) -> ! {
    if let Some(bytes) = encode(error) {
        // Without a parent nothing reads it.
        let _gone = write(report, &bytes);
    }
    hull_sys::exit_now(127)
}

/// A report that fits one write. Of a longer one the middle of the call's text, which has paths in it, is cut out.
pub(crate) fn encode(error: &StepError) -> Option<Vec<u8>> {
    let bytes = borsh::to_vec(error).ok()?;
    let Some(over) = bytes.len().checked_sub(REPORT_BYTES_MAX).filter(|over| *over > 0) else {
        return Some(bytes);
    };
    let mut error = error.clone();
    let most = error.call.len().saturating_sub(over + CUT.len());
    let head = most.saturating_sub(CALL_TAIL_BYTES);
    // The end of a path says most; the call's name is at the beginning.
    let tail = error.call.len() - (most - head);
    let (head, tail) = (error.call.floor_char_boundary(head), error.call.ceil_char_boundary(tail));
    error.call = [&error.call[..head], CUT, &error.call[tail..]].concat();
    borsh::to_vec(&error).ok()
}

/// Reads the available bytes of a status pipe; true at its end. Never blocks.
fn read_available(status: &OwnedFd, so_far: &mut Vec<u8>) -> Result<bool, StepError> {
    let mut chunk = [0; REPORT_BYTES_MAX];
    loop {
        match read(status.as_fd(), &mut chunk) {
            Ok(0) => return Ok(true),
            Ok(got) if so_far.len() + got > REPORT_BYTES_MAX => {
                let call = "read(status): it is longer than a report";
                return Err(StepError::new(Step::Pipe, Errno::BADMSG, call));
            }
            Ok(got) => so_far.extend_from_slice(&chunk[..got]),
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(StepError::new(Step::Pipe, errno, "read(status)")),
        }
    }
}

/// Whether it is a child of this process: `waitid(2)` accepts no other.
fn is_our_child(pidfd: &OwnedFd) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::PidFd(pidfd.as_fd()), look).is_ok()
}

fn wait_for_news(status: &OwnedFd, time: Option<&Timespec>) {
    let mut fds = [PollFd::new(status, PollFlags::IN)];
    // Interrupted: the callers check again.
    let _woken = poll(&mut fds, time);
}

/// Blocks until a status pipe has the result.
pub(crate) fn reported(status: &OwnedFd) -> Result<(), StepError> {
    // Without a time it has one in the end.
    reported_before(status, None).map(|_reported| ())
}

/// Blocks until a status pipe has the result, at most until that time: then `None`.
pub(crate) fn reported_before(
    status: &OwnedFd,
    until: Option<Instant>,
) -> Result<Option<()>, StepError> {
    let mut report = Vec::new();
    while !read_available(status, &mut report)? {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        let time = left.and_then(|left| Timespec::try_from(left).ok());
        wait_for_news(status, time.as_ref());
    }
    decode(&report).map(Some)
}

/// An empty report is a success: the exec closed the pipe.
fn decode(report: &[u8]) -> Result<(), StepError> {
    if report.is_empty() {
        return Ok(());
    }
    Err(borsh::from_slice(report)
        .unwrap_or_else(|_| StepError::new(Step::Pipe, Errno::BADMSG, "read(status)")))
}

impl Silence {
    /// By whether the process has a start socket.
    pub(crate) fn of(waits: bool) -> Self {
        if waits { Self::Waits } else { Self::Exec }
    }
}

/// The flag of a process that has not executed a program since its creation: `PF_FORKNOEXEC`, include/linux/sched.h.
const FORKED_WITHOUT_EXEC: u64 = 0x40;
/// The place of the flags in `proc_pid_stat(5)`, behind the name.
const FLAGS_AT: usize = 6;

/// Whether a child of ours that is not reaped has never executed a program, also if it has ended: a status pipe ends by
/// a SIGKILL as it ends by the exec, and the kernel clears this flag before it closes descriptors for an exec. False
/// where the kernel does not say.
fn is_before_exec(pid: i32) -> bool {
    let text = read_proc(&format!("{pid}/stat")).unwrap_or_default();
    let flags = text.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(FLAGS_AT));
    flags
        .and_then(|flags| flags.parse::<u64>().ok())
        .is_some_and(|of| of & FORKED_WITHOUT_EXEC != 0)
}

fn ended_before_exec() -> StepError {
    let call = "read(status): the process ended before its program ran";
    StepError::new(Step::Pipe, Errno::CHILD, call)
}

impl PendingProcess {
    /// With `slot`, the process is the one that creates the program's.
    pub(crate) fn new(pid: i32, pidfd: OwnedFd, status: OwnedFd, slot: Option<BirthSlot>) -> Self {
        let owner = slot.map_or(PidOwner::Program, |slot| PidOwner::Creator { slot, kill: false });
        let (report, silence) = (Vec::new(), Silence::Exec);
        Self { pid, pidfd, status, owner, creator: None, silence, report, end: None }
    }

    /// The same, with this meaning of its pipe's end.
    pub(crate) fn with_silence(self, silence: Silence) -> Self {
        Self { silence, ..self }
    }

    /// Keeps the page for the program's pid from all processes that are created later.
    pub(crate) fn keep_slot_from_others(&self) -> hull_sys::Result<()> {
        match &self.owner {
            PidOwner::Creator { slot, .. } => slot.keep_from_children(),
            PidOwner::Program | PidOwner::Ended { .. } => Ok(()),
        }
    }

    /// Updates the state; true when `pid` and `pidfd` have become the program's. Never blocks.
    pub fn update(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        let ended = read_available(&self.status, &mut self.report);
        let is_born = self.take_birth();
        match ended {
            Ok(false) => {}
            Ok(true) if self.report.is_empty() && self.is_before_exec() => {
                self.end = Some(Err(ended_before_exec()));
            }
            Ok(true) => self.end = Some(decode(&self.report)),
            Err(error) => self.end = Some(Err(error)),
        }
        is_born
    }

    /// As [`Self::update`], to be called for each pending process before the child `ended` of ours is reaped: its pid may
    /// be that of the program, not known before this call, and whether its program ran is not known after it.
    pub fn update_before_reaping(&mut self, ended: i32) -> bool {
        let is_born = self.update();
        if self.end.is_none() && matches!(self.owner, PidOwner::Program) && self.pid == ended {
            self.owner = PidOwner::Ended { before_exec: self.is_before_exec() };
        }
        is_born
    }

    /// Whether its process has not come to the exec, or to what [`Silence`] means instead.
    fn is_before_exec(&self) -> bool {
        match self.owner {
            PidOwner::Program => self.silence == Silence::Exec && is_before_exec(self.pid),
            PidOwner::Creator { .. } => true,
            PidOwner::Ended { before_exec } => before_exec,
        }
    }

    /// To be called when process `pid` has ended, after [`Self::update_before_reaping`]. Its creator may have the pipe
    /// open for a moment longer. False when the result is still to come: only the creator has ended, and the program's own
    /// process may be about to appear; or it was killed before its exec, and a process that runs hooks beside it reports
    /// in which of them.
    pub fn ended(&mut self) -> bool {
        self.update();
        let waits = match self.owner {
            PidOwner::Program => false,
            PidOwner::Creator { .. } => true,
            PidOwner::Ended { before_exec } => before_exec && self.report.is_empty(),
        };
        if self.end.is_none() && !waits {
            self.end = Some(decode(&self.report));
        }
        self.end.is_some()
    }

    /// Takes the pid of the program's process, if the kernel has written it.
    fn take_birth(&mut self) -> bool {
        let PidOwner::Creator { slot, kill } = &self.owner else { return false };
        let (Some(number), kill) = (slot.get(), *kill) else { return false };
        self.owner = PidOwner::Program;
        // Our child, and not reaped yet: the pid is still its own. Any other value in the page is rejected.
        let made = Pid::from_raw(number).map(|made| pidfd_open(made, PidfdFlags::empty()));
        match made {
            Some(Ok(pidfd)) if is_our_child(&pidfd) => {
                self.pid = number;
                self.creator = Some(std::mem::replace(&mut self.pidfd, pidfd));
                if kill {
                    let _ended = pidfd_send_signal(&self.pidfd, Signal::KILL);
                }
                true
            }
            _ => {
                let call = "pidfd_open(the new process): it is not a child of ours";
                self.end = Some(Err(StepError::new(Step::Clone, Errno::CHILD, call)));
                false
            }
        }
    }

    /// The result of the start, or `None` while it is pending. Never blocks.
    pub fn poll(&mut self) -> Option<Result<(), StepError>> {
        self.update();
        self.end.clone()
    }

    /// Blocks until the result of the start is known, and reaps the creator of the program's process.
    pub fn wait(&mut self) -> Result<(), StepError> {
        loop {
            if let Some(end) = self.poll() {
                if let Some(creator) = self.creator.take() {
                    let _ended = waitid(WaitId::PidFd(creator.as_fd()), WaitIdOptions::EXITED);
                }
                return end;
            }
            wait_for_news(&self.status, None);
        }
    }

    /// Blocks until `pid` is the program's; false if the start has failed before.
    pub fn wait_for_program(&mut self) -> bool {
        loop {
            self.update();
            if matches!(self.owner, PidOwner::Program | PidOwner::Ended { .. }) {
                return true;
            }
            if self.end.is_some() {
                return false;
            }
            // The process that creates the program's ends then.
            let mut fds =
                [PollFd::new(&self.pidfd, PollFlags::IN), PollFd::new(&self.status, PollFlags::IN)];
            let _woken = poll(&mut fds, None);
        }
    }

    /// Kills it, also if the program's process does not exist yet.
    pub fn kill(&mut self) {
        self.update();
        if let PidOwner::Creator { kill, .. } = &mut self.owner {
            *kill = true;
        }
        let _ended = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Kills and reaps it.
    pub(crate) fn kill_and_reap(&mut self) {
        self.kill();
        let _ended = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        if self.update() {
            self.kill();
            let _ended = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }

    /// The reported error of a process that has ended, and whose report has no other writer.
    pub(crate) fn failure(status: OwnedFd, pidfd: OwnedFd) -> StepError {
        match Self::new(0, pidfd, status, None).poll() {
            Some(Err(error)) => error,
            Some(Ok(())) | None => StepError::new(Step::Pipe, Errno::PIPE, "read(status)"),
        }
    }
}

impl StepError {
    /// The same, or the lack of memory: if the process ended without a report, and the kernel has killed one of its
    /// cgroup for memory since there were `kills_before`, that is the reason.
    #[must_use]
    pub fn or_memory(self, cgroup: &Cgroup, kills_before: u64) -> Self {
        let is_silent = self.step == Step::Pipe && self.errno == Errno::CHILD.raw_os_error();
        if !is_silent || !cgroup.exit_counters().is_ok_and(|of| of.oom_kills > kills_before) {
            return self;
        }
        let call = "read(status): the process was killed, its cgroup had no more memory";
        Self::new(Step::Pipe, Errno::NOMEM, call)
    }

    pub(crate) fn new(step: Step, errno: Errno, call: impl Into<String>) -> Self {
        Self { step, errno: errno.raw_os_error(), call: call.into() }
    }

    pub(crate) fn at(step: Step) -> impl Fn(hull_sys::Error) -> Self {
        move |err| Self::new(step, err.errno(), err.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_status_pipe_that_others_fill_is_read_no_further_than_a_report() {
        let (status, others) = status_pipe().unwrap();
        write(&others, &vec![1; 3 * REPORT_BYTES_MAX]).unwrap();
        let mut so_far = Vec::new();
        let error = read_available(&status, &mut so_far).unwrap_err();
        assert_eq!(error.errno, Errno::BADMSG.raw_os_error());
        assert!(so_far.len() <= REPORT_BYTES_MAX);
    }

    #[test]
    fn a_report_that_does_not_come_is_waited_for_until_its_time() {
        let (status, report) = status_pipe().unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(20));
        assert!(reported_before(&status, soon()).unwrap().is_none());
        write(&report, &encode(&StepError::new(Step::Exec, Errno::NOENT, "x")).unwrap()).unwrap();
        assert!(reported_before(&status, soon()).unwrap().is_none(), "it may not be all of it");
        drop(report);
        let (status, report) = status_pipe().unwrap();
        write(&report, &encode(&StepError::new(Step::Exec, Errno::NOENT, "x")).unwrap()).unwrap();
        drop(report);
        assert_eq!(reported_before(&status, soon()).unwrap_err().step, Step::Exec);
        let (status, report) = status_pipe().unwrap();
        drop(report);
        assert_eq!(reported_before(&status, soon()).unwrap(), Some(()));
    }

    #[test]
    fn the_number_of_a_process_that_is_not_our_child_is_rejected() {
        let pidfd = |pid| pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        assert!(!is_our_child(&pidfd(1)));
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(is_our_child(&pidfd(i32::try_from(child.id()).unwrap())));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_longest_call_is_reported_with_its_beginning_and_its_end() {
        for unit in ["/x", "/ä", "/日本語"] {
            for length in [0, 100, 4000, 4070, 4080, 4096, 5000, 70_000] {
                let call = format!("openat(rootfs, \"{}\")", unit.repeat(length / unit.len()));
                let error = StepError::new(Step::Pipe, Errno::NAMETOOLONG, call.clone());
                let report = encode(&error).unwrap();
                assert!(report.len() <= REPORT_BYTES_MAX, "{} bytes", report.len());
                let reported = decode(&report).unwrap_err();
                assert_eq!((reported.step, reported.errno), (error.step, error.errno));
                assert!(reported.call.starts_with("openat(rootfs,"), "{}", reported.call);
                assert!(reported.call.ends_with("\")"), "{}", reported.call);
                assert!(reported.call == call || reported.call.contains(CUT), "{}", reported.call);
            }
        }
    }
}
