// SPDX-License-Identifier: Apache-2.0
//! Runs a suite of Kubernetes by ginkgo, and reads its report.

use super::machine::log_file;
use crate::expect::ExpectExt;
use crate::suite::report::{Ended, Report};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The part of the specs to run, and the limits of the run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Regular expression of the names of the specs; empty for all.
    pub focus: String,
    /// Regular expression of the files of the specs; empty for all.
    pub files: String,
    /// Regular expression of the names of specs to leave out; empty for none.
    pub skip: String,
    /// Number of specs that run at the same time.
    pub processes: u8,
    /// Time after which ginkgo ends the run.
    pub timeout: Duration,
}

/// Runs specs of the suite `programs`, a folder and a file in it. `command` is the beginning of the command, which says
/// where it runs; `arguments` are for the suite. Report and log, named after the suite, are left in `dir`.
#[must_use]
pub fn run(
    mut command: Command,
    (programs, suite): (&Path, &str),
    run: &Run,
    arguments: &[String],
    dir: &Path,
) -> Report {
    fs::create_dir_all(dir).or_fail(format!("make {}", dir.display()));
    let json = dir.join("report.json");
    drop(fs::remove_file(&json));
    let log = dir.join(suite.replace(".test", ".log"));
    drop(fs::remove_file(&log));
    let out = log_file(&log);
    command
        .arg(programs.join("ginkgo"))
        .args([
            format!("--procs={}", run.processes),
            format!("--timeout={}s", run.timeout.as_secs()),
        ])
        .args(["--no-color", "--json-report=report.json"])
        .arg(format!("--output-dir={}", dir.display()));
    for (option, value) in [("focus", &run.focus), ("skip", &run.skip), ("focus-file", &run.files)]
    {
        if !value.is_empty() {
            command.arg(format!("--{option}={value}"));
        }
    }
    command
        .arg(programs.join(suite))
        .arg("--")
        .args(arguments)
        .env("HOME", dir)
        .stdout(out.try_clone().or_fail("share the log"))
        .stderr(out);
    let status = command.status().or_fail("start ginkgo");
    let text = fs::read_to_string(&json).or_fail(format!(
        "read the report {} (ginkgo ended with {status}; see {})",
        json.display(),
        log.display()
    ));
    let report = Report::read(&text).map_err(std::io::Error::other);
    let report = selected(report.or_fail(format!("understand {}", json.display())));
    assert!(!report.specs.is_empty(), "no spec is selected by {:?}", run.focus);
    report
}

/// Without the specs that were left out by their names.
#[must_use]
pub fn selected(mut report: Report) -> Report {
    report.specs.retain(|_, ended| *ended != Ended::Skipped("left out by name".into()));
    report
}
