// SPDX-License-Identifier: Apache-2.0
//! Runs a plugin once, with bounded time and output.
//!
//! The rule: whatever a plugin does, the call ends by its deadline and with bounded memory. A plugin that
//! exceeds a bound is killed with its process group, because plugins start other plugins (IPAM).
//!
//! Not here: the content of input and output; see [`protocol`](super::protocol).

use crate::limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Largest stdout of a plugin, in bytes. Results have a few KiB.
const ANSWER_BYTES_MAX: usize = limits::ANSWER_BYTES.count();
/// How much of the end of a plugin's stderr is kept, in bytes.
const STDERR_BYTES_MAX: usize = limits::COMPLAINT_BYTES.count();

/// A failure to run a plugin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start {program}")]
    Start { program: String, source: io::Error },
    #[error("exchange data with {program}")]
    Pipes { program: String, source: io::Error },
    #[error("wait for {program}: it did not end within {} s{}", after.as_secs(), stderr_suffix(stderr_tail))]
    TimedOut { program: String, after: Duration, stderr_tail: String },
    #[error("read the output of {program}: it wrote more than {ANSWER_BYTES_MAX} bytes")]
    OutputTooLarge { program: String },
}

/// The exit status and output of a plugin.
#[derive(Debug)]
pub(super) struct PluginOutput {
    pub(super) status: ExitStatus,
    pub(super) answer: Vec<u8>,
    /// The end of stderr, on one line.
    pub(super) stderr_tail: String,
}

/// Runs `program` with `env` added to this process's environment, and `input` as its stdin.
pub(super) fn run(
    program: &Path,
    env: &[(&'static str, String)],
    input: File,
    deadline: Duration,
) -> Result<PluginOutput, Error> {
    let shown = || program.display().to_string();
    let mut child = Command::new(program)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(input))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|source| Error::Start { program: shown(), source })?;
    let mut io = match PluginIo::with(&mut child) {
        Ok(io) => io,
        Err(source) => {
            end(&mut child);
            return Err(Error::Pipes { program: shown(), source });
        }
    };
    let until = Instant::now() + deadline;
    loop {
        match io.step(until) {
            Ok(Step::Exited) => break,
            Ok(Step::Running) if io.answer.len() > ANSWER_BYTES_MAX => {
                end(&mut child);
                return Err(Error::OutputTooLarge { program: shown() });
            }
            Ok(Step::Running) => {}
            Ok(Step::DeadlinePassed) => {
                end(&mut child);
                let stderr_tail = io.stderr_tail();
                return Err(Error::TimedOut { program: shown(), after: deadline, stderr_tail });
            }
            Err(source) => {
                end(&mut child);
                return Err(Error::Pipes { program: shown(), source });
            }
        }
    }
    // The plugin has exited, so this does not block.
    let status = child.wait().map_err(|source| Error::Pipes { program: shown(), source })?;
    // Processes that it left behind may hold the pipes open; read only their present content.
    io.drain().map_err(|source| Error::Pipes { program: shown(), source })?;
    if io.answer.len() > ANSWER_BYTES_MAX {
        return Err(Error::OutputTooLarge { program: shown() });
    }
    let stderr_tail = io.stderr_tail();
    Ok(PluginOutput { status, answer: io.answer, stderr_tail })
}

/// Describes an exit status.
pub(super) fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Formats the end of stderr as a suffix for an error message.
pub(super) fn stderr_suffix(stderr_tail: &str) -> String {
    if stderr_tail.is_empty() { String::new() } else { format!("; its last output: {stderr_tail}") }
}

/// Kills the plugin's process group and reaps the plugin. A killed process exits at once unless it hangs in
/// the kernel, where nothing can end it.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // The process group may be gone already.
        let _gone = kill_process_group(group, Signal::KILL);
    }
    let _reaped = child.wait();
}

enum Step {
    Running,
    Exited,
    DeadlinePassed,
}

/// The pipes and the pidfd of a running plugin.
struct PluginIo {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    ended: OwnedFd,
    answer: Vec<u8>,
    stderr_bytes: Vec<u8>,
}

