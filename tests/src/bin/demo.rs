// SPDX-License-Identifier: Apache-2.0
//! `make demo`: a pod from nothing to nothing, with the time of every step.
//!
//! It starts `hull serve` with its defaults, so it needs a machine where no Hull runs, and takes away
//! all that it made. Everything is done by the daemon and the `hull` command line, as a person would.

use hull_tests::cri::{container, own_namespaces, shell as script};
use hull_tests::eventually;
use hull_tests::shell::{Ran, finish, names, run, say};
use hull_tests::{Cri, Must as _, fixture, paths};
use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const SOCKET: &str = "/run/hull/hull.sock";
const STATE: &str = "/run/hull";
const DATA: &str = "/var/lib/hull";
const BRIDGE: &str = "hull0";
const TABLE: &str = "hull";
const CGROUP: &str = "hull";

fn main() -> ExitCode {
    if UnixStream::connect(SOCKET).is_ok() {
        say(&format!(
            "error: a daemon answers on {SOCKET} already\nhint: stop it first; the demo starts its own"
        ));
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.must("make a runtime").block_on(demo());
    ExitCode::SUCCESS
}

async fn demo() {
    let mut steps = Steps::default();
    say("\nHull: a pod from nothing to nothing\n");
    let data_was_there = Path::new(DATA).is_dir();
    let before = on_host();

    let (web, busybox) = steps
        .take("make images of Debian packages, push them to a registry on loopback", async {
            (fixture::nginx(), fixture::busybox())
        })
        .await;
    let mut daemon = steps.take("start `hull serve`", Daemon::start()).await;
    let cri = Cri::at(Path::new(SOCKET), &PathBuf::from(STATE).join("demo-logs"));

    for image in [&web, &busybox] {
        let name = image.rsplit('/').next().unwrap_or(image).to_owned();
        steps.take(&format!("pull {name}"), async { hull(&["pull", image]).good() }).await;
    }
    let pod = run_the_pod(&mut steps, &cri, &web, &busybox).await;
    look_around(&mut steps).await;

    steps.take("stop the pod", async { cri.stop_pod(&pod).await.must("stop the pod") }).await;
    steps.take("remove the pod", async { cri.remove_pod(&pod).await.must("remove the pod") }).await;
    let left = processes();
    assert!(left.is_empty(), "processes of the pod are left: {left:?}");
    steps
        .take("remove the images", async {
            for image in [&web, &busybox] {
                let _said = hull(&["rmi", image]).good();
            }
        })
        .await;
    steps.take("end the daemon (SIGTERM)", async { daemon.end() }).await;
    take_away(data_was_there);
    let after = on_host();
    let left: Vec<&String> = after.difference(&before).collect();
    assert!(left.is_empty(), "left on the host: {left:#?}");
    say(&format!(
        "\nNothing is left: {} mounts, links, rules, cgroups and processes before, the same after.\n",
        before.len()
    ));
    steps.table();
    say("\nTry next:\n");
    say("  sudo make install && sudo hull serve &");
    say(
        "  sudo hull run --rm -p 8080:80 docker.io/library/nginx:stable    # then: curl localhost:8080",
    );
    say(
        "  sudo hull check                                                 # is this host fit for a kubelet?\n",
    );
}

async fn run_the_pod(steps: &mut Steps, cri: &Cri, web: &str, busybox: &str) -> String {
    let pod = steps
        .take("RunPodSandbox: network, namespaces, pause", async {
            cri.run_pod("demo").await.must("run the pod")
        })
        .await;
    let server = steps
        .take("CreateContainer: nginx", async {
            cri.create(&pod, container("nginx", web, &[])).await.must("create nginx")
        })
        .await;
    steps
        .take("StartContainer: nginx", async { cri.start(&server).await.must("start nginx") })
        .await;
    let loops = "while true; do wget -q -O - http://127.0.0.1/ && break; done; \
        trap 'exit 0' TERM; while true; do sleep 1000 & wait; done";
    let mut sidecar = script("sidecar", busybox, loops);
    hull_tests::cri::security(&mut sidecar).namespace_options = Some(own_namespaces());
    let sidecar = steps
        .take("a sidecar that fetches the page over localhost", async {
            let sidecar = cri.run(&pod, sidecar).await;
            eventually("the sidecar has fetched the page", || async {
                let log = cri.logs(&sidecar).await;
                if log.is_empty() { Err("it printed nothing yet".to_owned()) } else { Ok(()) }
            })
            .await;
            sidecar
        })
        .await;
    show(&hull(&["logs", &sidecar]).good());
    let address = cri.pod_ip(&pod).await;
    let page =
        steps.take(&format!("the host fetches it from {address}"), async { fetch(&address) }).await;
    show(&page);
    let said = steps
        .take("exec in nginx", async { hull(&["exec", &server, "/usr/sbin/nginx", "-v"]) })
        .await;
    show(&format!("{}{}", said.stdout, said.stderr));
    pod
}

async fn look_around(steps: &mut Steps) {
    for (what, args) in [
        ("hull ps", &["ps"][..]),
        ("hull logs nginx", &["logs", "nginx"]),
        ("hull stats", &["stats"]),
    ] {
        let said = steps.take(&format!("`{what}`"), async { hull(args).good() }).await;
        show(&said);
    }
    match paths::crictl() {
        Some(crictl) => {
            let endpoint = format!("unix://{SOCKET}");
            let args = ["--config", "/dev/null", "-r", &endpoint, "-i", &endpoint, "ps"];
            let said =
                steps.take("the same by `crictl ps`", async { run(crictl, args).good() }).await;
            show(&said);
        }
        None => say("    (`make tools` builds crictl; the demo then shows it too)"),
    }
}

fn fetch(address: &str) -> String {
    let mut stream = TcpStream::connect((address, 80)).must(format!("connect to {address}"));
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").must("ask for the page");
    let mut said = String::new();
    let _bytes = stream.read_to_string(&mut said).must("read the page");
    said.split("\r\n\r\n").nth(1).unwrap_or(&said).to_owned()
}

fn hull(args: &[&str]) -> Ran {
    finish(Command::new(paths::hull()).args(args))
}

/// Prints output of a step, set off.
fn show(text: &str) {
    for line in text.lines() {
        say(&format!("      {line}"));
    }
}

/// `hull serve` with its defaults.
struct Daemon {
    child: Child,
}

impl Daemon {
    async fn start() -> Self {
        let log = paths::target().join("demo.log");
        let file = fs::OpenOptions::new().create(true).write(true).truncate(true).open(&log);
        let file = file.must(format!("open {}", log.display()));
        let errors = file.try_clone().must("share the log");
        let mut daemon = Command::new(paths::hull());
        daemon.arg("serve").stdin(Stdio::null()).stdout(file).stderr(errors);
        let mut child = daemon.spawn().must("start the daemon");
        eventually("the daemon listens", || {
            let ended = child.try_wait().must("look after the daemon");
            assert!(ended.is_none(), "the daemon ended: {ended:?}; its log is {}", log.display());
            let reached = UnixStream::connect(SOCKET);
            async move { reached.map(drop).map_err(|err| err.to_string()) }
        })
        .await;
        Self { child }
    }

    fn end(&mut self) {
        let pid = i32::try_from(self.child.id()).must("name the daemon's process");
        let signal = nix::sys::signal::Signal::SIGTERM;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).must("send SIGTERM");
        let status = self.child.wait().must("wait for the daemon");
        assert!(status.success(), "the daemon ended with {status}");
    }
}

