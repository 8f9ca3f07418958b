// SPDX-License-Identifier: Apache-2.0
//! Running a program to its end, with what it said in the message when it fails.

use crate::expect::ExpectExt;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// The result of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Exit code; 128 + the signal when one killed it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// Its output, or a panic with its complaint when it failed.
    #[must_use]
    #[track_caller]
    pub fn good(self) -> String {
        assert!(self.code == 0, "exit {}: {}{}", self.code, self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a program to its end.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Ran {
    let mut command = Command::new(program);
    command.args(args);
    finish(&mut command)
}

/// Runs a prepared command to its end.
pub fn finish(command: &mut Command) -> Ran {
    use std::os::unix::process::ExitStatusExt as _;
    let output = command.output().or_fail(format!("run {command:?}"));
    let signal = || 128 + output.status.signal().unwrap_or_default();
    Ran {
        code: output.status.code().unwrap_or_else(signal),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Prints a line. A reader that has gone away is not a reason to fail.
pub fn say(line: &str) {
    let written = writeln!(std::io::stdout().lock(), "{line}");
    drop(written);
}

/// The names in a directory; empty when it is not there.
#[must_use]
pub fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
