// SPDX-License-Identifier: Apache-2.0
//! `hull check`: what this host lacks for running pods, each with a hint, before a kubelet is
//! pointed at it. The daemon need not run.
//!
//! The rule: things are tried rather than looked up where that leaves nothing behind. The
//! built-in network is checked by attaching a pod in a network namespace made for it, so that the host's
//! own links and rules are not touched; that of plugins by what there is of them.

mod finding;
mod host;
mod kernel;
mod network;
mod sysctls;

use crate::config::Config;
use finding::{Finding, Verdict};
use std::io::{self, Write as _};
use std::process::ExitCode;

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
