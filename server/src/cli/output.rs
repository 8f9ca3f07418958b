// SPDX-License-Identifier: Apache-2.0
//! Printing. A reader that went away is an error like another here; [`Error::report`] makes it a
//! quiet end.
//!
//! The rule: names and messages come from images, pods and registries, so what is printed is
//! escaped ([`hull_sys::text`]), all but what [`raw`] is given. A name that stands in a line goes
//! through [`line`] or a [`Table`], which keep it on that line.
//!
//! [`Error::report`]: super::error::Error::report

use super::error::{Error, Result};
use hull_sys::text::{MESSAGE_BYTES_MAX, shown, shown_json, shown_lines};
use std::io::{self, Write as _};

/// Longest cell of a table, in bytes: a reference with a digest and the longest name fits.
const CELL_BYTES_MAX: usize = 512;

/// Writes lines to stdout, at once.
pub(crate) fn print(text: &str) -> Result<()> {
    raw(&shown_lines(text))
}

/// Writes one line to stdout, at once; `text` without its end.
pub(crate) fn line(text: &str) -> Result<()> {
    raw(&format!("{}\n", shown(text, MESSAGE_BYTES_MAX)))
}

/// Writes a JSON document to stdout, at once; `document` with its end.
pub(crate) fn json(document: &str) -> Result<()> {
    raw(&shown_json(document))
}

/// Writes to stdout, at once and as it is: text of our own making.
pub(crate) fn raw(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::io("write to stdout"))
}

/// Writes lines to stderr. Nothing can be done when that fails.
pub(crate) fn complain(text: &str) {
    let _nobody_reads = io::stderr().lock().write_all(shown_lines(text).as_bytes());
}

/// Rows in columns as wide as their widest cell, two spaces between.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|text| (*text).to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().map(|cell| shown(cell, CELL_BYTES_MAX)).collect());
    }

    /// As text. The last column is not padded.
    pub(crate) fn shown(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// The first digits of an id, with or without `sha256:`.
pub(crate) fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// Bytes in the unit that keeps them readable.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut unit = 0;
    // Tenths of the unit, in whole numbers.
    let mut tenths = u128::from(count) * 10 / 1024;
    while tenths >= 10240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// How long ago, in the largest unit that fits.
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

/// Nanoseconds since the epoch.
pub(crate) fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0)
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
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), text.replace("16777216.0", "16777215.9"), "{count}");
        }
        for (seconds, text) in [(5, "5s"), (61, "1m"), (7200, "2h"), (200_000, "2d")] {
            assert_eq!(age(1, 1 + seconds * 1_000_000_000), text);
        }
        assert_eq!(age(0, 5), "-");
    }
}
