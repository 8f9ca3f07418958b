// SPDX-License-Identifier: Apache-2.0
//! `hull check`: as lines for people, or as objects for programs.

use super::args::Check;
use super::error::{Error, Result};
use super::format::{self, Field, Format, Kind, Kinds};
use super::output;
use super::ps::row;
use crate::check;
use crate::config::Config;
use serde_json::json;
use std::process::ExitCode;

/// The fields of findings.
pub(crate) const FINDINGS: Kinds = Kinds {
    verb: "check",
    fields: &[
        Field::always("subject", "SUBJECT", Kind::Text, "Subject of the check."),
        Field::always(
            "verdict",
            "VERDICT",
            Kind::Word,
            "Verdict: ok, warning (pods run) or missing (they do not).",
        ),
        Field::always("found", "FOUND", Kind::Text, "Finding, in words."),
        Field::always("hint", "HINT", Kind::Text, "Change that helps; empty if nothing is wrong."),
    ],
    id: "subject",
    name: "subject",
};

/// Checks the host, and prints the findings. The exit code is 1 if pods cannot run.
pub(crate) fn check(config: &Config, args: &Check) -> Result<ExitCode> {
    if args.output.selected() == Format::default() {
        let ran = check::run(config, args.quiet, output::terminal_width());
        return ran.map_err(Error::io("write to stdout"));
    }
    let findings = check::findings(config);
    let parts = findings.iter().map(check::Finding::parts);
    let shown = parts.filter(|(_, verdict, ..)| !args.quiet || *verdict != "ok");
    let rows: Vec<format::Row> = shown
        .map(|(subject, verdict, found, hint)| {
            row(json!({"subject": subject, "verdict": verdict, "found": found, "hint": hint}))
        })
        .collect();
    format::print(&FINDINGS, &rows, &args.output)?;
    let is_fit = findings.iter().all(|finding| finding.parts().1 != "missing");
    Ok(if is_fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
