// SPDX-License-Identifier: Apache-2.0
//! Hooks of the OCI runtime spec: programs that get the container's state on their stdin.
//!
//! The rule: a hook ends within its timeout or is killed, and the error of a failed hook shows its output. It gets
//! no descriptor of ours, and its own environment; a startContainer hook without one gets the container's. The callers decide when each kind runs; see
//! [`hook_sync`](crate::hook_sync).

use crate::plan::{Step, StepError};
use borsh::{BorshDeserialize, BorshSerialize};
use hull_sys::{CStringArray, ForkResult, fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Timeout of a hook that does not set one itself.
const SECONDS_DEFAULT: u32 = 600;
/// Most of a hook's output that is kept for the error, in bytes. A report has to fit one write to a pipe.
const OUTPUT_BYTES_MAX: usize = 1024;

/// The point of a container's life at which a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[allow(missing_docs, reason = "named as in the spec")]
pub enum HookKind {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl HookKind {
    /// The name in the spec.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// A program to run at one point of a container's life.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Hook {
    /// The point at which it runs.
    pub kind: HookKind,
    /// The program, an absolute path.
    pub path: String,
    /// Its arguments, `argv[0]` first; if empty, the path alone.
    pub args: Vec<Vec<u8>>,
    /// Its environment. If it is empty, a startContainer hook gets the container's.
    pub env: Vec<Vec<u8>>,
    /// Its timeout in seconds; `None` for the default.
    pub timeout_s: Option<u32>,
}

/// The hooks of a container, and the state that they get.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Hooks {
    /// The state as JSON without its end: `{…,` to which status and pid are appended.
    pub state: String,
    /// All hooks; those of one kind in the order in which they run.
    pub list: Vec<Hook>,
}

impl Hooks {
    /// Whether there is one of these kinds.
    #[must_use]
    pub fn has(&self, kinds: &[HookKind]) -> bool {
        self.list.iter().any(|hook| kinds.contains(&hook.kind))
    }

    /// Runs those of `kinds`, one after the other; the first that fails ends it. The step of an error
    /// is the hook's place in the list.
    pub fn run(&self, kinds: &[HookKind], status: &str, pid: i32) -> Result<(), StepError> {
        self.run_as(kinds, status, pid, &Surroundings::default())
    }

    /// As [`Hooks::run`], inside of a container.
    pub(crate) fn run_as(
        &self,
        kinds: &[HookKind],
        status: &str,
        pid: i32,
        surroundings: &Surroundings<'_>,
    ) -> Result<(), StepError> {
        for (at, hook) in self.list.iter().enumerate().filter(|(_, of)| kinds.contains(&of.kind)) {
            let step = Step::Hook(u32::try_from(at).unwrap_or(u32::MAX));
            let state = format!("{}\"status\":\"{status}\",\"pid\":{pid}}}\n", self.state);
            run(hook, state.as_bytes(), surroundings)
                .map_err(|(errno, call)| StepError::new(step, errno, call))?;
        }
        Ok(())
    }
}

/// The part of a container's own process that its hooks share.
#[derive(Default)]
pub(crate) struct Surroundings<'a> {
    /// The environment of a hook that has none of its own.
    pub(crate) env: &'a [Vec<u8>],
    /// Confines the hook as the program will be, before its exec.
    pub(crate) confine: Option<&'a dyn Fn() -> Result<(), StepError>>,
}

type Result<T = (), E = (Errno, String)> = std::result::Result<T, E>;

fn errno_context(call: impl Into<String>) -> impl FnOnce(Errno) -> (Errno, String) {
    move |errno| (errno, call.into())
}

fn run(hook: &Hook, state: &[u8], surroundings: &Surroundings<'_>) -> Result {
    let stdin = in_memory(state)?;
    let (out, said) = pipe_with(PipeFlags::CLOEXEC).map_err(errno_context("pipe2(CLOEXEC)"))?;
    rustix::io::ioctl_fionbio(&out, true).map_err(errno_context("ioctl(FIONBIO)"))?;
    let failed = |err: hull_sys::Error| (err.errno(), err.to_string());
    match fork().map_err(failed)? {
        ForkResult::Child => {
            let (errno, call) = become_hook(hook, &stdin, &said, surroundings);
            // Into its own output, which the parent shows, and which is only its stdout in the end.
            let text = format!("{call}: {errno}");
            let written = write(&said, text.as_bytes());
            let _gone = written.or_else(|_| write(rustix::stdio::stdout(), text.as_bytes()));
            hull_sys::exit_now(127)
        }
        ForkResult::Parent { pidfd, .. } => {
            drop(said);
            let limit = hook.timeout_s.unwrap_or(SECONDS_DEFAULT);
            let (text, in_time) = collect_output(&pidfd, &out, Duration::from_secs(limit.into()));
            if !in_time {
                hull_sys::pidfd_send_signal(pidfd.as_fd(), 9).map_err(failed)?;
            }
            let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            let status = status.map_err(errno_context("waitid(hook)"))?;
            if !in_time {
                return Err((Errno::TIMEDOUT, format!("killed after {limit} s; it said {text:?}")));
            }
            match status.and_then(|status| how(&status)) {
                None => Ok(()),
                Some(how) => Err((Errno::CANCELED, format!("{how}; it said {text:?}"))),
            }
        }
    }
}

