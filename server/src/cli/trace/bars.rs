// SPDX-License-Identifier: Apache-2.0
//! A waterfall as lines of text: names at the left, bars in the middle, durations at the right. Pure.

use super::super::explain::duration;
use super::chart::{Bar, Chart};
use std::fmt::Write as _;

/// Columns of names and of durations, and the fewest of the bars.
const NAMES: usize = 30;
const DURATIONS: usize = 12;
const BARS_MIN: usize = 20;

/// The chart in lines of at most `width` columns, or of 62 on narrower terminals.
pub(super) fn text(chart: &Chart, width: usize) -> String {
    let columns = width.saturating_sub(NAMES + DURATIONS).max(BARS_MIN);
    let mut text = format!("{}: {}\n", chart.name, duration(chart.took_us));
    let mut last = "";
    for bar in &chart.stages {
        if bar.of != last {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", bar.of);
            last = &bar.of;
        }
        text.push_str(&line(bar, chart.took_us, columns));
    }
    text
}

fn line(bar: &Bar, whole_us: u64, columns: usize) -> String {
    let indent = if bar.part_of.is_empty() { 2 } else { 4 };
    let name = format!("{:indent$}{}", "", bar.stage);
    let name: String = name.chars().take(NAMES - 1).collect();
    let from = scaled(bar.began_us, whole_us, columns).min(columns - 1);
    // Something that took no time is a bar, too.
    let to = scaled(bar.end_us, whole_us, columns).clamp(from + 1, columns);
    let fill = if bar.part_of.is_empty() { "█" } else { "▒" };
    let drawn = format!("{:from$}{}", "", fill.repeat(to - from));
    let took = match (bar.took_us, bar.error.is_empty()) {
        (None, _) => "goes on".to_owned(),
        (Some(_), false) => "failed".to_owned(),
        (Some(took), true) => duration(took),
    };
    format!("{name:NAMES$}{drawn:columns$}{took:>DURATIONS$}\n")
}

/// The column of a time.
fn scaled(at_us: u64, whole_us: u64, columns: usize) -> usize {
    let column = (u128::from(at_us) * columns as u128).checked_div(u128::from(whole_us));
    usize::try_from(column.unwrap_or(0)).unwrap_or(columns)
}

#[cfg(test)]
mod tests {
    use super::super::chart::tests::example;
    use super::*;

    #[test]
    fn bars_lie_where_their_times_are() {
        let text = text(&example(), 82);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ns/web: 40.0 ms");
        assert_eq!(lines[1], "pod");
        let bar = |line: &str| {
            let drawn: Vec<char> = line.chars().skip(NAMES).take(40).collect();
            let first = drawn.iter().position(|c| *c != ' ');
            (first, drawn.iter().filter(|c| **c != ' ').count())
        };
        assert_eq!(bar(lines[2]), (Some(0), 20));
        assert_eq!(bar(lines[3]), (Some(0), 15));
        assert_eq!((lines[4], bar(lines[5])), ("app (1)", (Some(30), 10)));
        assert!(lines.iter().all(|line| line.chars().count() <= 82), "{text}");
        assert!(lines[2].ends_with("20.0 ms") && lines[5].ends_with("goes on"), "{text}");
    }

    #[test]
    fn stages_without_a_duration_and_narrow_terminals_are_drawn() {
        let mut chart = example();
        chart.took_us = 0;
        chart.stages[0].stage = "x".repeat(200);
        for width in [0, 10, 43, 500] {
            let text = text(&chart, width);
            assert!(text.lines().all(|line| line.chars().count() <= width.max(62)), "{text}");
        }
    }
}
