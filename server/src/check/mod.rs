// SPDX-License-Identifier: Apache-2.0
//! `hull check`: what this host lacks for running pods, each with a hint, before a kubelet is
//! pointed at it. The daemon need not run.
//!
//! The rule: things are tried rather than looked up where that leaves nothing behind. The
//! built-in network is checked by attaching a pod in a network namespace made for it, so that the host's
//! own links and rules are not touched; that of plugins by what there is of them.

mod host;
mod kernel;
mod network;
mod sysctls;

use crate::config::Config;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// How something is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Pods run; something that some of them want is missing. With a hint.
    Lacking(String),
    /// Pods cannot run. With a hint.
    Missing(String),
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    found: String,
    verdict: Verdict,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, found: found.into(), verdict: Verdict::Good }
    }

    fn lacking(what: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what, found: found.into(), verdict: Verdict::Lacking(hint.into()) }
    }

    fn missing(what: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what, found: found.into(), verdict: Verdict::Missing(hint.into()) }
    }

    fn line(&self) -> String {
        let (word, hint) = match &self.verdict {
            Verdict::Good => ("ok     ", None),
            Verdict::Lacking(hint) => ("lacking", Some(hint)),
            Verdict::Missing(hint) => ("MISSING", Some(hint)),
        };
        let hint = hint
            .map(|hint| format!("\n         {:16} hint: {}", "", text(hint)))
            .unwrap_or_default();
        format!("{word}  {:16} {}{hint}\n", self.what, text(&self.found))
    }
}

/// As it goes to a terminal: paths and what the kernel says are somebody else's words.
fn text(words: &str) -> String {
    hull_sys::text::shown(words, hull_sys::text::MESSAGE_BYTES_MAX)
}

/// Looks at everything and prints it. Ends with 1 when pods cannot run.
pub(crate) fn run(config: &Config, quiet: bool) -> io::Result<ExitCode> {
    let mut findings = kernel::findings();
    findings.extend(host::findings(config));
    findings.extend(sysctls::findings(config));
    findings.extend(network::findings(config));
    let (text, fit) = report(&findings, quiet);
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(findings: &[Finding], quiet: bool) -> (String, bool) {
    let shown = findings.iter().filter(|of| !quiet || of.verdict != Verdict::Good);
    let mut text: String = shown.map(Finding::line).collect();
    let missing = findings.iter().filter(|of| matches!(of.verdict, Verdict::Missing(_))).count();
    let lacking = findings.iter().filter(|of| matches!(of.verdict, Verdict::Lacking(_))).count();
    let verdict = match (missing, lacking) {
        (0, 0) => "this host is ready\n".to_owned(),
        (0, _) => {
            format!("this host is ready; {lacking} of {} things could be better\n", findings.len())
        }
        _ => format!(
            "this host cannot run pods yet: {missing} of {} things are missing\n",
            findings.len()
        ),
    };
    text.push_str(&verdict);
    (text, missing == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_makes_a_host_unfit() {
        let good = Finding::good("kernel", "6.1");
        let lacking = Finding::lacking("swap", "not counted", "boot with swapaccount=1");
        let missing = Finding::missing("overlay", "unknown to the kernel", "modprobe overlay");
        let (text, fit) = report(&[good.clone(), lacking.clone()], true);
        assert!(
            fit && !text.contains("6.1") && text.contains("hint: boot with swapaccount=1"),
            "{text}"
        );
        let (text, fit) = report(&[good, lacking, missing], false);
        assert!(!fit && text.contains("6.1") && text.contains("hint: modprobe overlay"), "{text}");
    }
}