impl PluginIo {
    fn with(child: &mut Child) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let fds = [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        for fd in fds.into_iter().flatten() {
            rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK)?;
        }
        Ok(Self { stdout, stderr, ended, answer: Vec::new(), stderr_bytes: Vec::new() })
    }

    /// Waits for output, exit or the deadline, and reads available output.
    fn step(&mut self, until: Instant) -> io::Result<Step> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Step::DeadlinePassed);
        }
        let wait = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = vec![PollFd::new(&self.ended, PollFlags::IN)];
        fds.extend(self.stdout.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.stderr.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        match poll(&mut fds, Some(&wait)) {
            Err(Errno::INTR) => return Ok(Step::Running),
            other => other?,
        };
        let over = !fds[0].revents().is_empty();
        drop(fds);
        self.drain()?;
        Ok(if over { Step::Exited } else { Step::Running })
    }

    /// Reads the present content of the pipes.
    fn drain(&mut self) -> io::Result<()> {
        if let Some(stdout) = &mut self.stdout
            && !take(stdout, &mut self.answer, ANSWER_BYTES_MAX + 1)?
        {
            self.stdout = None;
        }
        if let Some(stderr) = &mut self.stderr {
            let going = take(stderr, &mut self.stderr_bytes, usize::MAX)?;
            let surplus = self.stderr_bytes.len().saturating_sub(STDERR_BYTES_MAX);
            self.stderr_bytes.drain(..surplus);
            if !going {
                self.stderr = None;
            }
        }
        Ok(())
    }

    fn stderr_tail(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr_bytes);
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        super::protocol::one_line(&lines.join(" / "))
    }
}

/// Reads up to one pipe's content without blocking, until `into` has `most` bytes. Returns `false` at end
/// of file.
fn take(from: &mut impl Read, into: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    /// The size of a pipe, so that endless output does not keep this loop running.
    const AT_ONCE: usize = 64 << 10;
    let mut chunk = [0; 8 << 10];
    let mut taken = 0;
    while taken < AT_ONCE && into.len() < most {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                taken += count;
                into.extend_from_slice(&chunk[..count]);
            }
            Err(err) if would_block(&err) => return Ok(true),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(true)
}

fn would_block(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Seek as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    fn script(dir: &tempfile::TempDir, body: &str) -> PathBuf {
        let path = dir.path().join("plugin");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn file(input: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(input).unwrap();
        file.rewind().unwrap();
        file
    }

    fn within(body: &str, input: &[u8], deadline: Duration) -> Result<PluginOutput, Error> {
        let dir = tempfile::tempdir().unwrap();
        run(&script(&dir, body), &[("CNI_COMMAND", "ADD".into())], file(input), deadline)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_plugin_gets_its_input_and_environment_and_its_answer_is_taken() {
        let input = vec![b'x'; 300_000];
        let done =
            within(r#"wc -c; echo "$CNI_COMMAND"; echo no >&2; exit 3"#, &input, LONG).unwrap();
        assert_eq!(String::from_utf8(done.answer).unwrap(), "300000\nADD\n");
        assert_eq!(
            (describe_exit(done.status).as_str(), done.stderr_tail.as_str()),
            ("exit code 3", "no")
        );
    }

    #[test]
    fn a_plugin_that_hangs_is_killed_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("pid");
        let body = format!("echo waiting >&2; sleep 600 & echo $! > {}; wait", told.display());
        let program = script(&dir, &body);
        let late = run(&program, &[], file(b""), Duration::from_secs(1)).unwrap_err();
        assert!(
            matches!(&late, Error::TimedOut { stderr_tail, .. } if stderr_tail == "waiting"),
            "{late}"
        );
        let pid: i32 = fs::read_to_string(told).unwrap().trim().parse().unwrap();
        // Killed; one that was just running ends a moment later.
        let killed = Pid::from_raw(pid).unwrap();
        let Ok(killed) = pidfd_open(killed, PidfdFlags::empty()) else { return };
        let mut fds = [PollFd::new(&killed, PollFlags::IN)];
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "it lives");
    }

    #[test]
    fn what_is_left_behind_with_the_pipes_does_not_hold_the_call() {
        let done = within("sleep 600 & echo $!", b"", LONG).unwrap();
        let pid: i32 = String::from_utf8(done.answer).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn a_plugin_that_talks_without_end_is_stopped() {
        let much = within("yes", b"", LONG).unwrap_err();
        assert!(matches!(much, Error::OutputTooLarge { .. }), "{much}");
        let done = within("yes complaint | head -c 5000000 >&2", b"", LONG).unwrap();
        assert!(done.stderr_tail.len() < 3 * STDERR_BYTES_MAX);
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let err = run(Path::new("/nonexistent/plugin"), &[], file(b""), LONG).unwrap_err();
        assert_eq!(err.to_string(), "start /nonexistent/plugin");
    }
}