/// The signal of a seccomp filter.
const SIGSYS: i32 = 31;

/// `None` for success.
fn how(status: &WaitIdStatus) -> Option<String> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit code {code}")),
        (None, Some(SIGSYS)) => Some(format!("killed by signal {SIGSYS} (bad system call)")),
        (None, signal) => Some(format!("killed by signal {}", signal.unwrap_or(0))),
    }
}

/// A file and not a pipe: a hook that does not read its state must not block the start.
fn in_memory(bytes: &[u8]) -> Result<OwnedFd> {
    let file =
        memfd_create("state", MemfdFlags::CLOEXEC).map_err(errno_context("memfd_create(state)"))?;
    let mut left = bytes;
    while !left.is_empty() {
        let written = write(&file, left).map_err(errno_context("write(state)"))?;
        left = &left[written..];
    }
    seek(&file, SeekFrom::Start(0)).map_err(errno_context("lseek(state)"))?;
    Ok(file)
}

/// In the child; returns only if it failed.
fn become_hook(
    hook: &Hook,
    stdin: &OwnedFd,
    said: &OwnedFd,
    surroundings: &Surroundings<'_>,
) -> (Errno, String) {
    let prepared = || -> Result<(CString, CStringArray, CStringArray)> {
        rustix::stdio::dup2_stdin(stdin).map_err(errno_context("dup2(stdin)"))?;
        rustix::stdio::dup2_stdout(said).map_err(errno_context("dup2(stdout)"))?;
        rustix::stdio::dup2_stderr(said).map_err(errno_context("dup2(stderr)"))?;
        let failed = |err: hull_sys::Error| (err.errno(), err.to_string());
        hull_sys::reset_signals().map_err(failed)?;
        hull_sys::close_all_but(3, &[]).map_err(failed)?;
        let own_name = [hook.path.clone().into_bytes()];
        let args = if hook.args.is_empty() { own_name.as_slice() } else { &hook.args };
        let path = CString::new(hook.path.as_str()).map_err(|_| (Errno::INVAL, "path".into()))?;
        let args = CStringArray::new(args).map_err(errno_context("arguments"))?;
        let env = if hook.env.is_empty() { surroundings.env } else { &hook.env };
        let env = CStringArray::new(env).map_err(errno_context("environment"))?;
        if let Some(confine) = surroundings.confine {
            let failed = |err: StepError| (Errno::from_raw_os_error(err.errno), err.call);
            confine().map_err(failed)?;
        }
        Ok((path, args, env))
    };
    match prepared() {
        Ok((path, args, env)) => {
            let err = hull_sys::execve(&path, &args, &env);
            (err.errno(), format!("execve({})", hook.path))
        }
        Err(failed) => failed,
    }
}

/// Waits for its end, at most for `limit`, and keeps the beginning of its output. Its children may keep the pipe
/// open for longer: that is not waited for.
fn collect_output(pidfd: &OwnedFd, out: &OwnedFd, limit: Duration) -> (String, bool) {
    let until = Instant::now() + limit;
    let (mut said, mut open) = (Vec::new(), true);
    let in_time = loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(out, PollFlags::IN)];
        let watched = if open { &mut fds[..] } else { &mut fds[..1] };
        // Interrupted: checked again below.
        let _woken = poll(watched, Some(&wait));
        let ended = !fds[0].revents().is_empty();
        open = open && take(out, &mut said);
        if ended || left.is_zero() {
            break ended;
        }
    };
    (String::from_utf8_lossy(&said).trim().to_owned(), in_time)
}

/// `false` at its end.
fn take(out: &OwnedFd, said: &mut Vec<u8>) -> bool {
    let mut chunk = [0; OUTPUT_BYTES_MAX];
    loop {
        match read(out, &mut chunk) {
            Ok(0) => return false,
            Ok(got) => {
                let room = OUTPUT_BYTES_MAX - said.len();
                said.extend_from_slice(&chunk[..got.min(room)]);
            }
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}
