// SPDX-License-Identifier: Apache-2.0
//! `make cluster`: a Kubernetes on this host, each node with its own Hull, in namespaces.
//!
//! ```text
//! cluster up [--nodes N] [--gates A=true,B=true] [--dual-stack] [--cni bridge]
//! cluster kubectl ARGUMENTS …
//! cluster e2e [--focus REGEX] [--skip REGEX] [--processes N] [--document FILE]
//! cluster bench
//! cluster down
//! ```

use hull_tests::kubernetes::e2e::{self, Run};
use hull_tests::kubernetes::layout::{self, Layout, Options, Pods};
use hull_tests::kubernetes::{bench, cluster};
use hull_tests::shell::say;
use hull_tests::{ExpectExt as _, paths};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Longest run of the specs.
const E2E_MAX: Duration = Duration::from_secs(3 * 60 * 60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((verb, rest)) = arguments.split_first() else { return refuse("a verb is missing") };
    if !rustix::process::geteuid().is_root() {
        say("error: machines in namespaces need root\nhint: run it with sudo");
        return ExitCode::FAILURE;
    }
    let done = match verb.as_str() {
        "up" => options(rest).map(|options| up(&Layout::new(options))),
        "down" => Ok(down()),
        "kubectl" => with_cluster(|hub, layout| {
            let status = layout::kubectl_command(hub, layout).args(rest).status();
            status.or_fail("start kubectl").success()
        }),
        "e2e" => run(rest).and_then(|(run, file)| {
            with_cluster(|hub, layout| e2e(hub, layout, &run, file.as_deref()))
        }),
        "bench" => with_cluster(|hub, layout| {
            bench::run(hub, layout);
            true
        }),
        other => Err(format!("there is no verb {other:?}")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => refuse(&text),
    }
}

fn refuse(text: &str) -> ExitCode {
    say(&format!(
        "error: {text}\nhint: up, kubectl, e2e, bench or down; tests/src/bin/cluster.rs lists their options"
    ));
    ExitCode::FAILURE
}

fn with_cluster(
    act: impl FnOnce(&hull_tests::kubernetes::machine::Machine, &Layout) -> bool,
) -> Result<bool, String> {
    match (layout::hub(), Layout::running()) {
        (Some(hub), Some(layout)) => Ok(act(&hub, &layout)),
        _ => Err("no cluster runs here; `make cluster` starts one".into()),
    }
}

fn options(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--nodes" => {
                options.nodes =
                    value()?.parse().map_err(|_| "--nodes needs a number up to 200".to_owned())?;
            }
            "--gates" => options.gates = value()?,
            "--dual-stack" => options.dual_stack = true,
            "--cni" => {
                options.network = match value()?.as_str() {
                    "bridge" => Pods::Bridge,
                    other => return Err(format!("--cni is bridge, not {other:?}")),
                };
            }
            other => return Err(format!("up has no option {other:?}")),
        }
    }
    if !(1..=200).contains(&options.nodes) {
        return Err("--nodes needs a number from 1 to 200".into());
    }
    Ok(options)
}

fn up(layout: &Layout) -> bool {
    cluster::up(layout);
    let root = layout::root();
    say(&format!(
        "\nThe cluster runs. To go on:\n\
         \x20 {root}/kubectl get pods -A          kubectl (or: make cluster K=\"get pods -A\")\n\
         \x20 {root}/on n1 bash                   a shell on a node; `hull ps` there: {root}/n1/hull ps\n\
         \x20 {root}/n1/hull.log, kubelet.log     logs\n\
         \x20 {kubeconfig}   the kubeconfig, for programs in the hub's network (nsenter --net)\n\
         \x20 make cluster-down                                removes all of it",
        root = root.display(),
        kubeconfig = layout.kubeconfig().display(),
    ));
    true
}

fn down() -> bool {
    cluster::down();
    say("the cluster is removed");
    true
}

fn run(arguments: &[String]) -> Result<(Run, Option<String>), String> {
    let mut run =
        Run { focus: e2e::FOCUS.into(), skip: String::new(), processes: 4, timeout: E2E_MAX };
    let mut file = None;
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().cloned().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--focus" => run.focus = value,
            "--skip" => run.skip = value,
            "--processes" => {
                run.processes =
                    value.parse().map_err(|_| "--processes needs a number".to_owned())?;
            }
            "--document" => file = Some(value),
            other => return Err(format!("e2e has no option {other:?}")),
        }
    }
    Ok((run, file))
}

fn e2e(
    hub: &hull_tests::kubernetes::machine::Machine,
    layout: &Layout,
    run: &Run,
    file: Option<&str>,
) -> bool {
    let began = Instant::now();
    let outcome = e2e::run(hub, layout, run);
    let (passed, failed, skipped) = outcome.report.counts();
    for line in &outcome.wrong {
        say(&format!("  {line}"));
    }
    say(&format!(
        "{} specs: {passed} passed, {failed} failed, {skipped} skipped; {} s; log: {}",
        outcome.report.specs.len(),
        began.elapsed().as_secs(),
        paths::logs().join("e2e/e2e.log").display()
    ));
    if let Some(file) = file {
        e2e::document(&outcome, layout, began.elapsed(), &paths::root().join(file));
    }
    outcome.wrong.is_empty()
}
