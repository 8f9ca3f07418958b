// SPDX-License-Identifier: Apache-2.0
//! `hull explain`: the account of a pod, container or image as lines for people, or as a document.

use super::error::{Error, Result};
use super::format::{self, Format, OutputArgs};
use super::output::{self, age};
use crate::history::{Kind, Stage, Timeline};
use crate::observe::account::{Account, Finding, Weight};
use hull_plan::Certainty;
use std::fmt::Write as _;

/// Prints the account.
pub(crate) fn print(account: &Account, args: &OutputArgs) -> Result<()> {
    if args.selected() == Format::default() {
        return output::print(&text(account));
    }
    let document = serde_json::to_value(account).map_err(|source| Error::Json { source })?;
    format::document(&document, std::slice::from_ref(&account.name), args)
}

/// The account as lines.
fn text(account: &Account) -> String {
    let kind = match account.kind {
        Kind::Pod => "pod",
        Kind::Container => "container",
        Kind::Image => "image",
    };
    let mut text = format!("{kind} {}: {}\n", account.name, account.state);
    for finding in &account.findings {
        text.push_str(&of_finding(finding, account));
    }
    if account.is_well {
        text.push_str("\nnothing is wrong\n");
    }
    for timeline in &account.timelines {
        text.push_str(&of_timeline(timeline));
    }
    text
}

/// One finding: the sentence, and what supports it.
fn of_finding(of: &Finding, account: &Account) -> String {
    let word = match of.weight {
        Weight::Failure => "failure",
        Weight::Warning => "warning",
        Weight::Note => "note",
    };
    let about = if of.about == account.name { String::new() } else { format!("{}: ", of.about) };
    let ago = match age(of.at_ns, account.at_ns).as_str() {
        "-" | "0s" => String::new(),
        ago => format!(" ({ago} ago)"),
    };
    let diagnosis = &of.diagnosis;
    let mut lines = format!("\n{word}: {about}{}{ago}\n", diagnosis.what);
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "  {name:9} {value}");
    };
    line("layer", diagnosis.layer.name());
    if let Some(cause) = &diagnosis.cause {
        let likely = if diagnosis.certainty == Certainty::Likely { "likely: " } else { "" };
        line("cause", &format!("{likely}{cause}"));
    }
    for seen in &diagnosis.evidence {
        line("evidence", seen);
    }
    if let Some(exec) = &of.failed_exec {
        line("command", &exec.command);
        if !exec.output.is_empty() {
            line("output", &exec.output);
        }
    }
    for (name, written) in [("stdout", &of.output.stdout), ("stderr", &of.output.stderr)] {
        for written in written {
            line(name, written);
        }
    }
    if let Some(fix) = &diagnosis.fix {
        line("fix", fix);
    }
    lines
}

/// The stages of one timeline.
fn of_timeline(of: &Timeline) -> String {
    if of.stages.is_empty() {
        return String::new();
    }
    let attempt = if of.attempt > 0 { format!(", attempt {}", of.attempt) } else { String::new() };
    let mut text = format!("\ntimeline of {}{attempt}\n", of.full_name());
    for stage in &of.stages {
        let at = clock(stage.began_ns);
        let indent = if stage.part_of.is_empty() { "" } else { "  " };
        let took = took(stage);
        let error = if stage.error.is_empty() || !stage.part_of.is_empty() {
            String::new()
        } else {
            format!("  {}", stage.error)
        };
        let mark = if stage.error.is_empty() { "" } else { "  failed" };
        let _ = writeln!(
            text,
            "  {at}  {indent}{:24} {took:>10}{mark}{error}",
            stage.name,
            indent = indent
        );
    }
    if of.stages_dropped > 0 {
        let _ = writeln!(text, "  and {} more", of.stages_dropped);
    }
    text
}

/// The duration of a stage: `12.3 ms`.
pub(crate) fn took(stage: &Stage) -> String {
    stage.took_us.map_or_else(|| "goes on".into(), duration)
}

/// Microseconds in a unit that people read.
pub(crate) fn duration(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..10_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// The time of day with milliseconds, in UTC.
fn clock(at_ns: i64) -> String {
    let whole = hull_sys::time::rfc3339(at_ns);
    String::from_utf8_lossy(whole.get(11..23).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_plan::{Diagnosis, LastLines, Layer};

    fn account() -> Account {
        let diagnosis = Diagnosis {
            kind: "volume-permission".into(),
            layer: Layer::Filesystem,
            what: "exited with code 1".into(),
            cause: Some("uid 1000 may not write to `/data`".into()),
            certainty: Certainty::Likely,
            evidence: vec!["permission denied".into()],
            fix: Some("set fsGroup".into()),
        };
        let output = LastLines { stdout: Vec::new(), stderr: vec!["no".into()] };
        let finding = Finding {
            about: "ns/web/app".into(),
            weight: Weight::Failure,
            at_ns: 2_000_000_000,
            diagnosis,
            output,
            failed_exec: None,
        };
        let stages = vec![
            Stage {
                name: "start pod".into(),
                took_us: Some(12_345),
                began_ns: 1,
                ..Stage::default()
            },
            Stage { name: "network".into(), part_of: "start pod".into(), ..Stage::default() },
        ];
        let timeline = Timeline {
            namespace: "ns".into(),
            pod_name: "web".into(),
            stages,
            ..Timeline::default()
        };
        Account {
            name: "ns/web".into(),
            state: "ready".into(),
            findings: vec![finding],
            timelines: vec![timeline],
            at_ns: 5_000_000_000,
            ..Account::default()
        }
    }

    #[test]
    fn a_finding_has_its_layer_cause_evidence_output_and_fix() {
        let text = text(&account());
        for part in [
            "pod ns/web: ready\n",
            "failure: ns/web/app: exited with code 1 (3s ago)\n",
            "layer     filesystem\n",
            "cause     likely: uid 1000",
            "evidence  permission denied\n",
            "stderr    no\n",
            "fix       set fsGroup\n",
            "00:00:00.000  start pod",
            "12.3 ms",
            "goes on",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("nothing is wrong"));
    }

    #[test]
    fn a_document_is_read_back_as_it_was() {
        let text = serde_json::to_string(&account()).unwrap();
        assert_eq!(serde_json::from_str::<Account>(&text).unwrap(), account());
        let keys: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(keys["findings"][0]["diagnosis"]["layer"].is_string(), "{text}");
    }

    #[test]
    fn durations_have_a_unit_that_fits() {
        for (us, text) in [(7, "7 µs"), (12_345, "12.3 ms"), (12_345_678, "12.3 s"), (0, "0 µs")]
        {
            assert_eq!(duration(us), text);
        }
    }
}
