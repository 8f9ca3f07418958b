// SPDX-License-Identifier: Apache-2.0
//! Lines of a container's log in the CRI format, and printing them:
//!
//! ```text
//! 2026-01-02T03:04:05.000000000Z stdout F a whole line, or the end of one
//! 2026-01-02T03:04:05.000000000Z stderr P a part; the next line of this stream continues it
//! ```
//!
//! It does not depend on the command line, so that it can be fuzzed alone.

use std::io::{self, Write};

/// The stream of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// A parsed line of the log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'t> {
    pub(crate) time: &'t [u8],
    pub(crate) stream: Stream,
    /// Whether the next line of the same stream continues it.
    pub(crate) partial: bool,
    pub(crate) text: &'t [u8],
}

/// Parses one line without its newline; `None` if it is not in this format.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Tags are separated by colons; only the first is defined so far.
    let partial = match tags.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line { time, stream, partial, text: parts.next().unwrap_or_default() })
}

/// Prints each line to its stream.
#[derive(Debug)]
pub(crate) struct Printer<O: Write, E: Write> {
    out: O,
    err: E,
    timestamps: bool,
    /// Whether stdout and stderr are within a line.
    within: [bool; 2],
    /// Printed before each line.
    prefix: Vec<u8>,
    /// Times as in lines, before the first and after the last printed line.
    since: Option<Vec<u8>>,
    until: Option<Vec<u8>>,
}

impl<O: Write, E: Write> Printer<O, E> {
    /// Creates a printer to `out` and `err`.
    pub(crate) fn new(out: O, err: E, timestamps: bool) -> Self {
        Self {
            out,
            err,
            timestamps,
            within: [false; 2],
            prefix: Vec::new(),
            since: None,
            until: None,
        }
    }

    /// Prints `prefix` before each line.
    pub(crate) fn set_prefix(&mut self, prefix: &str) {
        self.prefix = prefix.as_bytes().to_vec();
    }

    /// Prints only lines from `since` until `until`, both in the format of lines: RFC 3339 in UTC with nine digits,
    /// which sorts as text.
    pub(crate) fn set_times(&mut self, since: Option<Vec<u8>>, until: Option<Vec<u8>>) {
        (self.since, self.until) = (since, until);
    }

    /// Prints one line of the file; a line in another format is printed unchanged.
    pub(crate) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(line) = parse(line) else {
            self.out.write_all(&self.prefix)?;
            return self.out.write_all(line).and_then(|()| self.out.write_all(b"\n"));
        };
        let is_early = self.since.as_deref().is_some_and(|since| line.time < since);
        if is_early || self.until.as_deref().is_some_and(|until| line.time > until) {
            return Ok(());
        }
        let (to, within): (&mut dyn Write, _) = match line.stream {
            Stream::Stdout => (&mut self.out, &mut self.within[0]),
            Stream::Stderr => (&mut self.err, &mut self.within[1]),
        };
        if !*within {
            to.write_all(&self.prefix)?;
        }
        if self.timestamps && !*within {
            to.write_all(line.time).and_then(|()| to.write_all(b" "))?;
        }
        to.write_all(line.text)?;
        if !line.partial {
            to.write_all(b"\n")?;
        }
        *within = line.partial;
        Ok(())
    }

    /// Prints a line of ours to stderr, in its place among the others.
    pub(crate) fn notice(&mut self, text: &str) -> io::Result<()> {
        self.out.flush()?;
        if std::mem::take(&mut self.within[1]) {
            self.err.write_all(b"\n")?;
        }
        writeln!(self.err, "hull: {text}").and_then(|()| self.err.flush())
    }

    /// Flushes both streams.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush().and_then(|()| self.err.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(lines: &[&str], timestamps: bool) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = Printer::new(&mut out, &mut err, timestamps);
        for line in lines {
            printer.line(line.as_bytes()).unwrap();
        }
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn streams_are_split_and_parts_joined() {
        let lines = [
            "T1 stdout P a",
            "T2 stderr F oops",
            "T3 stdout P b",
            "T4 stdout F c",
            "T5 stdout F ",
            "T6 stdout F x y",
        ];
        assert_eq!(printed(&lines, false), ("abc\n\nx y\n".into(), "oops\n".into()));
        assert_eq!(printed(&lines, true), ("T1 abc\nT5 \nT6 x y\n".into(), "T2 oops\n".into()));
    }

    #[test]
    fn lines_have_a_prefix_and_times_select_them() {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, io::sink(), false);
        printer.set_prefix("[a] ");
        printer.set_times(Some(b"T2".to_vec()), Some(b"T3".to_vec()));
        for line in
            ["T1 stdout F x", "T2 stdout P y", "T2 stdout F z", "T3 stdout F w", "T4 stdout F v"]
        {
            printer.line(line.as_bytes()).unwrap();
        }
        assert_eq!(String::from_utf8(out).unwrap(), "[a] yz\n[a] w\n");
    }

    #[test]
    fn what_is_no_log_line_is_not_swallowed() {
        assert_eq!(
            printed(&["garbage", "T stdin F x", "T stdout X x"], false).0,
            "garbage\nT stdin F x\nT stdout X x\n"
        );
    }

    #[test]
    fn further_tags_do_not_hide_the_first() {
        assert!(parse(b"T stdout P:new x").unwrap().partial);
        assert_eq!(parse(b"T stdout F").unwrap().text, b"");
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text in "[^\n]{0,200}", partial: bool) {
            let line = format!("T stderr {} {text}", if partial { "P" } else { "F" });
            let want = Line { time: b"T", stream: Stream::Stderr, partial, text: text.as_bytes() };
            prop_assert_eq!(parse(line.as_bytes()), Some(want));
        }
    }
}
