// SPDX-License-Identifier: Apache-2.0
//! Logs of containers, in CRI's format.

use crate::expect::ExpectExt;
use std::path::Path;

/// One line, or piece of a line, of a container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The timestamp as written.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Whether the line ends here (`F`) or goes on (`P`).
    pub full: bool,
    /// The text of the line, without the fields before it.
    pub text: String,
}

/// Reads a log file.
#[must_use]
pub fn read_log(path: &Path) -> Vec<LogLine> {
    let bytes = std::fs::read(path).or_fail(format!("read the log {}", path.display()));
    let text = String::from_utf8_lossy(&bytes);
    // A line that is being written right now has no end yet.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(log_line).collect()
}

fn log_line(line: &str) -> LogLine {
    let mut words = line.splitn(4, ' ');
    let mut next = || words.next().or_fail(format!("read the log line {line:?}")).to_owned();
    let (time, stream, tag) = (next(), next(), next());
    assert!(tag == "F" || tag == "P", "the log line {line:?} has no tag P or F");
    LogLine { time, stream, full: tag == "F", text: next() }
}

/// The text that was written to one stream.
#[must_use]
pub fn text(logs: &[LogLine], stream: &str) -> String {
    let mut text = String::new();
    for line in logs.iter().filter(|line| line.stream == stream) {
        text.push_str(&line.text);
        if line.full {
            text.push('\n');
        }
    }
    text
}
