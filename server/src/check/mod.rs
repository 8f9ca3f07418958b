// SPDX-License-Identifier: Apache-2.0
//! `hull check`: whether this host can run pods, with a hint for each thing that is missing. For hosts without a
//! kubelet yet; the daemon need not run.
//!
//! The rule: a check tries things instead of looking them up, where that leaves nothing behind. The
//! built-in network is checked by attaching a pod in a network namespace created for the check, so that
//! the links and rules of the host stay untouched; CNI networks by their configurations and plugins.

mod finding;
mod handlers;
mod host;
mod kernel;
mod network;
mod sysctls;
mod userns;

pub(crate) use finding::Finding;

use crate::config::Config;
use finding::Verdict;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Runs all checks.
pub(crate) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = kernel::findings();
    findings.extend(host::findings(config));
    findings.extend(userns::findings(&config.runtime));
    findings.extend(sysctls::findings(config));
    findings.extend(handlers::findings(config));
    findings.extend(network::findings(config));
    findings
}

/// Runs all checks and prints the findings, only failed ones if `quiet`, for a terminal of this width. The exit code is 1
/// if pods cannot run.
pub(crate) fn run(config: &Config, quiet: bool, width: Option<u16>) -> io::Result<ExitCode> {
    let (text, fit) = report(&findings(config), quiet, width);
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(findings: &[Finding], quiet: bool, width: Option<u16>) -> (String, bool) {
    let shown = findings.iter().filter(|of| !quiet || of.verdict != Verdict::Good);
    let mut text: String = shown.map(|of| of.line(width)).collect();
    let missing = findings.iter().filter(|of| matches!(of.verdict, Verdict::Missing(_))).count();
    let warnings = findings.iter().filter(|of| matches!(of.verdict, Verdict::Warning(_))).count();
    let verdict = match (missing, warnings) {
        (0, 0) => "this host is ready\n".to_owned(),
        (0, _) => {
            format!("this host is ready; {warnings} of {} checks gave a warning\n", findings.len())
        }
        _ => format!("this host cannot run pods: {missing} of {} checks failed\n", findings.len()),
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
        let warning = Finding::warning("swap", "not counted", "boot with swapaccount=1");
        let missing = Finding::missing("overlay", "unknown to the kernel", "modprobe overlay");
        let (text, fit) = report(&[good.clone(), warning.clone()], true, None);
        assert!(
            fit && !text.contains("6.1") && text.contains("hint: boot with swapaccount=1"),
            "{text}"
        );
        let (text, fit) = report(&[good, warning, missing], false, None);
        assert!(!fit && text.contains("6.1") && text.contains("hint: modprobe overlay"), "{text}");
    }

    #[test]
    fn lines_fit_into_the_terminal_between_words() {
        let words = "a finding of many words, and of one that/has/no/blank/at/which/it/could/be/broken at all";
        let finding = Finding::warning("cgroup", words, words.repeat(2));
        let (text, _) = report(std::slice::from_ref(&finding), false, Some(80));
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.lines().count() > 5, "{text}");
        let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (whole, _) = report(std::slice::from_ref(&finding), false, None);
        assert_eq!(joined(&text), joined(&whole), "no word is lost");
        let (narrow, _) = report(&[finding], false, Some(30));
        assert_eq!(narrow, whole, "there is no room for words");
    }
}
