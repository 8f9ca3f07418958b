// SPDX-License-Identifier: Apache-2.0
//! Figures of one or several runtimes: samples by name, and tables of their medians.

use super::layout::Runtime;
use std::fmt::Write as _;

/// The samples of one figure.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    name: String,
    unit: &'static str,
    samples: Vec<f64>,
}

/// The figures of a run, in the order in which they were measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Adds samples, in `unit`, to those of this name.
    pub fn add(&mut self, name: &str, unit: &'static str, samples: impl IntoIterator<Item = f64>) {
        match self.0.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.samples.extend(samples),
            None => {
                let samples = samples.into_iter().collect();
                self.0.push(Figure { name: name.to_owned(), unit, samples });
            }
        }
    }

    /// Adds all samples of another run.
    pub fn join(&mut self, other: Self) {
        for Figure { name, unit, samples } in other.0 {
            self.add(&name, unit, samples);
        }
    }
}

/// The value below which `percent` of the samples are; `None` without samples.
fn percentile(samples: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * percent / 100).min(sorted.len().checked_sub(1)?);
    sorted.get(at).copied()
}

fn digits(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn cell(samples: &[f64]) -> String {
    match (percentile(samples, 50), percentile(samples, 90)) {
        (Some(half), Some(most)) if samples.len() > 2 => {
            format!("{} / {}", digits(half), digits(most))
        }
        (Some(half), _) => digits(half),
        (None, _) => "-".to_owned(),
    }
}

/// A table in Markdown: p50 / p90 of each runtime, and the medians of the others as multiples of the first one's.
#[must_use]
pub fn table(runs: &[(Runtime, Figures)]) -> String {
    let Some(((first, base), others)) = runs.split_first() else { return String::new() };
    let mut text = format!("| p50 / p90 | | {} |", first.name());
    let mut line = "|---|---|---:|".to_owned();
    for (runtime, _) in others {
        let _infallible = write!(text, " {} | ratio |", runtime.name());
        line.push_str("---:|---:|");
    }
    let _infallible = writeln!(text, "\n{line}");
    for Figure { name, unit, samples } in &base.0 {
        let _infallible = write!(text, "| {name} | {unit} | {} |", cell(samples));
        for (_, other) in others {
            let found = other.0.iter().find(|figure| figure.name == *name);
            let theirs = found.map_or(&[][..], |figure| &figure.samples);
            let ratio = match (percentile(samples, 50), percentile(theirs, 50)) {
                (Some(own), Some(theirs)) if own > 0.0 => format!("{:.2}", theirs / own),
                _ => "-".to_owned(),
            };
            let _infallible = write!(text, " {} | {ratio} |", cell(theirs));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_percentiles_and_ratios_of_medians() {
        let figures = |factor: f64| {
            let mut figures = Figures::default();
            figures.add("POST to Ready", "ms", (1..=10).map(|number| f64::from(number) * factor));
            figures.add("rollout", "s", [factor]);
            figures
        };
        let mut own = figures(10.0);
        own.join(figures(10.0));
        let mut theirs = figures(25.0);
        theirs.add("of one runtime only", "s", [1.0]);
        let text = table(&[(Runtime::Hull, own), (Runtime::Containerd, theirs)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| p50 / p90 | | hull | containerd | ratio |");
        assert_eq!(lines[2], "| POST to Ready | ms | 60 / 100 | 150 / 250 | 2.50 |");
        assert_eq!(lines[3], "| rollout | s | 10 | 25 | 2.50 |");
        assert_eq!(lines.len(), 4);
        assert_eq!(table(&[]), "");
        assert_eq!(percentile(&[], 50), None);
    }
}
