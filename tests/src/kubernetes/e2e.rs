// SPDX-License-Identifier: Apache-2.0
//! Kubernetes' own tests (e2e.test) on the cluster of this host, and the list of those that cannot run here.
//!
//! The rule is that of critest: a spec that is not on the list must pass, and one on the list must not. A run of a part
//! (`FOCUS=…`) is judged by its failures alone.

use super::layout::{self, Layout};
use super::machine::Machine;
use super::programs;
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

/// The part of the specs to run, and the limits of the run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Regular expression of the names of the specs.
    pub focus: String,
    /// Regular expression of the names of specs to leave out; empty for none.
    pub skip: String,
    /// Number of specs that run at the same time.
    pub processes: u8,
    /// Time after which ginkgo ends the run.
    pub timeout: Duration,
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Every spec that was selected.
    pub report: Report,
    /// Violations of the rule, one line for each.
    pub wrong: Vec<String>,
}

/// Runs the specs. Their output goes to `<target>/node-logs/e2e.log`.
#[must_use]
pub fn run(hub: &Machine, layout: &Layout, run: &Run) -> Outcome {
    let programs = programs::built(&["e2e"]);
    let dir = paths::logs().join("e2e");
    fs::create_dir_all(&dir).or_fail(format!("make {}", dir.display()));
    let json = dir.join("report.json");
    drop(fs::remove_file(&json));
    let log = dir.join("e2e.log");
    drop(fs::remove_file(&log));
    let out = super::machine::log_file(&log);
    let mut command = layout::in_network(hub, layout);
    command
        .arg(programs.join("ginkgo"))
        .args([
            format!("--procs={}", run.processes),
            format!("--timeout={}s", run.timeout.as_secs()),
        ])
        .args(["--no-color", "--json-report=report.json"])
        .arg(format!("--output-dir={}", dir.display()))
        .arg(format!("--focus={}", run.focus));
    if !run.skip.is_empty() {
        command.arg(format!("--skip={}", run.skip));
    }
    command
        .arg(programs.join("e2e.test"))
        .args(["--", "--provider=skeleton", "--disable-log-dump"])
        .arg(format!("--kubeconfig={}", layout.kubeconfig().display()))
        .env("HOME", &dir)
        .stdout(out.try_clone().or_fail("share the log"))
        .stderr(out);
    let status = command.status().or_fail("start ginkgo");
    let text = fs::read_to_string(&json).or_fail(format!(
        "read the report {} (ginkgo ended with {status}; see {})",
        json.display(),
        log.display()
    ));
    let report = Report::read(&text).map_err(std::io::Error::other);
    let report = selected(report.or_fail(format!("understand {}", json.display())));
    let wrong = wrong(&report, &cannot_run(), run.focus == FOCUS && run.skip.is_empty());
    Outcome { report, wrong }
}

/// Without the specs that were left out by their names.
fn selected(mut report: Report) -> Report {
    report.specs.retain(|_, ended| *ended != Ended::Skipped("left out by name".into()));
    report
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

/// Writes the results of a whole run to docs/conformance-kubernetes.md.
pub fn document(outcome: &Outcome, layout: &Layout, took: Duration, file: &Path) {
    let version = programs::version(&programs::built(&["kubelet"]));
    let mut text = String::from(
        "<!-- `make e2e` overwrites this page. -->\n\n# Kubernetes' own tests on Hull\n\n",
    );
    let (passed, failed, skipped) = outcome.report.counts();
    let _infallible = write!(
        text,
        "Kubernetes {version}, {} nodes with Hull {} in namespaces, on {}. The specs are `[NodeConformance]`, and\n\
         `[Conformance]` of sig-node, sig-storage, sig-network, sig-apps and sig-api-machinery.\n\n\
         | Specs | Passed | Failed | Skipped | Time |\n|---|---|---|---|---|\n\
         | {} | {passed} | {failed} | {skipped} | {} min |\n\n## Specs that did not pass\n\n",
        layout.options.nodes,
        env!("CARGO_PKG_VERSION"),
        today(),
        outcome.report.specs.len(),
        took.as_secs() / 60,
    );
    let (mut others, listed) = (0, cannot_run());
    for (name, ended) in &outcome.report.specs {
        let (Ended::Failed(why) | Ended::Skipped(why)) = ended else { continue };
        others += 1;
        let reason = listed.iter().find(|(words, _)| is_listed(name, words));
        let first = why.lines().next().unwrap_or_default();
        let reason = reason.map_or(first, |(_, reason)| reason);
        let _infallible = writeln!(text, "- {name}: {reason}");
    }
    if others == 0 {
        text.push_str("None.\n");
    }
    fs::write(file, text).or_fail(format!("write {}", file.display()));
}

/// The date in UTC, as `date` prints it.
fn today() -> String {
    crate::shell::run("date", ["-u", "+%Y-%m-%d"]).good().trim().to_owned()
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
        let report = selected(Report::read(&text).unwrap_or_default());
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
