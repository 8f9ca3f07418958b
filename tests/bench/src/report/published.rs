// SPDX-License-Identifier: Apache-2.0
//! docs/performance.md and its charts, from the results in docs/bench. A test of this file writes them, with
//! HULL_BLESS=1, or compares them.
//!
//! Of several results of a work, the newest counts. No figure is written by hand.

use super::svg;
use crate::output::shown;
use crate::samples::{Row, Unit};
use hull_tests::{ExpectExt as _, paths, shell};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;

/// A chart: its file, its heading, the work, its metrics (one, or one bar each), and a sentence about them.
type Chart = (&'static str, &'static str, &'static str, &'static [&'static str], &'static str);

const CHARTS: [Chart; 12] = [
    (
        "pod-up",
        "Starting a pod",
        "pods",
        &["pod up"],
        "RunPodSandbox, CreateContainer and StartContainer of a pod with a network of its own. The kernel floor is the \
         same work by a bare program, without records, limits and filters.",
    ),
    (
        "pod-down",
        "Ending a pod",
        "pods",
        &["pod down"],
        "StopContainer by KILL, RemoveContainer, StopPodSandbox and RemovePodSandbox.",
    ),
    (
        "pods-per-second",
        "Many pods at once",
        "parallel",
        &["pods up, 8 at once"],
        "Eight requests are under way at a time.",
    ),
    (
        "exec",
        "Probes",
        "exec",
        &["ExecSync true"],
        "An exec probe is such a call: a process starts in the container and ends.",
    ),
    (
        "memory-per-pod",
        "Memory of a pod",
        "memory",
        &["PSS per pod, 50 pods"],
        "All processes that a runtime keeps per pod, without the workload.",
    ),
    (
        "memory-daemon",
        "Memory of the daemon",
        "memory",
        &["PSS of the daemon, 50 pods"],
        "With 50 pods on the node.",
    ),
    (
        "stats",
        "Statistics",
        "lists",
        &["ListPodSandboxStats, 50 containers"],
        "A kubelet asks for these every ten seconds or so.",
    ),
    (
        "restart",
        "Restarting the daemon",
        "restart",
        &["restart until 300 pods are listed"],
        "From the end of the old daemon until the new one lists all pods and containers as running.",
    ),
    (
        "pull",
        "Pulling an image",
        "pull",
        &["cold pull of eleven-layers"],
        "Eleven layers of 20 MiB, from a registry on the same machine.",
    ),
    (
        "logs",
        "Writing logs",
        "logs",
        &["log, lines of 100 bytes"],
        "From the container's output to the last line in its log file.",
    ),
    (
        "idle",
        "An idle node",
        "idle",
        &["CPU while 100 pods idle"],
        "CPU time of the runtime while nobody asks for anything.",
    ),
    (
        "growth",
        "Hull with many pods",
        "growth",
        &[
            "pod up as number 1",
            "pod up as number 100",
            "pod up as number 300",
            "pod up as number 1000",
        ],
        "The time to start one more pod. Most of the growth is in the kernel's bridge, which walks its ports.",
    ),
];

const UNITS: [Unit; 6] =
    [Unit::Ms, Unit::CpuMs, Unit::PerSecond, Unit::MbPerSecond, Unit::Kib, Unit::CpuPerMille];

/// A result file.
pub(super) struct Results {
    /// The day that its name begins with.
    day: String,
    document: Value,
}

/// All results of whole runs, the newest first.
pub(super) fn results() -> Vec<Results> {
    let dir = paths::root().join("docs/bench");
    let mut names = shell::names(&dir);
    names.sort();
    let read = |name: &String| {
        let text = fs::read_to_string(dir.join(name)).or_fail(format!("read {name}"));
        let document: Value = serde_json::from_str(&text).or_fail(format!("parse {name}"));
        Results { day: name.get(..10).or_fail("find the day in a name").to_owned(), document }
    };
    let json = names.iter().rev().filter(|name| name.ends_with(".json"));
    json.map(read).filter(|of| of.document["quick"] == Value::Bool(false)).collect()
}

/// A metric in the newest results that have it: the day, the unit, and the samples by target.
pub(super) fn metric<'r>(
    all: &'r [Results],
    work: &str,
    name: &str,
) -> (&'r Results, Unit, Vec<(String, Vec<f64>)>) {
    let of = |results: &'r Results| {
        let rows = results.document["results"].as_array()?;
        let row = rows.iter().find(|row| row["work"] == work && row["metric"] == name)?;
        Some((results, row))
    };
    let (results, row) = all.iter().find_map(of).or_fail(format!("find {work}: {name}"));
    let unit = UNITS.into_iter().find(|unit| row["unit"] == unit.name()).or_fail("know the unit");
    let target = |target: &Value| {
        let label = target["label"].as_str().or_fail("find a label").to_owned();
        let samples = target["samples"].as_array().or_fail("find samples");
        (label, samples.iter().filter_map(Value::as_f64).collect())
    };
    let targets = row["targets"].as_array().or_fail("find targets");
    (results, unit, targets.iter().map(target).collect())
}

/// The row and the labels of a chart, and the day of its results.
fn row(all: &[Results], (_, _, work, names, _): &Chart) -> (Row, Vec<String>, String) {
    if let [name] = names {
        let (results, unit, targets) = metric(all, work, name);
        let (labels, samples) = targets.into_iter().unzip();
        let row = Row { work, name: (*name).into(), unit, samples };
        return (row, labels, results.day.clone());
    }
    let (results, unit, _) = metric(all, work, names[0]);
    let first = |name: &&str| {
        let (_, _, targets) = metric(all, work, name);
        targets.into_iter().next().or_fail("find the first target")
    };
    let samples = names.iter().map(|name| first(name).1).collect();
    let label = |name: &&str| format!("pod {}", name.rsplit(' ').next().unwrap_or(name));
    let name = format!("{}, one more pod", first(&names[0]).0);
    let row = Row { work, name, unit, samples };
    (row, names.iter().map(label).collect(), results.day.clone())
}

