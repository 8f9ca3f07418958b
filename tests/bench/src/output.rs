// SPDX-License-Identifier: Apache-2.0
//! Progress on stderr, and numbers as people read them.

use std::io::Write as _;

/// Prints progress on stderr.
pub fn progress(line: &str) {
    // A reader that has gone away is not a reason to fail.
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// A number with three significant digits, as far as they are behind the point.
pub(crate) fn shown(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}
