// SPDX-License-Identifier: Apache-2.0
//! Printing: results to stdout, errors and progress to stderr. A closed pipe is an error of the functions here;
//! [`report`] ends the command silently for it.
//!
//! The rule: names and messages come from images, pods and registries, so everything printed is
//! escaped ([`hull_sys::text`]), except by [`raw`]. A name inside a line goes through [`line`] or a
//! [`Table`](super::table::Table), which keep it on that line.

use super::error::{Error, Result};
use hull_sys::text::{MESSAGE_BYTES_MAX, shown, shown_json, shown_lines};
use indicatif::BinaryBytes;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

/// Writes lines to stdout and flushes it.
pub(crate) fn print(text: &str) -> Result<()> {
    raw(&shown_lines(text))
}

/// Writes one line to stdout and flushes it; `text` has no newline.
pub(crate) fn line(text: &str) -> Result<()> {
    raw(&format!("{}\n", shown(text, MESSAGE_BYTES_MAX)))
}

/// Writes a JSON document to stdout and flushes it; `document` ends with a newline.
pub(crate) fn json(document: &str) -> Result<()> {
    raw(&shown_json(document))
}

/// Writes text of our own to stdout, without escaping, and flushes it.
pub(crate) fn raw(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::io("write to stdout"))
}

/// Writes lines to stderr. An error is ignored: there is nowhere left to report it.
pub(crate) fn to_stderr(text: &str) {
    let _nobody_reads = io::stderr().lock().write_all(shown_lines(text).as_bytes());
}

/// Prints an error with its hint to stderr, and returns `code` as the exit code.
pub(crate) fn report(error: &Error, code: u8) -> ExitCode {
    if error.is_broken_pipe() {
        // `hull ps | head -1`: the reader has what it wants.
        return ExitCode::SUCCESS;
    }
    to_stderr(&error.lines());
    ExitCode::from(code)
}

/// The width of the terminal that stdout is, in columns; `None` if it is none.
pub(crate) fn terminal_width() -> Option<u16> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col).filter(|width| *width > 0)
}

/// Whether colours are wanted on stdout: on a terminal, unless NO_COLOR is set (no-color.org), or it has none.
pub(crate) fn has_colours() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|value| value == "dumb" || value.is_empty());
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_dumb && !is_refused
}

/// The first 12 digits of an id, without `sha256:`.
pub(crate) fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// A number of bytes in the largest fitting unit: `1.50 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    BinaryBytes(count).to_string()
}

/// The time between two times in nanoseconds, in the largest fitting unit: `3h`. `-` if `since_ns` is not set.
pub(crate) fn age(since_ns: i64, now_ns: i64) -> String {
    if since_ns <= 0 {
        return "-".into();
    }
    let seconds = (now_ns - since_ns).max(0) / 1_000_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_readable() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (64 << 20, "64.00 MiB"),
            (u64::MAX, "16.00 EiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
        for (seconds, text) in [(5, "5s"), (61, "1m"), (7200, "2h"), (200_000, "2d")] {
            assert_eq!(age(1, 1 + seconds * 1_000_000_000), text);
        }
        assert_eq!(age(0, 5), "-");
    }
}
