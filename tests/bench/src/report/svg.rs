// SPDX-License-Identifier: Apache-2.0
//! One metric as bars: the median of each target, and a mark at its 95th percentile.
//!
//! Written by hand: it is rectangles and words, and a library would be larger than all of this crate.

use crate::output::shown;
use crate::samples::Row;
use std::fmt::Write as _;

const LABEL_WIDTH: f64 = 170.0;
const BAR_WIDTH: f64 = 400.0;
const VALUE_WIDTH: f64 = 150.0;
const LINE: f64 = 26.0;
const TOP: f64 = 40.0;
const FIRST: &str = "#2563a8";
const OTHERS: &str = "#a8adb4";

/// The chart of a metric; targets without samples are left out.
pub(super) fn chart(row: &Row, labels: &[String]) -> String {
    let bars: Vec<(usize, f64, f64)> = (0..labels.len())
        .filter_map(|target| Some((target, row.quantile(target, 50)?, row.quantile(target, 95)?)))
        .collect();
    let most = bars.iter().map(|(_, p50, p95)| p50.max(*p95)).fold(f64::MIN_POSITIVE, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "a handful of bars")]
    let height = TOP + LINE * bars.len() as f64 + 10.0;
    let width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH;
    let better = if row.unit.more_is_better() { "more" } else { "less" };
    let mut text = String::new();
    // Writing to a string does not fail.
    let _done = writeln!(
        text,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">
<rect width="{width}" height="{height}" fill="#fff"/>
<text x="10" y="22" font-weight="bold">{}: {} ({}, {better} is better; bar: median, mark: p95)</text>"##,
        escaped(row.work),
        escaped(&row.name),
        escaped(row.unit.name()),
    );
    let mut top = TOP;
    for (target, p50, p95) in bars {
        let (bar, mark) = (p50 / most * BAR_WIDTH, LABEL_WIDTH + p95 / most * BAR_WIDTH);
        let colour = if target == 0 { FIRST } else { OTHERS };
        let (middle, value_at) = (top + 15.0, bar.max(mark - LABEL_WIDTH) + LABEL_WIDTH + 8.0);
        let mark_end = top + 20.0;
        let _done = writeln!(
            text,
            r##"<text x="{:.1}" y="{middle}" text-anchor="end">{}</text>
<rect x="{LABEL_WIDTH}" y="{top}" width="{bar:.1}" height="20" fill="{colour}"/>
<line x1="{mark:.1}" x2="{mark:.1}" y1="{top}" y2="{mark_end}" stroke="#222"/>
<text x="{value_at:.1}" y="{middle}">{}</text>"##,
            LABEL_WIDTH - 8.0,
            escaped(&labels[target]),
            shown(p50),
        );
        top += LINE;
    }
    text.push_str("</svg>\n");
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Unit;

    #[test]
    fn the_longest_bar_fills_the_width_and_who_has_no_samples_is_left_out() {
        let row = Row {
            work: "w",
            name: "a < b".into(),
            unit: Unit::Ms,
            samples: vec![vec![1.0], vec![4.0], vec![]],
        };
        let text = chart(&row, &["A".into(), "B".into(), "C".into()]);
        assert!(text.contains("a &lt; b") && text.contains(r#"width="400.0""#), "{text}");
        assert!(text.contains(r#"width="100.0""#) && !text.contains(">C<"), "{text}");
    }
}
