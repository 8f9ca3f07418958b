// SPDX-License-Identifier: Apache-2.0
//! The report of a run: a table for people, JSON with every sample, a chart per metric.

#[cfg(test)]
mod published;
#[cfg(test)]
mod readme;
mod svg;

use crate::args::Args;
use crate::isolation::MissingIsolation;
use crate::output::{progress, shown};
use crate::samples::{Row, Samples};
use crate::target::Target;
use crate::{Error, Result, floor};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// A remark on the figures, such as a work that failed.
#[derive(Debug, Clone)]
pub struct Note {
    /// The target's label; empty for all targets.
    pub label: String,
    /// The work's name; empty for all works.
    pub work: String,
    /// The remark itself.
    pub text: String,
}

/// All results of a run.
#[derive(Debug)]
pub struct Measured {
    /// The figures. Behind the targets comes the kernel floor.
    pub samples: Samples,
    /// Remarks on them.
    pub notes: Vec<Note>,
    /// Whether something could not be measured.
    pub failed: bool,
    about: Value,
    labels: Vec<String>,
}

impl Measured {
    /// Nothing yet, of these targets.
    #[must_use]
    pub fn of(args: &Args, targets: &[Target]) -> Self {
        let mut labels: Vec<String> =
            targets.iter().map(|target| target.endpoint.label.clone()).collect();
        let versions: Vec<Value> = targets
            .iter()
            .map(|target| json!({"label": target.endpoint.label, "version": target.version}))
            .collect();
        let works: Vec<&str> = args.works().iter().map(|work| work.name()).collect();
        let about = json!({
            "tool": concat!("cri-bench ", env!("CARGO_PKG_VERSION")),
            "machine": machine(),
            "targets": versions,
            "works": works,
            "quick": args.quick,
            "size": format!("{:?}", args.size()),
        });
        labels.push(floor::LABEL.to_owned());
        Self { samples: Samples::of(labels.len()), notes: Vec::new(), failed: false, about, labels }
    }

    /// Notes that something could not be measured.
    pub fn note(&mut self, label: &str, work: &str, text: String) {
        self.failed = true;
        progress(&format!("{label} {work}: {text}"));
        self.notes.push(Note { label: label.to_owned(), work: work.to_owned(), text });
    }

    /// Notes which parts of the requested isolation a target's containers lack.
    pub fn missing_isolation(&mut self, label: &str, missing: &MissingIsolation) {
        for part in &missing.0 {
            let text = format!("its containers lack {part}, which was requested");
            self.notes.push(Note { label: label.to_owned(), work: "isolation".into(), text });
        }
    }
}

/// The machine, as far as it says something about figures.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/meminfo");
    let memory_kib = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").is_file();
    json!({
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_mib": memory_kib.map(|kib| kib / 1024),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cgroup": if v2 { "v2" } else { "v1 or hybrid" },
    })
}

fn cell(row: &Row, target: usize) -> String {
    let (Some(median), Some(p95)) = (row.quantile(target, 50), row.quantile(target, 95)) else {
        return "–".into();
    };
    // Beside a single sample, the 95th percentile says nothing.
    let mut text = shown(median);
    if row.samples[target].len() > 1 {
        let _done = write!(text, " ({})", shown(p95));
    }
    if let Some(ratio) = row.ratio(target).filter(|_| target > 0) {
        let _done = write!(text, " ×{}", shown(ratio));
    }
    text
}

/// Medians, 95th percentiles in parentheses, and how many times better the first is (×), as Markdown.
#[must_use]
pub fn table(measured: &Measured) -> String {
    let rows = &measured.samples.rows;
    let has_any = |target: &usize| rows.iter().any(|row| !row.samples[*target].is_empty());
    let columns: Vec<usize> = (0..measured.labels.len()).filter(has_any).collect();
    let mut lines = vec![vec!["work".to_owned(), "metric".into(), "unit".into()]];
    lines[0].extend(columns.iter().map(|target| measured.labels[*target].clone()));
    for row in rows {
        let mut line = vec![row.work.to_owned(), row.name.clone(), row.unit.name().to_owned()];
        line.extend(columns.iter().map(|target| cell(row, *target)));
        lines.push(line);
    }
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _done = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _done = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Everything, with every sample.
#[must_use]
pub fn json(measured: &Measured) -> String {
    let results = measured.samples.rows.iter().map(|row| {
        let by_target: Vec<Value> = measured
            .labels
            .iter()
            .enumerate()
            .filter(|(target, _)| !row.samples[*target].is_empty())
            .map(|(target, label)| {
                json!({
                    "label": label,
                    "p50": row.quantile(target, 50),
                    "p95": row.quantile(target, 95),
                    "first_is_better_by": row.ratio(target),
                    "samples": row.samples[target].iter().map(|value| rounded(*value)).collect::<Vec<f64>>(),
                })
            })
            .collect();
        json!({
            "work": row.work,
            "metric": row.name,
            "unit": row.unit.name(),
            "more_is_better": row.unit.more_is_better(),
            "targets": by_target,
        })
    });
    let notes = measured
        .notes
        .iter()
        .map(|note| json!({"label": note.label, "work": note.work, "text": note.text}));
    let mut all = measured.about.clone();
    all["results"] = results.collect();
    all["notes"] = notes.collect();
    format!("{all:#}\n")
}

/// Rounded to a thousandth: further digits are noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// A file name and an SVG document for each metric.
#[must_use]
pub fn charts(measured: &Measured) -> Vec<(String, String)> {
    let name = |row: &Row| {
        let letters = format!("{}-{}", row.work, row.name).to_lowercase();
        let words = letters.split(|letter: char| !letter.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        format!("{}.svg", words.join("-"))
    };
    let rows = &measured.samples.rows;
    rows.iter().map(|row| (name(row), svg::chart(row, &measured.labels))).collect()
}

/// Writes a file and the folder it is in.
///
/// # Errors
/// When the kernel does not let us.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |source| Error::File { act: "write", path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}
