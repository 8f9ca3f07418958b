// SPDX-License-Identifier: Apache-2.0
//! The auditor's output: lines on stdout, each flushed at once, since most of its commands run until they are killed.

use std::io::Write as _;

/// Prints a line. A reader that has gone away is not a reason to fail.
pub(crate) fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    drop(written);
}
