// SPDX-License-Identifier: Apache-2.0
//! Processes that run hooks of a container beside their parent, which goes on meanwhile.
//!
//! ```text
//! <directory of the container>/poststop    there from before its start until its poststop hooks have run
//! ```
//!
//! The rule: every process that runs hooks outside of a container holds the lock of that file. So its poststop hooks
//! come after its other hooks, and run once, though two may try: a monitor at the container's end, and a daemon that
//! takes the monitor for lost. Killed half-way they run again.

use crate::hooks::{HookKind, Hooks};
use crate::pending_process::status_pipe;
use crate::plan::{Step, StepError};
use hull_sys::{ForkResult, fork};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, openat, unlinkat};
use rustix::io::{Errno, write};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// The file that is there as long as poststop hooks have to run.
pub const OWED: &str = "poststop";
/// The file with a container's [`Hooks`], in borsh.
pub const HOOKS: &str = "hooks";
/// Longest such file that is read, in bytes.
const HOOKS_BYTES_MAX: u64 = 16 << 20;
/// Longest text of failed hooks, in bytes: it fits a pipe, so that nobody has to read it at once.
const TEXT_BYTES_MAX: usize = 4096;

/// The lock of a container's hooks; released with it.
pub(crate) struct Lock(Option<OwnedFd>);

impl Lock {
    /// Waits for the lock of the container with this directory.
    pub(crate) fn take(dir: BorrowedFd<'_>) -> Result<Self, StepError> {
        let failed = |call: &'static str| move |errno| StepError::new(Step::Pipe, errno, call);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(dir, OWED, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Self(None)),
            other => other.map_err(failed("openat(poststop)"))?,
        };
        flock(&file, FlockOperation::LockExclusive).map_err(failed("flock(poststop)"))?;
        let is_there = fstat(&file).map_err(failed("fstat(poststop)"))?.st_nlink > 0;
        Ok(Self(is_there.then_some(file)))
    }
}

/// In a new child: ends with `parent`, keeps no descriptor but these, and is not traced.
pub(crate) fn end_with_parent(parent: Pid, kept: &[BorrowedFd<'_>]) -> Result<(), StepError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| StepError::new(Step::Pipe, errno, "prctl(PDEATHSIG)"))?;
    if getppid() != Some(parent) {
        hull_sys::exit_now(1);
    }
    hull_sys::close_all_but(3, kept).map_err(StepError::at(Step::Pipe))
}

/// Runs the poststart or the poststop hooks of a container in a process beside ours. The descriptor reads what failed,
/// in words, and then the end.
pub fn run_beside(
    hooks: &Hooks,
    kind: HookKind,
    pid: i32,
    dir: BorrowedFd<'_>,
) -> Result<OwnedFd, StepError> {
    let (status, report) = status_pipe()?;
    let parent = getpid();
    match fork().map_err(StepError::at(Step::Clone))? {
        ForkResult::Parent { .. } => Ok(status),
        ForkResult::Child => {
            let ran = end_with_parent(parent, &[report.as_fd(), dir])
                .and_then(|()| run_locked(hooks, kind, pid, dir));
            let text = ran.unwrap_or_else(|error| told(hooks, &error));
            let _gone = write(&report, text.as_bytes());
            hull_sys::exit_now(0)
        }
    }
}

/// Runs the poststop hooks of the container with this directory, if they have not run. Returns what failed, in words.
///
/// # Errors
/// The hooks cannot be read, or their lock not be taken.
pub fn run_owed(dir: BorrowedFd<'_>) -> Result<String, StepError> {
    let failed = |errno| StepError::new(Step::Pipe, errno, "read(hooks)");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, HOOKS, flags, Mode::empty()).map_err(failed)?;
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(HOOKS_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|err| failed(Errno::from_io_error(&err).unwrap_or(Errno::IO)))?;
    let hooks: Hooks = borsh::from_slice(&bytes).map_err(|_| failed(Errno::BADMSG))?;
    run_locked(&hooks, HookKind::Poststop, 0, dir)
}

fn run_locked(
    hooks: &Hooks,
    kind: HookKind,
    pid: i32,
    dir: BorrowedFd<'_>,
) -> Result<String, StepError> {
    let lock = Lock::take(dir)?;
    let is_last = kind == HookKind::Poststop;
    if is_last && lock.0.is_none() {
        return Ok(String::new());
    }
    let errors = hooks.run_all(&[kind], if is_last { "stopped" } else { "running" }, pid, None);
    if is_last {
        // Before anybody else gets the lock.
        unlinkat(dir, OWED, AtFlags::empty())
            .map_err(|errno| StepError::new(Step::Pipe, errno, "unlinkat(poststop)"))?;
    }
    let texts: Vec<_> = errors.iter().map(|error| told(hooks, error)).collect();
    let mut text = texts.join("; ");
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    Ok(text)
}

fn told(hooks: &Hooks, error: &StepError) -> String {
    format!("{}: {}", hooks.name(error), error.call)
}
