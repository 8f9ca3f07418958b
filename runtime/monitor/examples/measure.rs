// SPDX-License-Identifier: Apache-2.0
//! Measures a monitor: memory with pause and containers in it, log throughput, starts and execs.
//!
//! `cargo run -p hull-monitor --example measure -- PATH-OF-THE-MONITOR`; for figures that count, the
//! static one that the daemon embeds (profile `monitor`, musl). Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement: it prints, and fails by panicking"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use hull_proto::monitor::{Command, Target};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Client, Pod, container_id, shell};

/// Bytes of one line of output, with its end.
const LINE: usize = 100;
const LOG_BYTES: usize = 1 << 30;
const ROUNDS: usize = 50;

fn main() {
    let Some(monitor) = std::env::args().nth(1) else {
        println!("which monitor? give its path");
        return;
    };
    let Some(pod) = Pod::start(Path::new(&monitor)) else { return };
    let mut daemon = pod.connect();
    daemon.hello();
    memory(&pod, "idle, connected");
    let paused = pod.run_pause(&mut daemon);
    let first = container_id();
    pod.run(&mut daemon, &first, "while :; do sleep 1000; done");
    memory(&pod, "with pause and 1 container");
    let others = [container_id(), container_id()];
    for id in &others {
        pod.run(&mut daemon, id, "echo hello; while :; do sleep 1000; done");
    }
    memory(&pod, "with pause and 3 containers");
    println!(
        "pause: private dirty {} KiB, PSS {} KiB",
        rollup(paused.pid, "Private_Dirty"),
        rollup(paused.pid, "Pss")
    );
    execs(&mut daemon, &first);
    starts(&pod, &mut daemon);
    memory(&pod, "after execs and starts");
    log(&pod, &mut daemon);
    let dirty = || rollup(pod.pid.as_raw_nonzero().get(), "Private_Dirty");
    support::eventually("the room for output is given back", || (dirty() < 150).then_some(()));
    memory(&pod, "after the log");
}

fn rollup(pid: i32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn memory(pod: &Pod, when: &str) {
    let pid = pod.pid.as_raw_nonzero().get();
    let (dirty, pss) = (rollup(pid, "Private_Dirty"), rollup(pid, "Pss"));
    println!("monitor {when}: private dirty {dirty} KiB, PSS {pss} KiB");
}

/// User and system time of the monitor, in clock ticks of 10 ms.
fn ticks(pod: &Pod) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pod.pid.as_raw_nonzero())).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    println!("{what}: p50 {:.2} ms, p95 {:.2} ms, {} rounds", at(50), at(95), times.len());
}

fn execs(daemon: &mut Client, id: &hull_proto::id::ContainerId) {
    let (mut started, mut ended) = (Vec::new(), Vec::new());
    for exec in 0..ROUNDS as u64 {
        let begin = Instant::now();
        daemon.exec(id, exec, &shell("exit 0"), None).unwrap();
        started.push(begin.elapsed());
        daemon.exec_exit(exec);
        ended.push(begin.elapsed());
    }
    show("exec until it runs", started);
    show("exec until its end is reported", ended);
}

fn starts(pod: &Pod, daemon: &mut Client) {
    let (mut started, mut killed, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let id = container_id();
        let plan = pod.plan(&id, "while :; do sleep 1000; done");
        let begin = Instant::now();
        pod.run_plan(daemon, &id, &plan, support::PIPES);
        started.push(begin.elapsed());
        let begin = Instant::now();
        daemon
            .ask(Command::Signal { target: Target::ContainerAll(id.clone()), signal: 9 }, &[])
            .unwrap();
        daemon.exit(&id);
        killed.push(begin.elapsed());
        let begin = Instant::now();
        daemon.ask(Command::Delete { container: id }, &[]).unwrap();
        deleted.push(begin.elapsed());
    }
    show("container until it runs (overlay, proc, two binds)", started);
    show("container from SIGKILL until its end is reported", killed);
    show("delete", deleted);
}

fn log(pod: &Pod, daemon: &mut Client) {
    let line = [vec![b'x'; LINE - 1], vec![b'\n']].concat();
    let mut file = fs::File::create_new(pod.shared().join("lines")).unwrap();
    file.write_all(&line.repeat((64 << 20) / LINE)).unwrap();
    drop(file);
    let bytes = (64 << 20) / LINE * LINE * (LOG_BYTES >> 26);
    let files = "/shared/lines ".repeat(LOG_BYTES >> 26);
    // Into nothing first: what the writer alone takes.
    for (what, script) in [
        ("writer alone", format!("cat {files} | cat > /dev/null")),
        ("log", format!("cat {files}")),
    ] {
        let id = container_id();
        let (begin, before) = (Instant::now(), ticks(pod));
        pod.run(daemon, &id, &script);
        daemon.exit(&id);
        let (wall, cpu) = (begin.elapsed().as_secs_f64(), ticks(pod) - before);
        let rate = bytes as f64 / 1e6 / wall;
        println!(
            "{what}: {:.2} GB of {LINE}-byte lines in {wall:.2} s, {rate:.0} MB/s; monitor {cpu}0 ms of CPU",
            bytes as f64 / 1e9
        );
        fs::remove_file(pod.log_path(&id)).unwrap();
    }
}
