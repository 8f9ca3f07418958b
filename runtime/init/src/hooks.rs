// SPDX-License-Identifier: Apache-2.0
//! Hooks of the OCI runtime spec: programs that get the container's state on their stdin.
//!
//! The rule: a hook ends within its timeout or is killed, with the processes that it started, and the error of a failed
//! hook shows the end of its output. It gets no descriptor of ours, and its own environment; a startContainer hook
//! without one gets the container's. The callers decide when each kind runs; see [`hook_sync`](crate::hook_sync).

use crate::hook_children::Children;
use crate::plan::{Step, StepError};
use borsh::{BorshDeserialize, BorshSerialize, io};
use hull_sys::{CStringArray, ForkResult, fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, waitid};
use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Timeout of a hook that does not set one itself.
const SECONDS_DEFAULT: u32 = 600;
/// Most of a hook's output that is kept for the error, in bytes. A report has to fit one write to a pipe.
const OUTPUT_BYTES_MAX: usize = 1024;
/// Reads of a hook's output before its end and its time are looked at again.
const READS_MAX: usize = 64;
/// How the error of a hook begins whose program others than root could change.
const NOT_RUN: &str = "its program was not run: ";

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
    /// The file of the node's administrator that has it, as messages show it. The program of such a hook must be root's
    /// alone whenever it runs on the node.
    #[borsh(skip)]
    pub file: Option<String>,
}

impl Hook {
    /// Checks its program, if it is of a file and runs on the node; see [`hull_sys::roots_alone`].
    fn check(&self, at: usize) -> Result<(), StepError> {
        if self.file.is_none() || self.kind == HookKind::StartContainer {
            return Ok(());
        }
        let step = Step::Hook(u32::try_from(at).unwrap_or(u32::MAX));
        match hull_sys::roots_alone(Path::new(&self.path)) {
            Ok(_) => Ok(()),
            Err(why) => Err(StepError::new(step, Errno::PERM, format!("{NOT_RUN}{why}"))),
        }
    }
}

/// The hooks of a container, and the state that they get. In borsh the files are behind the rest, and only if there are
/// some: so hooks without files are those of earlier releases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// The state as JSON without its end: `{…,` to which status and pid are appended.
    pub state: String,
    /// All hooks; those of one kind in the order in which they run.
    pub list: Vec<Hook>,
}

impl BorshSerialize for Hooks {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.state.serialize(writer)?;
        self.list.serialize(writer)?;
        if self.list.iter().all(|hook| hook.file.is_none()) {
            return Ok(());
        }
        self.list.iter().try_for_each(|hook| hook.file.serialize(writer))
    }
}

