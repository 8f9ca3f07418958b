// SPDX-License-Identifier: Apache-2.0
//! Kubernetes' own tests (e2e.test) on the cluster of this host, and the list of those that cannot run here.
//!
//! The rule is that of critest: a spec that is not on the list must pass, and one on the list must not. A run of a part
//! (`FOCUS=…`) is judged by its failures alone.

use super::ginkgo::{self, Run};
use super::layout::{self, Layout};
use super::machine::Machine;
use super::{page, programs};
use crate::expect::ExpectExt;
use crate::paths;
use crate::suite::report::{Ended, Report};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The specs that are run without another `FOCUS`.
pub const FOCUS: &str =
    r"\[NodeConformance\]|\[sig-(node|storage|network|apps|api-machinery)\].*\[Conformance\]";

/// Parts of a host or an image, without which specs cannot pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacks {
    /// CAP_SYS_RESOURCE, without which no process lowers its `oom_score_adj`: capabilities(7), bit 24.
    SysResource,
    /// A busybox whose shell keeps environment names that are not identifiers, as that of 1.36 does. The image's shell
    /// is bash, which words errors in another way.
    NewBusybox,
    /// Links of type dummy, which a spec makes to see whether a container is privileged.
    DummyLinks,
}

impl Lacks {
    fn holds(self) -> bool {
        match self {
            Self::NewBusybox => true,
            Self::DummyLinks => {
                let probe = ["--net", "ip", "link", "add", "probe", "type", "dummy"];
                crate::shell::run("unshare", probe).code != 0
            }
            Self::SysResource => {
                let status =
                    fs::read_to_string("/proc/self/status").or_fail("read /proc/self/status");
                let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
                let capabilities = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
                capabilities.or_fail("read the capabilities of this process") & (1 << 24) == 0
            }
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::SysResource => {
                "this host gives root no CAP_SYS_RESOURCE, so no process has an oom_score_adj below 0"
            }
            Self::NewBusybox => {
                "the shell of the image is bash, which reports the refused write in other words"
            }
            Self::DummyLinks => "this kernel has no links of type dummy",
        }
    }
}

/// Specs that cannot pass on a host that lacks something: words that are all in their names.
const CANNOT_RUN: [(&[&str], Lacks); 8] = [
    (&["PLR guaranteed qos", " cpu & mem restart"], Lacks::SysResource),
    (&["PLR guaranteed qos", " cpu restart resizing cpu"], Lacks::SysResource),
    (&["PLR guaranteed qos", " cpu restart resizing only pod-level cpu"], Lacks::SysResource),
    (&["PLR guaranteed qos", " mem restart resizing mem"], Lacks::SysResource),
    (&["PLR guaranteed qos", " mem restart resizing cpu & mem"], Lacks::SysResource),
    (&["PLR guaranteed qos", " mem restart resizing only pod-level mem"], Lacks::SysResource),
    (&["when scheduling a read only busybox container"], Lacks::NewBusybox),
    (&["PrivilegedPod"], Lacks::DummyLinks),
];

/// Words in the name of a spec, and the reason for which it cannot pass.
type Listed = (&'static [&'static str], &'static str);

fn is_listed(name: &str, words: &[&str]) -> bool {
    words.iter().all(|word| name.contains(word))
}

/// [`CANNOT_RUN`] as it is on this host, with reasons.
fn cannot_run() -> Vec<Listed> {
    let here = CANNOT_RUN.iter().filter(|(_, lacks)| lacks.holds());
    here.map(|(words, lacks)| (*words, lacks.reason())).collect()
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Every spec that was selected.
    pub report: Report,
    /// Violations of the rule, one line for each.
    pub wrong: Vec<String>,
}

/// Runs the specs on the cluster. Their output goes to `<target>/node-logs/e2e/e2e.log`.
#[must_use]
pub fn run(hub: &Machine, layout: &Layout, run: &Run) -> Outcome {
    let programs = programs::built(&["e2e"]);
    let arguments = [
        "--provider=skeleton".into(),
        "--disable-log-dump".into(),
        format!("--kubeconfig={}", layout.kubeconfig().display()),
    ];
    let report = ginkgo::run(
        layout::in_network(hub, layout),
        (&programs, "e2e.test"),
        run,
        &arguments,
        &paths::logs().join("e2e"),
    );
    let wrong = wrong(&report, &cannot_run(), run.focus == FOCUS && run.skip.is_empty());
    Outcome { report, wrong }
}

