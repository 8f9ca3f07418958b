// SPDX-License-Identifier: Apache-2.0
//! Kubernetes' suite for one node (e2e_node.test): it starts a kubelet, etcd and an API server by itself, and restarts
//! the kubelet with other settings. The node is a machine with Hull alone.
//!
//! The suite's kubelet gets the place of its cgroups by flags: by default it would make groups at the root of the hierarchies,
//! which a machine shares with its host.

use super::cgroups::{RUNTIME, SYSTEM};
use super::ginkgo::{self, Run};
use super::hull;
use super::kubelet;
use super::layout::Layout;
use super::machine::Machine;
use super::{e2e, page, programs};
use crate::expect::ExpectExt;
use crate::shell;
use crate::suite::report::{Ended, Report};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

/// The files of the suite's own specs; it also has those that every cluster runs.
pub const FILES: &str = "test/e2e_node/";

/// The section of the page of results.
pub const HEADING: &str = "The suite for one node";

/// Specs that cannot pass here: words that are all in their names, and the reason.
const CANNOT_RUN: [(&[&str], &str); 3] = [
    (
        &["Kubelet Cgroup Manager"],
        "the suite looks for the kubelet's cgroups at the root of the hierarchies; a machine's are below its own",
    ),
    (&["Checkpoint Container"], "it checkpoints pods, and needs CRIU"),
    (
        &["Summary API", "should report resource usage through the stats api"],
        "it wants the system container `misc`, for which the kubelet moves every process of the host's root cgroups",
    ),
];

/// The specs that failed without a reason that is known.
#[must_use]
pub fn unexpected(report: &Report) -> Vec<String> {
    let failed = report.specs.iter().filter(|(_, ended)| matches!(ended, Ended::Failed(_)));
    let names = failed.map(|(name, _)| name);
    names.filter(|name| reason(name).is_none()).cloned().collect()
}

fn reason(name: &str) -> Option<&'static str> {
    let listed = CANNOT_RUN.iter().find(|(words, _)| words.iter().all(|word| name.contains(word)));
    listed.map(|(_, reason)| *reason)
}

/// The specs that did not pass, with the reasons of the list, or else what they said.
#[must_use]
pub fn others(report: &Report) -> String {
    e2e::others_with(report, reason)
}

/// The results of a run as a section of the page.
#[must_use]
pub fn section(report: &Report, run: &Run, took: Duration) -> String {
    let (passed, failed, skipped) = report.counts();
    let mut text = format!(
        "`make e2e-node` on {}, with Kubernetes {}: the specs of {}{} on one node with Hull {}.\n\n\
         | Specs | Passed | Failed | Skipped | Time |\n|---|---|---|---|---|\n\
         | {} | {passed} | {failed} | {skipped} | {} min |\n\n### Specs of that suite that did not pass\n\n",
        page::today(),
        programs::version(&programs::built(&["kubelet"])),
        if run.files.is_empty() { format!("`{}`", run.focus) } else { format!("`{}`", run.files) },
        if run.skip.is_empty() { String::new() } else { format!(" without `{}`", run.skip) },
        env!("CARGO_PKG_VERSION"),
        report.specs.len(),
        took.as_secs() / 60,
    );
    text.push_str(&others(report));
    text
}

/// Runs specs on `node`, where Hull runs and no kubelet. `gates` is `A=true,B=true`. Reports and logs go to the node's
/// directory.
#[must_use]
pub fn run(node: &Machine, layout: &Layout, run: &Run, gates: &str) -> Report {
    let _built = programs::built(&["e2e"]);
    let dir = node.dir().join("e2e");
    fs::create_dir_all(&dir).or_fail("make the directory of the suite");
    // The suite runs where its program is, and finds the kubelet there.
    for program in ["ginkgo", "e2e_node.test", "kubelet"] {
        let link = dir.join(program);
        drop(fs::remove_file(&link));
        symlink(node.dir().join("programs").join(program), link).or_fail("link a program");
    }
    without_systemd(node);
    // The kubelet's cAdvisor finds the names of containers behind containerd's socket (docs/operate.md).
    let folder = node.path("/run/containerd");
    fs::create_dir_all(&folder).or_fail("make the folder of the link");
    drop(symlink(hull::SOCKET, folder.join("containerd.sock")));
    kubelet::prepare(node);
    // An address outside of the pods: a spec counts the bytes that a pod sends to its name server.
    let servers = format!("nameserver {}\n", layout.network.hub);
    fs::write(kubelet::resolv_conf(node), servers).or_fail("write a resolv.conf");
    let mut configuration = kubelet::configuration(node);
    let own = json!({
        "clusterDNS": [layout.network.dns_service],
        "clusterDomain": "cluster.local",
        "volumeStatsAggPeriod": "10s",
        "fileCheckFrequency": "10s",
        "evictionPressureTransitionPeriod": "30s",
        "podCIDR": "10.244.1.0/24",
    });
    kubelet::merge(&mut configuration, &own);
    let file = dir.join("kubelet-base.json");
    fs::write(&file, configuration.to_string()).or_fail("write the kubelet's config");
    let root = node.cgroups().root();
    let endpoint = format!("unix://{}", hull::SOCKET);
    let mut arguments = vec![
        "--prepull-images=false".into(),
        "--node-name=n1".into(),
        "--dns-domain=cluster.local".into(),
        format!("--container-runtime-endpoint={endpoint}"),
        "--container-runtime-process-name=hull".into(),
        format!("--kubelet-config-file={}", file.display()),
        format!("--kubelet-flags=--kubelet-cgroups={root}/{SYSTEM}"),
        format!("--kubelet-flags=--runtime-cgroups={root}/{RUNTIME}"),
        "--kubelet-flags=--system-cgroups=".into(),
        format!("--report-dir={}", dir.display()),
    ];
    if run.focus.contains("CriProxy") {
        arguments.push("--cri-proxy-enabled=true".into());
    }
    if !gates.is_empty() {
        arguments.push(format!("--feature-gates={gates}"));
        arguments.push(format!("--service-feature-gates={gates}"));
    }
    let mut command = node.command(SYSTEM, "env");
    command.arg("-C").arg(&dir);
    ginkgo::run(command, (&dir, "e2e_node.test"), run, &arguments, &dir)
}

/// The suite starts its kubelet by systemd where it finds `systemd-run`, but a machine has no systemd.
fn without_systemd(node: &Machine) {
    let script = "path=$(command -v systemd-run) || exit 0; \
        mountpoint -q \"$path\" || mount --bind /dev/null \"$path\"";
    let mut command = node.command(SYSTEM, "sh");
    let _output = shell::finish(command.args(["-c", script])).good();
}
