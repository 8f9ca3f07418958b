// SPDX-License-Identifier: Apache-2.0
//! Colours of a table on a terminal: bold headings, and states by what they mean. Pure.

use unicode_width::UnicodeWidthChar as _;

/// Heading of the column of states.
const STATE: &str = "STATE";
const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// A table with colours. Its text is escaped already, and its first line has the headings.
pub(super) fn table(text: &str) -> String {
    let mut lines = text.lines();
    let headings = lines.next().unwrap_or_default();
    let mut out = format!("{BOLD}{headings}{RESET}\n");
    let at = column(headings);
    for line in lines {
        match at.and_then(|at| state(line, at)) {
            Some((before, word, colour, rest)) => {
                out.push_str(&format!("{before}{colour}{word}{RESET}{rest}\n"));
            }
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// The column of states: columns are two blanks apart.
fn column(headings: &str) -> Option<usize> {
    let at = headings.find(STATE)?;
    let (before, after) = (&headings[..at], &headings[at + STATE.len()..]);
    let is_whole =
        (at == 0 || before.ends_with("  ")) && (after.is_empty() || after.starts_with(' '));
    is_whole.then_some(at)
}

/// The parts of a line: before its state, the state with its colour, and the rest.
fn state(line: &str, at: usize) -> Option<(&str, &str, &'static str, &str)> {
    let at = byte_of(line, at)?;
    let rest = line.get(at..)?;
    let end = rest.find("  ").unwrap_or(rest.len());
    let (word, rest) = rest.split_at(end);
    let colour = match word {
        "running" | "ready" | "pod ready" | "started" => GREEN,
        "paused" | "restarting" | "created" => YELLOW,
        "unknown" | "notready" | "pod not ready" => RED,
        _ => return None,
    };
    Some((&line[..at], word, colour, rest))
}

/// The byte at a column of the terminal: names may have characters of several bytes or two columns.
fn byte_of(line: &str, column: usize) -> Option<usize> {
    let mut used = 0;
    for (at, c) in line.char_indices() {
        if used == column {
            return Some(at);
        }
        used += c.width().unwrap_or(0);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_colours_and_nothing_else_does() {
        let text = "NAME     STATE    ATTEMPT\nrunning  running  0\nb        exited   1\nö        running  0\n";
        let lines: Vec<String> = table(text).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], format!("{BOLD}NAME     STATE    ATTEMPT{RESET}"));
        assert_eq!(lines[1], format!("running  {GREEN}running{RESET}  0"));
        assert_eq!(lines[2], "b        exited   1");
        assert_eq!(lines[3], format!("ö        {GREEN}running{RESET}  0"));
        let cut = table("NAME  STATE\n漢…   running\n");
        assert_eq!(cut.lines().nth(1), Some(format!("漢…   {GREEN}running{RESET}").as_str()));
        assert_eq!(table("ESTATE  X\nrunning  y\n").lines().nth(1), Some("running  y"));
        assert_eq!(table("A\n"), format!("{BOLD}A{RESET}\n"));
    }
}
