// SPDX-License-Identifier: Apache-2.0
//! A waterfall as a picture: SVG 1.1, without scripts and fonts of its own. Pure.

use super::super::explain::duration;
use super::chart::{Bar, Chart};
use std::fmt::Write as _;

/// Sizes in pixels.
const ROW: usize = 18;
const NAMES: usize = 260;
const BARS: usize = 640;
const DURATIONS: usize = 110;
const HEAD: usize = 44;
/// Lines of the grid.
const TICKS: usize = 8;

/// The chart as a document.
pub(super) fn text(chart: &Chart) -> String {
    let height = HEAD + chart.stages.len() * ROW + 10;
    let width = NAMES + BARS + DURATIONS;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"16\" font-size=\"13\" font-weight=\"bold\">{}: {}</text>\n",
        escaped(&chart.name),
        duration(chart.took_us)
    );
    for tick in 0..=TICKS {
        let x = NAMES + BARS * tick / TICKS;
        let at = chart.took_us / TICKS as u64 * tick as u64;
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{height}\" stroke=\"#dddddd\"/>\
             <text x=\"{x}\" y=\"{}\" fill=\"#777777\" text-anchor=\"middle\">{}</text>",
            HEAD - 6,
            HEAD - 10,
            duration(at)
        );
    }
    for (row, bar) in chart.stages.iter().enumerate() {
        svg.push_str(&drawn(bar, chart.took_us, HEAD + row * ROW));
    }
    svg.push_str("</svg>\n");
    svg
}

fn drawn(bar: &Bar, whole_us: u64, top: usize) -> String {
    let scaled = |at: u64| {
        let x = (u128::from(at) * BARS as u128).checked_div(u128::from(whole_us)).unwrap_or(0);
        usize::try_from(x).unwrap_or(BARS).min(BARS)
    };
    let (from, to) = (scaled(bar.began_us), scaled(bar.end_us));
    let x = NAMES + from.min(BARS - 1);
    let length = to.saturating_sub(from).max(1);
    let fill = match (bar.error.is_empty(), bar.part_of.is_empty()) {
        (false, _) => "#c0392b",
        (true, true) => "#2c6fbb",
        (true, false) => "#9cc3e6",
    };
    let indent = if bar.part_of.is_empty() { 8 } else { 22 };
    let took = bar.took_us.map_or_else(|| "goes on".into(), duration);
    let title = if bar.error.is_empty() { &bar.stage } else { &bar.error };
    format!(
        "<text x=\"{indent}\" y=\"{y}\">{of} · {stage}</text>\
         <rect x=\"{x}\" y=\"{bar_top}\" width=\"{length}\" height=\"{bar_height}\" fill=\"{fill}\">\
         <title>{title}</title></rect>\
         <text x=\"{after}\" y=\"{y}\" fill=\"#333333\">{took}</text>\n",
        y = top + ROW - 5,
        of = escaped(&bar.of),
        stage = escaped(&bar.stage),
        bar_top = top + 3,
        bar_height = ROW - 6,
        title = escaped(title),
        after = NAMES + BARS + 8,
    )
}

/// Text as XML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::chart::tests::example;
    use super::*;

    #[test]
    fn a_picture_has_a_bar_for_each_stage_and_no_markup_of_others() {
        let svg = text(&example());
        assert_eq!(svg.matches("<title>").count(), 4);
        assert!(svg.contains("no &lt;such&gt; file &amp; &quot;more&quot;"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
    }

    #[test]
    fn a_chart_without_duration_is_drawn() {
        let mut chart = example();
        chart.took_us = 0;
        assert!(text(&chart).contains("width=\"1\""));
    }
}
