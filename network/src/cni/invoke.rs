// SPDX-License-Identifier: Apache-2.0
//! Running one plugin once: what it is given, how long it may take, how much it may say.
//!
//! The rule: whatever a plugin does, the call ends by its deadline and with bounded memory. A plugin
//! that takes too long or says too much is killed with its whole process group, since plugins start
//! others (address management).
//!
//! Not here: what is said. That is [`protocol`](super::protocol)'s business.

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

/// Most that a plugin may answer, in bytes. Results are a few KiB.
const ANSWER_BYTES_MAX: usize = limits::ANSWER_BYTES.count();
/// What is kept of the end of a plugin's stderr, in bytes: enough for the sentence that matters.
const COMPLAINT_BYTES_MAX: usize = limits::COMPLAINT_BYTES.count();

/// Why a plugin gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start {program}")]
    Start { program: String, source: io::Error },
    #[error("speak with {program}")]
    Pipes { program: String, source: io::Error },
    #[error("wait for {program}: it did not end within {} s{}", after.as_secs(), said(complaint))]
    TooSlow { program: String, after: Duration, complaint: String },
    #[error("understand {program}: it answered more than {ANSWER_BYTES_MAX} bytes")]
    TooMuch { program: String },
}

/// What a plugin did.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) status: ExitStatus,
    pub(super) answer: Vec<u8>,
    /// The end of its stderr, on one line.
    pub(super) complaint: String,
}

/// Runs `program` with `env` on top of our environment and the file `input` as its stdin.
pub(super) fn run(
    program: &Path,
    env: &[(&'static str, String)],
    input: File,
    deadline: Duration,
) -> Result<Done, Error> {
    let shown = || program.display().to_string();
    let mut child = Command::new(program)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(input))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|source| Error::Start { program: shown(), source })?;
    let mut talk = match Talk::with(&mut child) {
        Ok(talk) => talk,
        Err(source) => {
            end(&mut child);
            return Err(Error::Pipes { program: shown(), source });
        }
    };
    let until = Instant::now() + deadline;
    loop {
        match talk.step(until) {
            Ok(Step::Ended) => break,
            Ok(Step::Going) if talk.answer.len() > ANSWER_BYTES_MAX => {
                end(&mut child);
                return Err(Error::TooMuch { program: shown() });
            }
            Ok(Step::Going) => {}
            Ok(Step::Late) => {
                end(&mut child);
                let complaint = talk.complaint();
                return Err(Error::TooSlow { program: shown(), after: deadline, complaint });
            }
            Err(source) => {
                end(&mut child);
                return Err(Error::Pipes { program: shown(), source });
            }
        }
    }
    // It has ended: this does not wait.
    let status = child.wait().map_err(|source| Error::Pipes { program: shown(), source })?;
    // What it left behind may hold the pipes open; what is in them now is all that counts.
    talk.drain().map_err(|source| Error::Pipes { program: shown(), source })?;
    if talk.answer.len() > ANSWER_BYTES_MAX {
        return Err(Error::TooMuch { program: shown() });
    }
    let complaint = talk.complaint();
    Ok(Done { status, answer: talk.answer, complaint })
}

/// How a plugin ended, in words.
pub(super) fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// A plugin's last words, as the end of a sentence.
pub(super) fn said(complaint: &str) -> String {
    if complaint.is_empty() { String::new() } else { format!("; it last said: {complaint}") }
}

/// Kills the plugin and what it started, and waits for it: a killed process is gone at once, unless it
/// hangs in the kernel, where nobody could end it.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // Gone already: nothing to kill.
        let _gone = kill_process_group(group, Signal::KILL);
    }
    let _reaped = child.wait();
}

enum Step {
    Going,
    Ended,
    Late,
}

/// The pipes of a plugin under way, and its end.
struct Talk {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    ended: OwnedFd,
    answer: Vec<u8>,
    last_words: Vec<u8>,
}

impl Talk {
    fn with(child: &mut Child) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let fds = [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        for fd in fds.into_iter().flatten() {
            rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK)?;
        }
        Ok(Self { stdout, stderr, ended, answer: Vec::new(), last_words: Vec::new() })
    }

    /// Waits for whatever comes next and takes it.
    fn step(&mut self, until: Instant) -> io::Result<Step> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Step::Late);
        }
        let wait = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = vec![PollFd::new(&self.ended, PollFlags::IN)];
        fds.extend(self.stdout.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.stderr.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        match poll(&mut fds, Some(&wait)) {
            Err(Errno::INTR) => return Ok(Step::Going),
            other => other?,
        };
        let over = !fds[0].revents().is_empty();
        drop(fds);
        self.drain()?;
        Ok(if over { Step::Ended } else { Step::Going })
    }

    /// Takes what is in the pipes now.
    fn drain(&mut self) -> io::Result<()> {
        if let Some(stdout) = &mut self.stdout
            && !take(stdout, &mut self.answer, ANSWER_BYTES_MAX + 1)?
        {
            self.stdout = None;
        }
        if let Some(stderr) = &mut self.stderr {
            let going = take(stderr, &mut self.last_words, usize::MAX)?;
            let surplus = self.last_words.len().saturating_sub(COMPLAINT_BYTES_MAX);
            self.last_words.drain(..surplus);
            if !going {
                self.stderr = None;
            }
        }
        Ok(())
    }

    fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.last_words);
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        super::protocol::one_line(&lines.join(" / "))
    }
}

/// Reads one pipe's worth without waiting. False when its other end is closed. What is beyond `most`
/// stays where it is.
fn take(from: &mut impl Read, into: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    /// As much as a pipe holds, so that an endless talker does not keep us here.
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

    fn within(body: &str, input: &[u8], deadline: Duration) -> Result<Done, Error> {
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
        assert_eq!((how(done.status).as_str(), done.complaint.as_str()), ("exit code 3", "no"));
    }

    #[test]
    fn a_plugin_that_hangs_is_killed_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("pid");
        let body = format!("echo waiting >&2; sleep 600 & echo $! > {}; wait", told.display());
        let program = script(&dir, &body);
        let late = run(&program, &[], file(b""), Duration::from_secs(1)).unwrap_err();
        assert!(
            matches!(&late, Error::TooSlow { complaint, .. } if complaint == "waiting"),
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
        assert!(matches!(much, Error::TooMuch { .. }), "{much}");
        let done = within("yes complaint | head -c 5000000 >&2", b"", LONG).unwrap();
        assert!(done.complaint.len() < 3 * COMPLAINT_BYTES_MAX);
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let err = run(Path::new("/nonexistent/plugin"), &[], file(b""), LONG).unwrap_err();
        assert_eq!(err.to_string(), "start /nonexistent/plugin");
    }
}
