// SPDX-License-Identifier: Apache-2.0
//! The figures in README.md are those of the results in docs/bench: each number of its table, and each ratio.

use super::published::{Results, metric, results};
use crate::samples::quantile;
use hull_tests::{ExpectExt as _, paths};
use std::fs;

/// The runtimes of the table's columns, by their labels in the results.
const COLUMNS: [&str; 4] = ["Hull", "CRI-O+crun", "containerd+runc", "kernel floor"];

/// A row: its beginning, and for each number of a cell the work, the metric, and how many of its unit are one of the
/// table's.
type Figures = (&'static str, &'static [(&'static str, &'static str, f64)]);

const ROWS: [Figures; 13] = [
    ("pod up: ", &[("pods", "pod up", 1.0)]),
    ("the same with host network", &[("host-pods", "pod up", 1.0)]),
    ("pod down", &[("pods", "pod down", 1.0)]),
    ("CPU of a pod's whole life", &[("pods", "CPU per pod life", 1.0)]),
    ("pods up per second", &[("parallel", "pods up, 8 at once", 1.0)]),
    ("ExecSync", &[("exec", "ExecSync true", 1.0), ("exec", "CPU per ExecSync", 1.0)]),
    ("memory added per pod", &[("memory", "PSS per pod, 50 pods", 1.0)]),
    ("the daemon at 50 pods", &[("memory", "PSS of the daemon, 50 pods", 1024.0)]),
    ("ListPodSandboxStats", &[("lists", "ListPodSandboxStats, 50 containers", 1.0)]),
    (
        "daemon restarted",
        &[
            ("restart", "restart until 50 pods are listed", 1.0),
            ("restart", "restart until 300 pods are listed", 1.0),
        ],
    ),
    ("CPU while 100 pods idle", &[("idle", "CPU while 100 pods idle", 1.0)]),
    (
        "container's log",
        &[
            ("logs", "log, lines of 100 bytes", 1.0),
            ("logs", "CPU per logged GB, without the producer", 1.0),
        ],
    ),
    (
        "cold pull",
        &[("pull", "cold pull of one-layer", 1.0), ("pull", "cold pull of eleven-layers", 1.0)],
    ),
];

/// The median of a runtime in a metric; `None` without samples.
fn median(all: &[Results], work: &str, name: &str, label: &str) -> Option<f64> {
    let (_, _, targets) = metric(all, work, name);
    let (_, samples) = targets.into_iter().find(|(of, _)| of == label)?;
    quantile(&samples, 50)
}

/// Whether a number was rounded to the one that is written, to its last digit.
fn is_rounded(written: &str, exact: f64) -> bool {
    let digits = written.split_once('.').map_or(0, |(_, after)| after.len());
    let unit = 10_f64.powi(-i32::try_from(digits).or_fail("count digits"));
    let written: f64 = written.parse().or_fail(format!("read {written}"));
    // A half may have been rounded either way, and the samples themselves have three digits.
    (written - exact).abs() <= unit / 2.0 + 0.001
}

/// The numbers of a part of a cell.
fn numbers(text: &str) -> Vec<&str> {
    let parts = text.split([';', ',', ' ', '×', '*', '(', ')']);
    parts.filter(|part| part.starts_with(|c: char| c.is_ascii_digit())).collect()
}

/// The faults of a cell, as sentences.
fn faults(all: &[Results], figures: &Figures, label: &str, cell: &str) -> Vec<String> {
    let (values, ratios) = cell.split_once('(').unwrap_or((cell, ""));
    let (values, ratios) = (numbers(values), numbers(ratios));
    let mut wrong = Vec::new();
    for (at, (work, name, per)) in figures.1.iter().enumerate() {
        let exact = median(all, work, name, label).map(|of| of / per);
        let first = median(all, work, name, COLUMNS[0]).map(|of| of / per);
        let written = values.get(at);
        match (written, exact) {
            (Some(written), Some(exact)) if is_rounded(written, exact) => {}
            (None, None) => continue,
            // The CPU of the floor, and the like, are not in the table.
            (None, Some(_)) if label == "kernel floor" => continue,
            _ => wrong.push(format!("{label}, {name}: {written:?} for {exact:?}")),
        }
        if let (Some(ratio), Some(exact), Some(first)) = (ratios.get(at), exact, first) {
            let times = if exact > first { exact / first } else { first / exact };
            if !is_rounded(ratio, times) {
                wrong.push(format!("{label}, {name}: ×{ratio} for {times}"));
            }
        }
    }
    wrong
}

#[test]
fn the_figures_of_the_readme_are_those_of_the_results() {
    let all = results();
    let text = fs::read_to_string(paths::root().join("README.md")).or_fail("read README.md");
    let mut wrong = Vec::new();
    for figures in &ROWS {
        let start = format!("| {}", figures.0);
        let row = text.lines().find(|line| line.starts_with(&start));
        let row = row.or_fail(format!("find the row `{}` of README.md", figures.0));
        for (label, cell) in COLUMNS.into_iter().zip(row.split('|').skip(2)) {
            wrong.extend(faults(&all, figures, label, cell));
        }
    }
    assert!(wrong.is_empty(), "README.md:\n{}", wrong.join("\n"));
}

#[test]
fn a_number_is_compared_to_its_last_digit() {
    for (written, exact) in [("6.97", 6.973), ("101", 100.553), ("0.02", 0.021), ("5060", 5060.28)]
    {
        assert!(is_rounded(written, exact), "{written} {exact}");
    }
    for (written, exact) in [("6.98", 6.973), ("101", 101.6), ("0.03", 0.021)] {
        assert!(!is_rounded(written, exact), "{written} {exact}");
    }
    assert_eq!(numbers(" **1.36; 1.21** "), ["1.36", "1.21"]);
    assert_eq!(numbers("×5.9; ×6.4) "), ["5.9", "6.4"]);
}