impl Drop for Daemon {
    /// After a failed step: the daemon ends, and what it ran is told of, for a person to look at.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
            say(&format!("the daemon's log: {}", paths::target().join("demo.log").display()));
        }
    }
}

/// What a person would look at after taking a runtime away.
fn on_host() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").must("read the mounts");
    found.extend(
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|at| format!("mount {at}")),
    );
    found.extend(names(Path::new("/sys/class/net")).iter().map(|name| format!("link {name}")));
    found.extend(names(Path::new("/run/netns")).iter().map(|name| format!("netns {name}")));
    let tables = run("nft", ["list", "tables"]).stdout;
    found.extend(tables.lines().map(|line| format!("nft {line}")));
    for hierarchy in hull_tests::host::hierarchies() {
        let dir = hierarchy.join(CGROUP);
        if dir.is_dir() {
            found.insert(format!("cgroup {}", dir.display()));
        }
    }
    found.extend(processes());
    for dir in [STATE, DATA] {
        if Path::new(dir).is_dir() {
            found.insert(format!("directory {dir}"));
        }
    }
    found
}

fn processes() -> Vec<String> {
    let mut found = Vec::new();
    for pid in names(Path::new("/proc")) {
        let cgroup =
            fs::read_to_string(Path::new("/proc").join(&pid).join("cgroup")).unwrap_or_default();
        let command =
            fs::read_to_string(Path::new("/proc").join(&pid).join("cmdline")).unwrap_or_default();
        let of_pod = cgroup.lines().any(|line| line.contains(&format!(":/{CGROUP}/")));
        if of_pod || command.starts_with("hull-monitor") {
            found.push(format!("process {}", command.replace('\0', " ")));
        }
    }
    found
}

/// What stays for the next pod, as docs/operate.md says how to take it away.
fn take_away(keep_data: bool) {
    for hierarchy in hull_tests::host::hierarchies() {
        drop(fs::remove_dir(hierarchy.join(CGROUP)));
    }
    drop(run("ip", ["link", "delete", BRIDGE]));
    drop(run("nft", ["delete", "table", "inet", TABLE]));
    drop(fs::remove_dir_all(STATE));
    if !keep_data {
        drop(fs::remove_dir_all(DATA));
    }
}

/// The steps so far and how long each took.
#[derive(Default)]
struct Steps(Vec<(String, Duration)>);

impl Steps {
    async fn take<T>(&mut self, name: &str, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        let took = began.elapsed();
        say(&format!("  {:<70} {:>9}", name, shown(took)));
        self.0.push((name.to_owned(), took));
        done
    }

    fn table(&self) {
        let widest = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        let line = "-".repeat(widest + 12);
        say(&format!("  {:<widest$}   {:>9}\n  {line}", "step", "time"));
        for (name, took) in &self.0 {
            say(&format!("  {name:<widest$}   {:>9}", shown(*took)));
        }
        let all: Duration = self.0.iter().map(|(_, took)| *took).sum();
        say(&format!("  {line}\n  {:<widest$}   {:>9}", "all", shown(all)));
    }
}

fn shown(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1000.0;
    if ms < 1000.0 { format!("{ms:.1} ms") } else { format!("{:.2} s", ms / 1000.0) }
}
