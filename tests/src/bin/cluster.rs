// SPDX-License-Identifier: Apache-2.0
//! `make cluster`: a Kubernetes on this host, each node with its own Hull, in namespaces.
//!
//! ```text
//! cluster up [--nodes N] [--gates A=true,B=true] [--dual-stack] [--cni bridge|flannel] [--runtime containerd]
//! cluster kubectl ARGUMENTS …
//! cluster runtime-classes
//! cluster e2e [--focus REGEX] [--skip REGEX] [--processes N] [--document FILE]
//! cluster e2e-node [--focus REGEX] [--skip REGEX] [--processes N] [--document FILE] [--gates A=true]
//! cluster gates [--only NAME] [--processes N] [--document FILE]
//! cluster bench [--runtimes hull,containerd] [--rounds N] [--nodes N]
//! cluster down
//! ```

use hull_tests::kubernetes::e2e;
use hull_tests::kubernetes::figures::{Figures, table};
use hull_tests::kubernetes::ginkgo::Run;
use hull_tests::kubernetes::layout::{self, Layout, Options, Pods, Runtime};
use hull_tests::kubernetes::machine::Machine;
use hull_tests::kubernetes::{bench, cluster, e2e_node, gates, page, runtime_class};
use hull_tests::shell::say;
use hull_tests::{ExpectExt as _, paths};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Longest run of the specs.
const E2E_MAX: Duration = Duration::from_secs(3 * 60 * 60);
const VERBS: &str = "up, kubectl, runtime-classes, e2e, e2e-node, gates, bench or down";

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
        "runtime-classes" => with_cluster(runtime_class::check),
        "e2e" => Asked::read(rest)
            .and_then(|asked| with_cluster(|hub, layout| on_cluster(hub, layout, &asked))),
        "e2e-node" => Asked::read(rest).map(|asked| on_node(&asked)),
        "gates" => Asked::read(rest).map(|asked| {
            let file = asked.document.as_ref().map(|file| paths::root().join(file));
            gates::run(&asked.only, asked.run.processes, file.as_deref())
        }),
        "bench" => bench(rest),
        other => Err(format!("there is no verb {other:?}")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => refuse(&text),
    }
}

fn refuse(text: &str) -> ExitCode {
    say(&format!("error: {text}\nhint: {VERBS}; tests/src/bin/cluster.rs lists their options"));
    ExitCode::FAILURE
}

fn with_cluster(act: impl FnOnce(&Machine, &Layout) -> bool) -> Result<bool, String> {
    match (layout::hub(), Layout::running()) {
        (Some(hub), Some(layout)) => Ok(act(&hub, &layout)),
        _ => Err("no cluster runs here; `make cluster` starts one".into()),
    }
}

fn options(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut network = None;
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--nodes" => options.nodes = number(name, &value()?)?,
            "--gates" => options.gates = value()?,
            "--dual-stack" => options.dual_stack = true,
            "--cni" => network = Some(value()?),
            "--runtime" => options.runtime = runtime(&value()?)?,
            other => return Err(format!("up has no option {other:?}")),
        }
    }
    if !(1..=200).contains(&options.nodes) {
        return Err("--nodes needs a number from 1 to 200".into());
    }
    options.network = match (network.as_deref(), options.runtime) {
        (None, Runtime::Hull) => Pods::BuiltIn,
        (None, Runtime::Containerd) => Pods::Bridge,
        (Some(name), runtime) => match (Pods::named(name), runtime) {
            (None, _) => return Err(format!("--cni is hull, bridge or flannel, not {name:?}")),
            (Some(Pods::BuiltIn), Runtime::Containerd) => {
                return Err("the network `hull` is that of Hull itself".into());
            }
            (Some(network), _) => network,
        },
    };
    Ok(options)
}

fn number(name: &str, text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| format!("{name} needs a number up to 255, not {text:?}"))
}

fn runtime(name: &str) -> Result<Runtime, String> {
    Runtime::named(name).ok_or_else(|| format!("a runtime is hull or containerd, not {name:?}"))
}

fn up(layout: &Layout) -> bool {
    let _hub = cluster::up(layout);
    let root = layout::root();
    say(&format!(
        "\nThe cluster runs. To go on:\n\
         \x20 {root}/kubectl get pods -A          kubectl (or: make cluster K=\"get pods -A\")\n\
         \x20 {root}/on n1 bash                   a shell on a node; `hull ps` there: {root}/n1/hull ps\n\
         \x20 {root}/n1/{name}.log, kubelet.log     logs\n\
         \x20 {kubeconfig}   the kubeconfig, for programs in the hub's network (nsenter --net)\n\
         \x20 make cluster-down                                removes all of it",
        root = root.display(),
        name = layout.options.runtime.name(),
        kubeconfig = layout.kubeconfig().display(),
    ));
    true
}

