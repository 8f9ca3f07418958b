// SPDX-License-Identifier: Apache-2.0
//! Where `make bench` runs several runtimes side by side, and nothing of it stays.
//!
//! ```text
//! side-by-side (outside): claims the bed, clears it before and after
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
mod runtime;

use crate::args::Args;
use crate::work::Work;
use hull_tests::host::{self, Names};
use hull_tests::registry::Registry;
use hull_tests::{Must as _, debian, eventually, fixture, shell};
use runtime::Runtime;
use std::io::Read as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// All files of the bed.
pub(crate) const ROOT: &str = "/var/tmp/cri-bench-bed";
/// All cgroups of it.
pub(crate) const CGROUP: &str = "/cri-bench";
/// First argument of the program inside.
pub const INSIDE: &str = "--inside-the-bed";
/// Becomes what it is told, as PID 1: a shell reaps whatever is orphaned while it waits.
const FIRST: &str = r#"exec 3<&0; "$@" <&3 3<&- & wait $!"#;
/// Longest wait for what is killed.
const KILLED_MAX: Duration = Duration::from_secs(20);

/// Runs the bed from outside: its exit code.
pub async fn outside(args: &[String]) -> u8 {
    let _claim = claim();
    // Inside there is no way to Debian's mirrors.
    let _busybox = debian::unpacked("busybox-static");
    clear();
    let me = std::env::current_exe().must("find this program");
    let mut bed = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", FIRST, "sh"])
        .arg(me)
        .arg(INSIDE)
        .args(args)
        // Closed when we end, however: then it ends as well.
        .stdin(Stdio::piped())
        .spawn()
        .must("start unshare (Debian package util-linux)");
    // Taken out, or waiting would close it.
    let _lifeline = bed.stdin.take();
    let mut terminated = signal(SignalKind::terminate()).must("listen for SIGTERM");
    let code = tokio::select! {
        ended = bed.wait() => ended.must("wait for the bed").code(),
        _ = tokio::signal::ctrl_c() => None,
        _ = terminated.recv() => None,
    };
    // Its end ends all processes in there, the mounts and the links.
    drop(bed.start_kill());
    let _status = bed.wait().await;
    clear();
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// At most one bed at a time: its names are fixed.
fn claim() -> UnixListener {
    let name = SocketAddr::from_abstract_name("cri-bench-bed").must("make a name");
    UnixListener::bind_addr(&name).must("have the bed for ourselves: another `make bench` runs")
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
    cleared.map_err(std::io::Error::other).must(format!("clear {ROOT} and cgroup {CGROUP}"));
}

/// Runs inside: starts all runtimes, then `cri-bench` over them with `args`; its exit code.
pub async fn inside(args: &[String], parsed: &Args) -> u8 {
    let _lifeline = std::thread::spawn(|| {
        // Until whoever started us has gone.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        // The shell above us waits for us alone, and ends the bed.
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
    let status = bench.status().await.must("run cri-bench");
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
    std::env::current_exe().must("find this program").with_file_name(name)
}

/// Where one runtime is.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its name in paths.
    pub(crate) name: &'static str,
}

impl Place {
    pub(crate) fn dir(&self) -> PathBuf {
        Path::new(ROOT).join(self.name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("cri.sock")
    }

    fn restart(&self) -> PathBuf {
        self.dir().join("restart")
    }

    fn cgroup(&self) -> String {
        format!("{CGROUP}/{}", self.name)
    }

    pub(crate) fn pods(&self) -> String {
        format!("{}/pods", self.cgroup())
    }

    /// Where cgroups that count CPU time are: of v1, else of v2.
    fn counting() -> PathBuf {
        let mounts = host::hierarchies();
        let v1 = mounts.iter().find(|mount| mount.join("cpuacct.usage").is_file());
        let v2 = || mounts.iter().find(|mount| mount.join("cgroup.controllers").is_file());
        v1.or_else(v2).must("find a cgroup hierarchy that counts CPU time").clone()
    }

    /// Writes the programs that start the daemon and restart it.
    pub(crate) fn write_programs(&self, command: &[String]) {
        let dir = self.dir();
        let cgroup = Self::counting().join(self.cgroup().trim_start_matches('/')).join("runtime");
        let quoted: Vec<String> = command.iter().map(|word| format!("'{word}'")).collect();
        let start = format!(
            "#!/bin/sh\n\
             mkdir -p {cgroup}\n\
             setsid sh -c 'echo $$ > {cgroup}/cgroup.procs; exec \"$@\"' sh {command} \
             >> {log} 2>&1 < /dev/null &\n\
             echo $! > {pid}\n",
            cgroup = cgroup.display(),
            command = quoted.join(" "),
            log = dir.join("log").display(),
            pid = dir.join("pid").display(),
        );
        let restart = format!(
            "#!/bin/sh\n\
             pid=$(cat {pid})\n\
             kill \"$pid\"\n\
             while kill -0 \"$pid\" 2> /dev/null; do sleep 0.002; done\n\
             exec {start}\n",
            pid = dir.join("pid").display(),
            start = dir.join("start").display(),
        );
        self.write("start", &start);
        self.write("restart", &restart);
        let programs = [dir.join("start"), dir.join("restart")];
        let _done = shell::run(
            "chmod",
            ["0755".as_ref(), programs[0].as_os_str(), programs[1].as_os_str()],
        )
        .good();
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        let dir = path.parent().must("find the file's folder");
        std::fs::create_dir_all(dir).must(format!("make {}", dir.display()));
        std::fs::write(&path, text).must(format!("write {}", path.display()));
    }
}

/// Words before a command that show it cgroup v1 alone where v2 is mounted beside it with controllers of
/// its own: crun refuses such hosts. In a mount namespace of its own v2 is covered, not taken away.
pub(crate) fn without_v2() -> Vec<String> {
    let mounts = host::hierarchies();
    let has_v1 = mounts.iter().any(|mount| mount.join("cgroup.sane_behavior").is_file());
    let v2 = mounts.iter().find(|mount| {
        std::fs::read_to_string(mount.join("cgroup.controllers"))
            .is_ok_and(|controllers| !controllers.trim().is_empty())
    });
    let Some(v2) = v2.filter(|_| has_v1) else { return Vec::new() };
    let cover = format!("mount -t tmpfs none {} && exec \"$@\"", v2.display());
    ["unshare", "--mount", "sh", "-c", &cover, "sh"].map(String::from).into()
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
