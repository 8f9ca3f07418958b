// SPDX-License-Identifier: Apache-2.0
//! A program that runs on a machine until it is ended, and its log.

use super::machine::{Machine, log_file};
use crate::eventually;
use crate::expect::ExpectExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

/// A running program.
#[derive(Debug)]
pub struct Service {
    name: String,
    /// `nsenter`, which waits for the program and ends as it does.
    parent: Child,
    log: PathBuf,
}

impl Service {
    /// Starts `command`, which [`Machine::command`] made; its output is appended to `<machine>/<name>.log`.
    #[must_use]
    pub fn start(machine: &Machine, name: &str, mut command: Command) -> Self {
        let log = machine.dir().join(format!("{name}.log"));
        let file = log_file(&log);
        command.stdout(file.try_clone().or_fail(format!("share the log of {name}"))).stderr(file);
        // A terminal's signals are for the command that a person runs, not for what it leaves running.
        command.process_group(0);
        let parent = command.spawn().or_fail(format!("start {name}"));
        Self { name: name.to_owned(), parent, log }
    }

    /// Its process, as the host numbers it, once it runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        only_child(i32::try_from(self.parent.id()).ok()?)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.parent.try_wait().or_fail(format!("look after {}", self.name))
    }

    /// Panics with the end of its log if it has ended.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended with {status}; its log ends: {}", self.name, self.last_lines());
        }
    }

    /// Sends a signal to it and waits until it has ended.
    pub fn end(&mut self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may be gone already.
            let _ = kill(Pid::from_raw(pid), signal);
        }
        let ended = eventually::blocking(eventually::deadline(), || {
            self.ended().map(drop).ok_or_else(|| "it still runs".to_owned())
        });
        ended.map_err(std::io::Error::other).or_fail(format!("end {}", self.name));
    }

    /// Its log on the host.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its log, for messages.
    #[must_use]
    pub fn last_lines(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(20);
        format!("({})\n{}", self.log.display(), lines[from..].join("\n"))
    }
}

/// The one child of a process that has one.
fn only_child(parent: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let mut children = text.split_whitespace();
    let child = children.next()?.parse().ok();
    if children.next().is_none() { child } else { None }
}