impl BorshDeserialize for Hooks {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let state = String::deserialize_reader(reader)?;
        let mut list = Vec::<Hook>::deserialize_reader(reader)?;
        let mut first = [0];
        if list.is_empty() || io::Read::read(reader, &mut first)? == 0 {
            return Ok(Self { state, list });
        }
        let mut files = io::Read::chain(first.as_slice(), reader);
        for hook in &mut list {
            hook.file = Option::deserialize_reader(&mut files)?;
        }
        Ok(Self { state, list })
    }
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
        self.run_as(
            kinds,
            status,
            pid,
            &Surroundings { leftovers: Leftovers::OfNode, ..Surroundings::default() },
        )
    }

    /// Runs all of these kinds, whatever becomes of each, in `directory` if that is given. Returns the errors.
    #[must_use]
    pub fn run_all(
        &self,
        kinds: &[HookKind],
        status: &str,
        pid: i32,
        directory: Option<&Path>,
    ) -> Vec<StepError> {
        let leftovers = Leftovers::OfNode;
        let surroundings = Surroundings { leftovers, directory, ..Surroundings::default() };
        let of_kinds = self.list.iter().enumerate().filter(|(_, of)| kinds.contains(&of.kind));
        let ran = of_kinds.map(|(at, _)| self.run_one(at, status, pid, &surroundings));
        ran.filter_map(Result::err).collect()
    }

    /// The hook that failed: its kind, its number among those of its kind, its program.
    #[must_use]
    pub fn name(&self, error: &StepError) -> String {
        let Step::Hook(at) = error.step else { return "a hook".to_owned() };
        let Some(hook) = usize::try_from(at).ok().and_then(|at| self.list.get(at)) else {
            return "a hook".to_owned();
        };
        let before = self.list.iter().zip(0..at).filter(|(of, _)| of.kind == hook.kind);
        let file = hook.file.as_ref().map(|file| format!(" (of hook file {file})"));
        let file = file.unwrap_or_default();
        format!("{} hook #{}: `{}`{file}", hook.kind.name(), before.count(), hook.path)
    }

    /// Checks that the programs of these kinds that run on the node are root's alone, where hooks are of files.
    ///
    /// # Errors
    /// The step is the hook's place in the list.
    pub fn check(&self, kinds: &[HookKind]) -> Result<(), StepError> {
        let mut of_kinds = self.list.iter().enumerate().filter(|(_, of)| kinds.contains(&of.kind));
        of_kinds.try_for_each(|(at, hook)| hook.check(at))
    }

    /// The longest time that those of `kinds` may take together.
    #[must_use]
    pub fn time_max(&self, kinds: &[HookKind]) -> Duration {
        let of_kinds = self.list.iter().filter(|of| kinds.contains(&of.kind));
        of_kinds.map(|of| Duration::from_secs(of.timeout_s.unwrap_or(SECONDS_DEFAULT).into())).sum()
    }

    /// As [`Hooks::run`], with these surroundings.
    pub(crate) fn run_as(
        &self,
        kinds: &[HookKind],
        status: &str,
        pid: i32,
        surroundings: &Surroundings<'_>,
    ) -> Result<(), StepError> {
        let mut of_kinds = self.list.iter().enumerate().filter(|(_, of)| kinds.contains(&of.kind));
        of_kinds.try_for_each(|(at, _)| self.run_one(at, status, pid, surroundings))
    }

    fn run_one(
        &self,
        at: usize,
        status: &str,
        pid: i32,
        surroundings: &Surroundings<'_>,
    ) -> Result<(), StepError> {
        let step = Step::Hook(u32::try_from(at).unwrap_or(u32::MAX));
        // A stopped container has no process, and then no pid.
        let pid = if pid > 0 { format!(",\"pid\":{pid}") } else { String::new() };
        let state = format!("{}\"status\":\"{status}\"{pid}}}\n", self.state);
        let hook =
            self.list.get(at).ok_or_else(|| StepError::new(step, Errno::INVAL, "no hook"))?;
        // Those were checked before the container's user namespace was entered, where nothing is root's.
        if hook.kind != HookKind::CreateContainer {
            hook.check(at)?;
        }
        run(hook, state.as_bytes(), surroundings)
            .map_err(|(errno, call)| StepError::new(step, errno, call))
    }
}

/// The fate of the processes that a hook leaves running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Leftovers {
    /// They are in the container, and end with it.
    #[default]
    OfContainer,
    /// They run on, on the node; those of a hook that failed are killed, one by one.
    OfNode,
    /// They are killed as soon as the hook has ended. They are in the container's mount namespace with the node's root and
    /// rights, and the new root of that namespace becomes theirs too: what they execute or load then is the image's.
    Killed,
}

/// Where a hook runs, and the part of a container's own process that it shares.
#[derive(Default)]
pub(crate) struct Surroundings<'a> {
    /// The fate of the processes that it leaves running.
    pub(crate) leftovers: Leftovers,
    /// The process of the container: with its end the hook is killed.
    pub(crate) container: Option<BorrowedFd<'a>>,
    /// Its working directory, if that is not the caller's.
    pub(crate) directory: Option<&'a Path>,
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
    let leftovers = surroundings.leftovers;
    let children = (leftovers != Leftovers::OfContainer).then(Children::adopt);
    match fork().map_err(failed)? {
        ForkResult::Child => {
            let (errno, call) = become_hook(hook, &stdin, &said, surroundings);
            // Into its own output, which the parent shows, and which is only its stdout in the end.
            let text = format!("{call}: {errno}");
            let written = write(&said, text.as_bytes());
            let _gone = written.or_else(|_| write(rustix::stdio::stdout(), text.as_bytes()));
            hull_sys::exit_now(127)
        }
        ForkResult::Parent { pid, pidfd } => {
            drop(said);
            let limit = hook.timeout_s.unwrap_or(SECONDS_DEFAULT);
            let time = Duration::from_secs(limit.into());
            let (text, waited) = collect_output(&pidfd, &out, surroundings.container, time);
            if waited != Waited::Ended {
                hull_sys::pidfd_send_signal(pidfd.as_fd(), 9).map_err(failed)?;
            }
            // Its group, which is its own number, while that cannot be another's yet.
            let seen = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let status = waitid(WaitId::PidFd(pidfd.as_fd()), seen);
            let why = match waited {
                Waited::TimedOut => {
                    Some((Errno::TIMEDOUT, format!("killed after {limit} s, its `timeout`")))
                }
                Waited::Abandoned => Some((Errno::CANCELED, KILLED_WITH_CONTAINER.into())),
                Waited::Ended => {
                    let status = status.map_err(errno_context("waitid(hook)"))?;
                    status.and_then(|status| how(&status)).map(|how| (Errno::CANCELED, how))
                }
            };
            if why.is_some()
                && surroundings.confine.is_none()
                && let Some(group) = rustix::process::Pid::from_raw(pid)
            {
                let _gone = rustix::process::kill_process_group(group, Signal::KILL);
            }
            let _reaped = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            let is_killed = why.is_some() || leftovers == Leftovers::Killed;
            let are_gone = children.is_none_or(|children| children.release(is_killed));
            let why = why.or_else(|| {
                let left = !are_gone && leftovers == Leftovers::Killed;
                left.then(|| (Errno::BUSY, "what it left running does not end".to_owned()))
            });
            why.map_or(Ok(()), |(errno, how)| Err((errno, format!("{how}; it said {text:?}"))))
        }
    }
}

