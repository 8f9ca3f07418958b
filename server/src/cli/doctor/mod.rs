// SPDX-License-Identifier: Apache-2.0
//! `hull doctor`: leaks and mismatches on this node, as the daemon finds them; and the archive for a bug report.

mod bundle;
mod redact;

use super::args::diagnose::Doctor;
use super::client::Client;
use super::error::{Error, Result};
use super::format::{self, Field, Format, Kind, Kinds, Row};
use super::output;
use super::ps::row;
use crate::config::Config;
use crate::doctor::Finding;
use hull_proto::admin;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

/// The fields of findings.
pub(crate) const FINDINGS: Kinds = Kinds {
    verb: "doctor",
    fields: &[
        Field::always(
            "class",
            "CLASS",
            Kind::Word,
            "leak: on the host without a record; mismatch: recorded, and not so on the host.",
        ),
        Field::always("subject", "SUBJECT", Kind::Text, "Kind of the object, as in cgroup."),
        Field::always("name", "NAME", Kind::Text, "Path or id of the object."),
        Field::always(
            "owner",
            "OWNER",
            Kind::Text,
            "Pod or container that it belongs or belonged to; empty if it is the node's.",
        ),
        Field::always("found", "FOUND", Kind::Text, "Finding, in words."),
        Field::wide("hint", "HINT", Kind::Text, "Change that helps."),
        Field::always(
            "outcome",
            "OUTCOME",
            Kind::Text,
            "left, removed, or the reason for which it could not be removed.",
        ),
    ],
    id: "name",
    name: "name",
};

/// Prints the findings. The exit code is 1 if any is left. With --bundle, the archive is written also if the daemon
/// cannot be reached.
pub(crate) async fn doctor(
    connected: Result<Client>,
    config: &Config,
    args: &Doctor,
) -> Result<ExitCode> {
    let mut client = match connected {
        Ok(client) => client,
        Err(err) => {
            if let Some(path) = &args.bundle {
                bundle::write(path, None, config, &Value::String(err.to_string())).await?;
            }
            return Err(err);
        }
    };
    let answer = client.admin.doctor(admin::DoctorRequest { fix: args.fix }).await?.into_inner();
    let parsed: Vec<Finding> =
        serde_json::from_str(&answer.findings).map_err(|source| Error::Json { source })?;
    if args.output.selected() == Format::default() {
        output::print(&text(&parsed))?;
    } else {
        format::print(&FINDINGS, &parsed.iter().map(as_row).collect::<Vec<_>>(), &args.output)?;
    }
    if let Some(path) = &args.bundle {
        let found = serde_json::to_value(&parsed).map_err(|source| Error::Json { source })?;
        bundle::write(path, Some(client), config, &found).await?;
    }
    let is_well = parsed.iter().all(|of| of.outcome == "removed");
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_row(of: &Finding) -> Row {
    row(json!({
        "class": of.class,
        "subject": of.subject,
        "name": of.name,
        "owner": of.owner,
        "found": of.found,
        "hint": of.hint,
        "outcome": of.outcome,
    }))
}

/// The findings as lines for people.
fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "everything on this node is as it was recorded\n".into();
    }
    let mut text = String::new();
    for of in findings {
        let owner = if of.owner.is_empty() { String::new() } else { format!(" of {}", of.owner) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}: {} {}{owner}: {}", of.class, of.subject, of.name, of.found);
        match of.outcome.as_str() {
            "removed" => text.push_str("  removed\n"),
            "left" if !of.hint.is_empty() => {
                let _ = writeln!(text, "  hint: {}", of.hint);
            }
            "left" => {}
            why => {
                let _ = writeln!(text, "  not removed: {why}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_its_owner_and_its_outcome() {
        let of = |outcome: &str| Finding {
            class: "leak".into(),
            subject: "cgroup".into(),
            name: "/hull/pod1".into(),
            owner: "ns/web".into(),
            found: "its pod has no record any more".into(),
            hint: "fix it".into(),
            outcome: outcome.into(),
        };
        let text = text(&[of("left"), of("removed"), of("cannot clear it")]);
        let wanted = "leak: cgroup /hull/pod1 of ns/web: its pod has no record any more\n";
        assert_eq!(text.matches(wanted).count(), 3, "{text}");
        for line in ["  hint: fix it\n", "  removed\n", "  not removed: cannot clear it\n"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(super::text(&[]).contains("as it was recorded"));
    }
}