fn down() -> bool {
    cluster::down();
    say("the cluster is removed");
    true
}

/// The specs that a command names.
struct Asked {
    run: Run,
    document: Option<String>,
    gates: String,
    only: String,
}

impl Asked {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let run = Run {
            focus: String::new(),
            skip: String::new(),
            files: String::new(),
            processes: 4,
            timeout: E2E_MAX,
        };
        let mut asked = Self { run, document: None, gates: String::new(), only: String::new() };
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let value = rest.next().cloned().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--focus" => asked.run.focus = value,
                "--skip" => asked.run.skip = value,
                "--processes" => asked.run.processes = number(name, &value)?,
                "--document" => asked.document = Some(value),
                "--gates" => asked.gates = value,
                "--only" => asked.only = value,
                other => return Err(format!("there is no option {other:?}")),
            }
        }
        Ok(asked)
    }
}

fn on_cluster(hub: &Machine, layout: &Layout, asked: &Asked) -> bool {
    let began = Instant::now();
    let mut run = asked.run.clone();
    if run.focus.is_empty() {
        run.focus = e2e::FOCUS.into();
    }
    let outcome = e2e::run(hub, layout, &run);
    for line in &outcome.wrong {
        say(&format!("  {line}"));
    }
    say(&format!(
        "{}; {} s; log: {}",
        outcome.report.summary(),
        began.elapsed().as_secs(),
        paths::logs().join("e2e/e2e.log").display()
    ));
    if let Some(file) = &asked.document {
        e2e::document(&outcome, layout, began.elapsed(), &paths::root().join(file));
    }
    outcome.wrong.is_empty()
}

fn on_node(asked: &Asked) -> bool {
    let began = Instant::now();
    let layout = Layout::new(Options { nodes: 1, ..Options::default() });
    let node = cluster::up_node(&layout);
    let mut run = asked.run.clone();
    if run.focus.is_empty() {
        run.files = e2e_node::FILES.into();
    }
    let report = e2e_node::run(&node, &layout, &run, &asked.gates);
    let others = e2e::others(&report);
    say(&format!("{others}\n{}; {} s", report.summary(), began.elapsed().as_secs()));
    if let Some(file) = &asked.document {
        let text = e2e_node::section(&report, &run, began.elapsed());
        page::replace(&paths::root().join(file), e2e_node::HEADING, &text);
    }
    let kept = paths::logs().join("e2e-node");
    drop(std::fs::remove_dir_all(&kept));
    let from = [node.dir().join("e2e"), node.dir().join("hull.log"), kept.clone()];
    drop(std::fs::create_dir_all(&kept));
    drop(hull_tests::shell::run(
        "cp",
        ["-r".as_ref()].into_iter().chain(from.iter().map(|path| path.as_os_str())),
    ));
    cluster::down();
    e2e_node::unexpected(&report).is_empty()
}

fn bench(arguments: &[String]) -> Result<bool, String> {
    let (mut runtimes, mut rounds, mut nodes) = (Vec::new(), 1, 3);
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--runtimes" => {
                let names = value.split([',', ' ']).filter(|name| !name.is_empty());
                runtimes = names.map(runtime).collect::<Result<Vec<_>, _>>()?;
            }
            "--rounds" => rounds = number(name, value)?,
            "--nodes" => nodes = number(name, value)?,
            other => return Err(format!("bench has no option {other:?}")),
        }
    }
    if runtimes.is_empty() {
        return with_cluster(|hub, layout| {
            let figures = bench::run(hub, layout);
            say(&table(&[(layout.options.runtime, figures)]));
            true
        });
    }
    let mut all: Vec<_> = runtimes.into_iter().map(|of| (of, Figures::default())).collect();
    for round in 1..=rounds {
        for (runtime, figures) in &mut all {
            say(&format!("round {round} of {rounds}: {}", runtime.name()));
            let network = match runtime {
                Runtime::Hull => Pods::BuiltIn,
                Runtime::Containerd => Pods::Bridge,
            };
            let options = Options { nodes, network, runtime: *runtime, ..Options::default() };
            let layout = Layout::new(options);
            figures.join(bench::run(&cluster::up(&layout), &layout));
            cluster::down();
        }
    }
    say(&format!("\n{}", table(&all)));
    Ok(true)
}