/// The signal of a seccomp filter.
const SIGSYS: i32 = 31;
/// How the error of a hook begins that was killed because its container had ended.
pub const KILLED_WITH_CONTAINER: &str = "killed as its container ended";
/// How the error of a hook begins that was killed by a seccomp filter.
pub const KILLED_BY_FILTER: &str = "killed by signal 31 (bad system call)";

/// `None` for success.
fn how(status: &WaitIdStatus) -> Option<String> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit code {code}")),
        (None, Some(SIGSYS)) => Some(KILLED_BY_FILTER.to_owned()),
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
        if let Some(directory) = surroundings.directory {
            let call = errno_context(format!("chdir({})", directory.display()));
            rustix::process::chdir(directory).map_err(call)?;
        }
        hull_sys::reset_signals().map_err(failed)?;
        hull_sys::close_all_but(3, &[]).map_err(failed)?;
        if surroundings.confine.is_none() {
            // A group of its own, to be killed as one; and without its parent nothing would end it after its time. The
            // container's filter, which may be there already, need not know these calls.
            rustix::process::setsid().map_err(errno_context("setsid()"))?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(errno_context("prctl(PDEATHSIG)"))?;
        }
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

/// The end of waiting for a hook.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    Ended,
    TimedOut,
    /// Its container has ended.
    Abandoned,
}

/// Waits for its end, at most for `limit`, and keeps the end of its output. Its children may keep the pipe
/// open for longer: that is not waited for.
fn collect_output(
    pidfd: &OwnedFd,
    out: &OwnedFd,
    container: Option<BorrowedFd<'_>>,
    limit: Duration,
) -> (String, Waited) {
    let until = Instant::now() + limit;
    let (mut said, mut open) = (Vec::new(), true);
    let waited = loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        fds.extend(open.then(|| PollFd::new(out, PollFlags::IN)));
        fds.extend(container.map(|of| PollFd::from_borrowed_fd(of, PollFlags::IN)));
        // Interrupted: checked again below.
        let _woken = poll(&mut fds, Some(&wait));
        let ended = !fds[0].revents().is_empty();
        let is_over = container.is_some() && fds.last().is_some_and(|of| !of.revents().is_empty());
        open = open && take(out, &mut said);
        match (ended, is_over, left.is_zero()) {
            (true, ..) => break Waited::Ended,
            (false, true, _) => break Waited::Abandoned,
            (false, false, true) => break Waited::TimedOut,
            (false, false, false) => {}
        }
    };
    (String::from_utf8_lossy(&said).trim().to_owned(), waited)
}

/// `false` at its end.
fn take(out: &OwnedFd, said: &mut Vec<u8>) -> bool {
    let mut chunk = [0; OUTPUT_BYTES_MAX];
    // A hook that writes all the time must not keep its parent from looking at the clock.
    for _ in 0..READS_MAX {
        match read(out, &mut chunk) {
            Ok(0) => return false,
            Ok(got) => {
                said.extend_from_slice(&chunk[..got]);
                let over = said.len().saturating_sub(OUTPUT_BYTES_MAX);
                said.drain(..over);
            }
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
    true
}
