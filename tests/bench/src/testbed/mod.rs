// SPDX-License-Identifier: Apache-2.0
//! The testbed: `make bench` runs several runtimes side by side in it, and leaves nothing behind.
//!
//! ```text
//! side-by-side (outside): claims the testbed, clears it before and after
//!   └ unshare: mount, net and pid namespaces of its own; they end with it, however it ends
//!       └ sh as PID 1, reaps
//!           └ side-by-side (inside): registry, images, runtimes, then cri-bench
//!
//! /var/tmp/cri-bench-bed/<runtime>/  root, state, socket, configuration, log, start, restart
//! /cri-bench/<runtime>/runtime       cgroup of the daemon and its helpers
//! /cri-bench/<runtime>/pods          cgroup of its pods
//! ```
//!
//! The rule: what a runtime makes on the host (mounts, links, firewall rules, network namespaces,
//! processes) is in namespaces that go when the last process in them does. Only cgroups and files are
//! outside; their names are fixed, so the next run clears what a killed one left.

mod images;
mod place;
mod runtime;

use crate::args::Args;
use crate::work::Work;
use hull_tests::host::{self, Names};
use hull_tests::registry::Registry;
use hull_tests::{ExpectExt as _, debian, eventually, fixture, shell};
use place::{CGROUP, Place, ROOT};
use runtime::Runtime;
use std::io::Read as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// First argument of the program inside.
pub const INSIDE: &str = "--inside-the-bed";
/// Runs its arguments as a command below PID 1: this shell reaps orphans while it waits for the command.
const FIRST: &str = r#"exec 3<&0; "$@" <&3 3<&- & wait $!"#;
/// Longest wait for what is killed.
const KILLED_MAX: Duration = Duration::from_secs(20);

/// Runs the testbed from outside. Returns its exit code.
pub async fn outside(args: &[String]) -> u8 {
    let _claim = claim();
    // Inside there is no way to Debian's mirrors.
    let _busybox = debian::unpacked("busybox-static");
    clear();
    let me = std::env::current_exe().or_fail("find this program");
    let mut bed = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", FIRST, "sh"])
        .arg(me)
        .arg(INSIDE)
        .args(args)
        // Closed when we end, however: then it ends as well.
        .stdin(Stdio::piped())
        .spawn()
        .or_fail("start unshare (Debian package util-linux)");
    // Taken out, or waiting would close it.
    let _lifeline = bed.stdin.take();
    let mut terminated = signal(SignalKind::terminate()).or_fail("listen for SIGTERM");
    let code = tokio::select! {
        ended = bed.wait() => ended.or_fail("wait for the bed").code(),
        _ = tokio::signal::ctrl_c() => None,
        _ = terminated.recv() => None,
    };
    // Its end ends all processes in there, the mounts and the links.
    drop(bed.start_kill());
    let _status = bed.wait().await;
    clear();
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// At most one testbed at a time: its names are fixed.
fn claim() -> UnixListener {
    let name = SocketAddr::from_abstract_name("cri-bench-bed").or_fail("make a name");
    UnixListener::bind_addr(&name)
        .or_fail("have the testbed for ourselves: another `make bench` runs")
}

fn clear() {
    let names = Names {
        root: ROOT.into(),
        cgroup: CGROUP.into(),
        daemon_cgroup: CGROUP.into(),
        bridge: "none".into(),
        table: "cri-bench".into(),
    };
    // Cgroups stay busy for a moment after their last process.
    let cleared = eventually::blocking(KILLED_MAX, || {
        host::clear(&names);
        let left = host::hierarchies().iter().any(|mount| mount.join("cri-bench").is_dir());
        if left { Err("cgroups that cannot be removed".to_owned()) } else { Ok(()) }
    });
    cleared.map_err(std::io::Error::other).or_fail(format!("clear {ROOT} and cgroup {CGROUP}"));
}

/// Runs inside: starts all runtimes, then `cri-bench` over them with `args`; its exit code.
pub async fn inside(args: &[String], parsed: &Args) -> u8 {
    let _lifeline = std::thread::spawn(|| {
        // Until the process that started us has ended.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        // The shell above us waits for us alone, and ends the testbed.
        let _never = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    });
    let _lo = shell::run("ip", ["link", "set", "lo", "up"]).good();
    let _run = shell::run("mount", ["-t", "tmpfs", "cri-bench", "/run"]).good();
    // In the bed, whose files go however it ends.
    let registry = Registry::start_in(&Path::new(ROOT).join("registry"));
    let busybox = registry.push("bench/busybox", "1", &fixture::busybox_image().pack());
    let pause = registry.push("bench/pause", "1", &images::pause().pack());
    let mut bench = Command::new(beside("cri-bench"));
    let mut labels = Vec::new();
    for runtime in Runtime::found() {
        let named = parsed.labels.iter().any(|label| label == runtime.label());
        if !named && (runtime.is_extra() || !parsed.labels.is_empty()) {
            continue;
        }
        let place = runtime.prepare(&pause);
        start(&place).await;
        labels.push(runtime.label());
        bench.arg("--endpoint").arg(place.socket());
        bench.args(["--label", runtime.label(), "--restart"]).arg(place.restart());
        bench.arg("--cgroup").arg(place.cgroup()).arg("--cgroup-parent").arg(place.pods());
    }
    shell::say(&format!("side by side: {}", labels.join(", ")));
    if wants(parsed, Work::Pull) {
        for image in images::to_pull(parsed, &registry) {
            bench.args(["--pull-image", &image]);
        }
    }
    if parsed.logs.is_none() {
        // Where they go with the bed, however it ends.
        bench.arg("--logs").arg(Path::new(ROOT).join("logs"));
    }
    bench.args(["--image", &busybox]).args(without_labels(args)).stdin(Stdio::null());
    let status = bench.status().await.or_fail("run cri-bench");
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn wants(parsed: &Args, work: Work) -> bool {
    !parsed.skip.contains(&work) && (parsed.only.is_empty() || parsed.only.contains(&work))
}

/// The arguments that go on to `cri-bench`: here a label chooses a runtime.
fn without_labels(args: &[String]) -> Vec<&String> {
    let mut rest = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--label" {
            let _name = args.next();
        } else if !arg.starts_with("--label=") {
            rest.push(arg);
        }
    }
    rest
}

/// The program `name`, which is built into the same folder as this one.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().or_fail("find this program").with_file_name(name)
}

/// Starts the daemon and waits until it answers.
async fn start(place: &Place) {
    let _said = shell::run::<&str>(place.dir().join("start"), []).good();
    let cri = hull_tests::Cri::at(&place.socket(), &place.dir());
    let log = place.dir().join("log");
    eventually(format!("{} answers", place.name), || {
        let mut runtime = cri.runtime.clone();
        let log = log.clone();
        async move {
            let asked = runtime.status(hull_proto::cri::StatusRequest::default()).await;
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            asked.map(drop).map_err(|status| format!("{status}; its log: {}", said()))
        }
    })
    .await;
}
