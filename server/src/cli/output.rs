// SPDX-License-Identifier: Apache-2.0
//! Printing: results to stdout, errors and progress to stderr. A closed pipe is an error of the functions here;
//! [`report`] ends the command silently for it.
//!
//! The rule: names and messages come from images, pods and registries, so everything printed is
//! escaped ([`hull_sys::text`]), except by [`raw`]. A name inside a line goes through [`line`] or a
//! [`Table`], which keep it on that line.

use super::error::{Error, Result};
use comfy_table::{ContentArrangement, Row, presets};
use hull_sys::text::{MESSAGE_BYTES_MAX, shown, shown_json, shown_lines};
use indicatif::BinaryBytes;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

/// Longest cell of a table, in bytes: the longest image reference with a digest fits.
const CELL_BYTES_MAX: usize = 512;

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

/// Rows under headings, in columns as wide as their widest cell on a terminal, two spaces between.
#[derive(Debug)]
pub(crate) struct Table {
    table: comfy_table::Table,
    /// Whether the line of headings is printed.
    headed: bool,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_header(headings);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table, headed: true }
    }

    /// A table of this many columns without headings.
    pub(crate) fn bare(columns: usize) -> Self {
        Self { headed: false, ..Self::new(&vec![""; columns]) }
    }

    #[cfg(test)]
    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.cells(cells.into());
    }

    /// Fits the table into this many columns of a terminal: long cells are cut, and end with `…`.
    pub(crate) fn fit(&mut self, width: u16) {
        self.table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        self.table.set_truncation_indicator("…");
    }

    /// Adds a row of as many cells as the table has columns; each is escaped, and cut to 512 bytes.
    pub(crate) fn cells(&mut self, cells: Vec<String>) {
        let mut row = Row::from(cells.into_iter().map(|cell| shown(cell, CELL_BYTES_MAX)));
        row.max_height(1);
        self.table.add_row(row);
    }

    /// The table as lines, without blanks at their ends.
    pub(crate) fn shown(&self) -> String {
        let text = self.table.trim_fmt();
        let mut lines = text.lines();
        if !self.headed {
            // That of the empty headings.
            lines.next();
        }
        lines.map(|line| format!("{line}\n")).collect()
    }
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
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["longer name".into(), "ready".into()]);
        table.row(["é".into(), String::new()]);
        assert_eq!(table.shown(), "NAME         STATE\nlonger name  ready\né\n");
        table.row(["漢字漢字漢字".into(), "wide".into()]);
        assert_eq!(table.shown().lines().last(), Some("漢字漢字漢字  wide"));
    }

    #[test]
    fn a_table_fits_into_a_terminal() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.fit(30);
        table.row(["a".repeat(60), "running".into()]);
        let shown = table.shown();
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 30), "{shown}");
        assert!(shown.contains("running") && shown.contains('…'), "{shown}");
    }

    #[test]
    fn a_name_cannot_make_rows_or_reach_the_terminal() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["x\nforged  running\u{1b}[2J\u{202e}".into(), "long".repeat(1000)]);
        let shown = table.shown();
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert!(shown.contains("x\\nforged") && shown.len() < 2 << 10, "{shown}");
    }

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