/// The figures of a chart as a table.
fn table(row: &Row, labels: &[String], compared: bool) -> String {
    let unit = row.unit.name();
    let last = if compared { " Times |" } else { "" };
    let mut text = format!("| | Median ({unit}) | 95th percentile ({unit}) |{last}\n|---|---|---|");
    text.push_str(if compared { "---|\n" } else { "\n" });
    for (at, label) in labels.iter().enumerate() {
        let (Some(p50), Some(p95)) = (row.quantile(at, 50), row.quantile(at, 95)) else { continue };
        // Writing to a string does not fail.
        let _done = write!(text, "| {label} | {} | {} |", shown(p50), shown(p95));
        if compared {
            let times =
                row.ratio(at).map_or("–".to_owned(), |ratio| format!("×{}", shown(ratio)));
            let _done = write!(text, " {times} |");
        }
        text.push('\n');
    }
    text
}

/// The machines and versions behind the charts.
fn environment(all: &[Results]) -> String {
    let mut text = String::from("| Result | Machine | Versions |\n|---|---|---|\n");
    for Results { day, document } in all {
        let machine = &document["machine"];
        let works = document["works"].as_array().or_fail("find works");
        let works: Vec<&str> = works.iter().filter_map(Value::as_str).collect();
        let targets = document["targets"].as_array().or_fail("find targets");
        let mut versions: Vec<&str> =
            targets.iter().filter_map(|target| target["version"].as_str()).collect();
        versions.dedup();
        // Writing to a string does not fail.
        let _done = writeln!(
            text,
            "| {day}: {} | {} processors, {} MiB, Linux {}, cgroup {} | {} |",
            works.join(", "),
            machine["cpus"],
            machine["memory_mib"],
            machine["kernel"].as_str().unwrap_or("?"),
            machine["cgroup"].as_str().unwrap_or("?"),
            versions.join(", ")
        );
    }
    text
}

/// The text of the page, and the charts by file name.
fn published() -> (String, Vec<(String, String)>) {
    let all = results();
    let mut page = String::from(
        "<!-- Generated from docs/bench by tests/bench/src/report/published.rs; a test fails when this page is stale:\n\
         HULL_BLESS=1 cargo test -p cri-bench published -->\n\n\
         # Performance\n\n\
         The charts show the results in `docs/bench`, which have every sample. A bar is a median, the mark is the 95th\n\
         percentile. *Times* says how many times better Hull's median is. [The benchmark](bench.md) says what is\n\
         measured, what is left out, and how to repeat it on your own node.\n",
    );
    let mut charts = Vec::new();
    for chart in &CHARTS {
        let (file, heading, _, metrics, about) = chart;
        let (row, labels, day) = row(&all, chart);
        // Writing to a string does not fail.
        let _done = writeln!(
            page,
            "\n## {heading}\n\n{about}\n\n![{}, a bar for each; the table has the figures](charts/{file}.svg)\n\n{}\n\
             Measured on {day}.",
            row.name,
            table(&row, &labels, metrics.len() == 1)
        );
        charts.push((format!("{file}.svg"), svg::chart(&row, &labels)));
    }
    let _done = writeln!(page, "\n## Where it was measured\n\n{}", environment(&all).trim_end());
    (page, charts)
}

#[test]
fn the_published_page_and_its_charts_are_fresh() {
    let docs = paths::root().join("docs");
    let (page, charts) = published();
    let mut files = vec![(docs.join("performance.md"), page)];
    files.extend(charts.iter().map(|(name, text)| (docs.join("charts").join(name), text.clone())));
    if std::env::var_os("HULL_BLESS").is_some() {
        fs::create_dir_all(docs.join("charts")).or_fail("make docs/charts");
        for (file, text) in &files {
            fs::write(file, text).or_fail(format!("write {}", file.display()));
        }
    }
    for (file, text) in &files {
        let there = fs::read_to_string(file).unwrap_or_default();
        let name = file.display();
        assert!(there == *text, "{name} is stale: run this test with HULL_BLESS=1");
    }
    let mut wanted: Vec<&str> = charts.iter().map(|(name, _)| name.as_str()).collect();
    wanted.sort_unstable();
    assert_eq!(shell::names(&docs.join("charts")), wanted, "docs/charts has other files");
}

#[test]
fn the_newest_whole_result_counts() {
    let result = |day: &str, sample: f64| Results {
        day: day.into(),
        document: serde_json::json!({"results": [{"work": "w", "metric": "m", "unit": "ms",
            "targets": [{"label": "A", "samples": [sample]}, {"label": "B", "samples": [8.0]}]}]}),
    };
    let all = [result("2026-12-01", 2.0), result("2026-11-01", 4.0)];
    let (results, unit, targets) = metric(&all, "w", "m");
    assert_eq!((results.day.as_str(), unit), ("2026-12-01", Unit::Ms));
    let (labels, samples): (Vec<String>, Vec<Vec<f64>>) = targets.into_iter().unzip();
    let row = Row { work: "w", name: "m".into(), unit, samples };
    let table = table(&row, &labels, true);
    assert!(table.contains("| A | 2.00 | 2.00 | ×1.00 |\n| B | 8.00 | 8.00 | ×4.00 |"), "{table}");
}