/// Violations of the rule. `whole` is whether all of the specs were run, so that the list can be held against them.
fn wrong(report: &Report, cannot_run: &[Listed], whole: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, ended) in &report.specs {
        let listed = cannot_run.iter().any(|(words, _)| is_listed(name, words));
        match ended {
            Ended::Failed(how) if !listed => wrong.push(format!("failed: {name}\n    {how}")),
            Ended::Skipped(why) if !listed && whole => {
                wrong.push(format!("skipped: {name}\n    {why}"))
            }
            Ended::Passed if listed => {
                wrong.push(format!("passed, though it is on the list: {name}"))
            }
            Ended::Passed | Ended::Failed(_) | Ended::Skipped(_) => {}
        }
    }
    for (words, _) in cannot_run.iter().filter(|_| whole) {
        if !report.specs.keys().any(|name| is_listed(name, words)) {
            wrong.push(format!("the list names {words:?}, which no spec contains"));
        }
    }
    wrong
}

/// Writes the results of a whole run into the page `file`.
pub fn document(outcome: &Outcome, layout: &Layout, took: Duration, file: &Path) {
    let mut text = String::new();
    let (passed, failed, skipped) = outcome.report.counts();
    let _infallible = write!(
        text,
        "Kubernetes {}, {} nodes with Hull {} in namespaces, on {}. The specs are `[NodeConformance]`, and\n\
         `[Conformance]` of sig-node, sig-storage, sig-network, sig-apps and sig-api-machinery.\n\n\
         | Specs | Passed | Failed | Skipped | Time |\n|---|---|---|---|---|\n\
         | {} | {passed} | {failed} | {skipped} | {} min |\n\n### Specs that did not pass\n\n",
        programs::version(&programs::built(&["kubelet"])),
        layout.options.nodes,
        env!("CARGO_PKG_VERSION"),
        page::today(),
        outcome.report.specs.len(),
        took.as_secs() / 60,
    );
    text.push_str(&others(&outcome.report));
    page::replace(file, "Conformance", &text);
}

/// The specs that failed and are not on the list.
#[must_use]
pub fn unexpected(report: &Report) -> Vec<String> {
    wrong(report, &cannot_run(), false)
}

/// The specs that did not pass, with the reasons of the list, or else what they said.
#[must_use]
pub fn others(report: &Report) -> String {
    let listed = cannot_run();
    others_with(report, |name| {
        listed.iter().find(|(words, _)| is_listed(name, words)).map(|(_, reason)| *reason)
    })
}

/// The same, with these reasons.
#[must_use]
pub fn others_with(report: &Report, reason: impl Fn(&str) -> Option<&'static str>) -> String {
    let mut text = String::new();
    for (name, ended) in &report.specs {
        let (Ended::Failed(why) | Ended::Skipped(why)) = ended else { continue };
        let reason = reason(name).map_or_else(|| first_line(why), str::to_owned);
        let _infallible = writeln!(text, "- {name}: {reason}");
    }
    if text.is_empty() { "None.\n".into() } else { text }
}

/// The first line of a message, cut to a length that a list can show.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let cut: String = line.chars().take(200).collect();
    if cut.len() < line.len() { format!("{cut}…") } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn specs_left_out_by_name_do_not_count_and_failures_do() {
        let spec = |name: &str, state: &str, message: &str| {
            json!({
                "ContainerHierarchyTexts": ["[sig-node]"], "LeafNodeType": "It", "LeafNodeText": name,
                "State": state, "Failure": {"Message": message},
            })
        };
        let specs = [
            spec("passes", "passed", ""),
            spec("fails", "failed", "no"),
            spec("is left out", "skipped", ""),
            spec("skips itself", "skipped", "no such feature"),
        ];
        let text = json!([{"SpecReports": specs}]).to_string();
        let report = ginkgo::selected(Report::read(&text).unwrap_or_default());
        assert_eq!(report.specs.len(), 3);
        assert_eq!(wrong(&report, &[], false).len(), 1);
        assert_eq!(wrong(&report, &[], true).len(), 2);
        assert_eq!(
            wrong(&report, &[(&["fails"], "reason"), (&["skips"], "reason")], true).len(),
            0
        );
        assert_eq!(wrong(&report, &[(&["passes"], "reason")], false).len(), 2);
        assert_eq!(wrong(&report, &[(&["nothing has this"], "reason")], true).len(), 3);
    }
}
