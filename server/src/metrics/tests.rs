// SPDX-License-Identifier: Apache-2.0
//! The rules of names, the page of docs, and the board and alerts in charts: they use only what is in the table.

use super::families::LABELS_MAX;
use super::table::{ALL, Kind, Known};
use super::{EndedWork, Exemplars, Metrics, Scraped, table};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

/// The rules: <https://prometheus.io/docs/practices/naming/>.
#[test]
fn names_follow_the_rules_of_prometheus_and_are_there_once() {
    let mut families = BTreeSet::new();
    for Known { name, kind, labels, help } in ALL {
        assert!(name.starts_with("hull_"), "{name}");
        let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.chars().all(is_word) && !name.contains("__"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert_eq!(name.ends_with("_seconds"), *kind == Kind::Histogram || is_age(name), "{name}");
        assert!(labels.len() <= LABELS_MAX, "{name}");
        assert!(labels.iter().all(|label| label.chars().all(is_word)), "{name}: {labels:?}");
        assert!(!help.is_empty() && !help.ends_with('.') && !help.contains(['|', '\n']), "{name}");
        // OpenMetrics has one name for all kinds: a counter `x_total` is of the family `x`.
        assert!(families.insert(name.trim_end_matches("_total")), "{name} is there twice");
    }
}

/// Whether a gauge is a time in seconds.
fn is_age(name: &str) -> bool {
    name.ends_with("_oldest_seconds") || name.ends_with("_start_time_seconds")
}

/// Work that has failed, and is of no trace.
fn work(part_of: &'static str, name: &'static str, ms: u64) -> EndedWork {
    EndedWork { part_of, name, took: Duration::from_millis(ms), failed: true, trace: None }
}

#[test]
fn a_bucket_names_the_last_recorded_trace_for_those_who_read_that() {
    let metrics = Metrics::default();
    for (ms, trace) in [(20, Some(1)), (21, Some(0xab)), (22, None), (400, None)] {
        metrics.ended(&EndedWork { trace, ..work("", "start pod", ms) });
    }
    let text = |exemplars| metrics.text(&Scraped::default(), exemplars).unwrap();
    let with = text(Exemplars::Included);
    let marked: Vec<&str> = with.lines().filter(|line| line.contains(" # {")).collect();
    let bucket = "hull_operation_seconds_bucket{le=\"0.025\",operation=\"start pod\"} 3";
    let exemplar = " # {trace_id=\"000000000000000000000000000000ab\"} 0.021 ";
    let [line] = marked.as_slice() else { panic!("{with}") };
    let time = line.strip_prefix(bucket).and_then(|rest| rest.strip_prefix(exemplar));
    assert!(time.is_some_and(|time| time.parse::<f64>().is_ok()), "{line}");
    let without = text(Exemplars::LeftOut);
    assert_eq!(without, with.replace(line, bucket));
}

#[test]
fn what_is_counted_is_written_with_its_labels() {
    let metrics = Metrics::default();
    metrics.ended(&work("", "start pod", 20));
    metrics.ended(&EndedWork { failed: false, ..work("start pod", "network", 7) });
    metrics.leak("network");
    metrics.leak_removed("network", false);
    let open = metrics.sessions.enter(&["exec"]);
    let mut scraped = Scraped::default();
    scraped.all(table::PODS, [(["ready"], 3.0), (["stopped"], 0.0)]);
    scraped.one(table::PULL_RETRIES, 2.0);
    scraped.some(table::FDS, None);
    let text = metrics.text(&scraped, Exemplars::LeftOut).unwrap();
    for line in [
        "hull_operation_seconds_count{operation=\"start pod\"} 1",
        "hull_operation_seconds_bucket{le=\"0.025\",operation=\"start pod\"} 1",
        "hull_operation_errors_total{operation=\"start pod\"} 1",
        "hull_stage_seconds_count{operation=\"start pod\",stage=\"network\"} 1",
        "hull_leaks_found_total{kind=\"network\"} 1",
        "hull_stream_sessions{kind=\"exec\"} 1",
        "hull_pods{state=\"ready\"} 3.0",
        "hull_pods{state=\"stopped\"} 0.0",
        "hull_image_pull_retries_total 2.0",
        "hull_oom_kills_total 0",
        "# TYPE hull_oom_kills counter",
    ] {
        assert!(text.lines().any(|of| of == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(!text.contains("hull_process_open_fds") && !text.contains("leaks_removed_total{"));
    drop(open);
    let text = metrics.text(&Scraped::default(), Exemplars::LeftOut).unwrap();
    assert!(text.contains("hull_stream_sessions{kind=\"exec\"} 0"), "{text}");
}

/// The text of docs/metrics.md.
fn page() -> String {
    let mut out = String::from(
        "<!-- Generated from server/src/metrics/table.rs; a test fails when this page is stale:\n\
         HULL_BLESS=1 cargo test -p hull the_metrics_page_is_fresh -->\n\n\
         # Metrics\n\n\
         The daemon's own metrics, as `hull metrics` prints them and a Prometheus server gets them: see\n\
         [operate.md](operate.md#metrics-of-the-daemon). Metrics of pods and containers are the kubelet's\n\
         (`/metrics/cadvisor`).\n\n\
         Labels have values out of short lists, never names of pods, containers, images or hosts. Counters start at 0 with\n\
         the daemon; one with labels appears with its first event. A histogram `x` has the series `x_bucket`, `x_sum` and\n\
         `x_count`.\n\n\
         | Metric | Type | Labels | Meaning |\n|---|---|---|---|\n",
    );
    for Known { name, kind, labels, help } in ALL {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a String cannot fail.
        let _ =
            writeln!(out, "| `{name}` | {} | {} | {help}. |", kind_name(*kind), labels.join(", "));
    }
    out
}

#[test]
fn the_metrics_page_is_fresh() {
    let path = file("docs/metrics.md");
    if std::env::var_os("HULL_BLESS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let have = fs::read_to_string(&path).unwrap_or_default();
    assert!(have == page(), "docs/metrics.md is stale: run this test with HULL_BLESS=1");
}

/// Rules of alerts, as Prometheus reads them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<RuleGroup>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleGroup {
    name: String,
    rules: Vec<Alert>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alert {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    waits: Option<String>,
    labels: Severity,
    annotations: Annotations,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Severity {
    severity: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotations {
    summary: String,
    description: String,
    runbook: String,
}

/// Fails unless each metric of a PromQL expression is in the table, with the labels that the expression selects by.
fn check_expression(place: &str, expr: &str) {
    let mut found = 0;
    for (at, _) in expr.match_indices("hull_") {
        let rest = &expr[at..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        let name = &rest[..end];
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(*part));
        let known = ALL.iter().find(|known| match known.kind {
            Kind::Histogram => Some(known.name) == family,
            Kind::Counter | Kind::Gauge => known.name == name,
        });
        let known = known.unwrap_or_else(|| panic!("{place}: `{name}` is not a metric: {expr}"));
        for label in selected_labels(&rest[end..]) {
            let is_known = known.labels.contains(&label) || ["instance", "job"].contains(&label);
            assert!(is_known, "{place}: {name} has no label `{label}`: {expr}");
        }
        found += 1;
    }
    assert!(found > 0, "{place} uses no metric: {expr}");
}

/// The names of the labels in the braces with which the text begins.
fn selected_labels(text: &str) -> Vec<&str> {
    let Some(inside) = text.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
        return Vec::new();
    };
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names = inside.0.split(',').map(|matcher| matcher.trim_start());
    names.map(|of| &of[..of.find(|c| !is_name(c)).unwrap_or(of.len())]).collect()
}

#[test]
fn alerts_use_metrics_that_exist_and_say_what_to_do() {
    let text = fs::read_to_string(file("charts/hull/files/alerts.yaml")).unwrap();
    let rules: Rules = serde_saphyr::from_str(&text).unwrap();
    let mut names = BTreeSet::new();
    for alert in rules.groups.iter().flat_map(|group| &group.rules) {
        let Alert { alert: name, expr, waits, labels, annotations } = alert;
        assert!(name.starts_with("Hull") && names.insert(name), "{name}");
        check_expression(name, expr);
        assert!(["critical", "warning", "info"].contains(&labels.severity.as_str()), "{name}");
        assert!(
            waits.as_deref().is_none_or(|time| time.ends_with(['m', 's'])),
            "{name}: {waits:?}"
        );
        let Annotations { summary, description, runbook } = annotations;
        for text in [summary, description, runbook] {
            assert!(text.ends_with('.') && text.len() > 20, "{name}: {text}");
        }
        assert!(!runbook.trim_end_matches('.').contains(". "), "{name}: one sentence: {runbook}");
        assert!(summary.contains("{{ $labels.instance }}"), "{name} does not say where: {summary}");
    }
    assert!(rules.groups.iter().all(|group| !group.name.is_empty()) && names.len() >= 10);
}

/// A board of Grafana, as far as it is checked.
#[derive(Debug, Deserialize)]
struct Board {
    title: String,
    uid: String,
    panels: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
struct Panel {
    id: u64,
    title: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "gridPos")]
    place: Place,
    #[serde(default)]
    targets: Vec<Query>,
}

#[derive(Debug, Deserialize)]
struct Place {
    x: u64,
    y: u64,
    w: u64,
    h: u64,
}

#[derive(Debug, Deserialize)]
struct Query {
    expr: String,
}

#[test]
fn the_board_uses_metrics_that_exist_and_its_panels_do_not_overlap() {
    let text = fs::read_to_string(file("charts/hull/files/board.json")).unwrap();
    let board: Board = serde_json::from_str(&text).unwrap();
    assert!(!board.title.is_empty() && !board.uid.is_empty());
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for Panel { id, title, kind, place, targets } in &board.panels {
        assert!(ids.insert(id), "{title} has the id of another panel");
        assert_eq!(targets.is_empty(), kind == "row", "{title} shows nothing");
        for query in targets {
            check_expression(title, &query.expr);
        }
        assert!(place.x + place.w <= 24, "{title} is outside");
        for x in place.x..place.x + place.w {
            for y in place.y..place.y + place.h {
                assert!(taken.insert((x, y)), "{title} overlaps another panel");
            }
        }
    }
    assert!(board.panels.len() >= 15);
}

#[test]
fn an_expression_with_an_unknown_metric_or_label_is_found() {
    let refused =
        |expr: &'static str| std::panic::catch_unwind(|| check_expression("test", expr)).is_err();
    assert!(refused("rate(hull_no_such_metric_total[5m])"));
    assert!(refused("hull_pods{phase=\"ready\"}"));
    assert!(refused("hull_operation_seconds > 1"), "a histogram has no series of its own name");
    assert!(refused("up == 0"));
    assert!(!refused(
        "sum by (le) (rate(hull_operation_seconds_bucket{operation=~\"start .*\"}[5m]))"
    ));
}
