// SPDX-License-Identifier: Apache-2.0
//! `make bench-oci`: what the OCI runtimes of this machine take for the same bundle, side by side.
//!
//! Each round does the same work with every runtime, one after the other, so that what the machine does
//! meanwhile falls on all alike. Times are from the start of a program to its end, as its caller waits
//! for it; CPU is user and system time of the program itself. The bundle has what `runc spec` gives: six
//! new namespaces, seven mounts, masked and read-only paths, device rules, a limit of open files; and a
//! seccomp profile of every runtime's making.

use hull_tests::bundle::Bundle;
use hull_tests::expect::ExpectExt;
use hull_tests::shell::{self, say};
use serde_json::json;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

const WORK: [&str; 7] =
    ["create", "start", "state", "kill+delete", "create..delete", "run", "exec"];

struct Runtime {
    name: String,
    program: PathBuf,
    words: Vec<String>,
    /// Milliseconds, by what was done.
    times: [Vec<f64>; 7],
}

fn main() {
    let (mut rounds, mut runtimes, mut seccomp) = (100, Vec::new(), true);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => {
                rounds = args.next().or_fail("find a number").parse().or_fail("read --rounds")
            }
            "--no-seccomp" => seccomp = false,
            "--runtime" => runtimes.push(args.next().or_fail("find NAME=PROGRAM")),
            _ => panic!("oci_bench [--rounds N] [--no-seccomp] [--runtime NAME=PROGRAM…]"),
        }
    }
    if runtimes.is_empty() {
        for name in ["crun", "runc"] {
            let found = shell::run("sh", ["-c", &format!("command -v {name}")]);
            if found.code == 0 {
                runtimes.push(format!("{name}={}", found.stdout.trim()));
            }
        }
    }
    let hull = hull_tests::bundle::runtime();
    let hull_words = hull.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut all = vec![Runtime::new("hull", hull.get_program().into(), hull_words)];
    for of in &runtimes {
        let (name, program) = of.split_once('=').or_fail("read NAME=PROGRAM");
        all.push(Runtime::new(name, program.into(), Vec::new()));
    }
    let bundle = prepared(seccomp);
    for round in 0..=rounds {
        for at in 0..all.len() {
            // In turn who is first; the first round warms up.
            let of = (at + round) % all.len();
            all[of].round(&bundle, round > 0);
        }
    }
    table(&all, rounds);
}

fn prepared(seccomp: bool) -> Bundle {
    let bundle = Bundle::new();
    bundle.change(|config| {
        // What older releases take.
        config["ociVersion"] = "1.0.2".into();
        config["process"]["args"] = json!(["sleep", "100000"]);
        if seccomp {
            let denied: Vec<_> = DENIED.iter().collect();
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": denied, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            });
        }
    });
    let short = PathBuf::from(bundle.path()).with_file_name("short");
    let _said = shell::run("cp", ["-a", &bundle.path(), &short.display().to_string()]).good();
    let text = std::fs::read_to_string(short.join("config.json")).or_fail("read config.json");
    let text = text.replace(r#"["sleep","100000"]"#, r#"["true"]"#);
    std::fs::write(short.join("config.json"), text).or_fail("write config.json");
    bundle
}

const DENIED: [&str; 24] = [
    "acct",
    "add_key",
    "bpf",
    "delete_module",
    "finit_module",
    "init_module",
    "ioperm",
    "iopl",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "move_pages",
    "open_by_handle_at",
    "perf_event_open",
    "pivot_root",
    "ptrace",
    "reboot",
    "request_key",
    "setns",
    "swapoff",
    "swapon",
    "umount2",
    "unshare",
];

impl Runtime {
    fn new(name: &str, program: PathBuf, words: Vec<String>) -> Self {
        Self { name: name.into(), program, words, times: Default::default() }
    }

    /// Runs it; milliseconds.
    fn timed(&self, bundle: &Bundle, words: &[&str]) -> f64 {
        let root = bundle.scratch().join(&self.name);
        let mut command = Command::new(&self.program);
        command.args(&self.words).arg("--root").arg(&root).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let began = Instant::now();
        let status = command.status().or_fail(format!("run {}", self.name));
        let took = began.elapsed().as_secs_f64() * 1000.0;
        assert!(status.success(), "{} {words:?}: {status}", self.name);
        took
    }

    fn round(&mut self, bundle: &Bundle, counts: bool) {
        let long = bundle.path();
        let short = PathBuf::from(&long).with_file_name("short").display().to_string();
        let create = self.timed(bundle, &["create", "--bundle", &long, "one"]);
        let start = self.timed(bundle, &["start", "one"]);
        let state = self.timed(bundle, &["state", "one"]);
        let exec = self.timed(bundle, &["exec", "one", "true"]);
        let delete = self.timed(bundle, &["delete", "--force", "one"]);
        let run = self.timed(bundle, &["run", "--bundle", &short, "two"]);
        if counts {
            let all = [create, start, state, delete, create + start + delete, run, exec];
            for (times, took) in self.times.iter_mut().zip(all) {
                times.push(took);
            }
        }
    }
}

fn quantile(times: &[f64], part: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let at = ((sorted.len() - 1) as f64 * part).round() as usize;
    sorted[at]
}

fn table(all: &[Runtime], rounds: usize) {
    say(&format!("{rounds} rounds, milliseconds: median (p95), and how many times hull's median"));
    let names: Vec<_> = all.iter().map(|of| format!("{:>24}", of.name)).collect();
    say(&format!("{:<16}{}", "", names.join("")));
    for (at, what) in WORK.iter().enumerate() {
        let hull = quantile(&all[0].times[at], 0.5);
        let cells = all.iter().map(|of| {
            let (median, p95) = (quantile(&of.times[at], 0.5), quantile(&of.times[at], 0.95));
            format!("{:>24}", format!("{median:.2} ({p95:.2}) {:.2}x", median / hull))
        });
        say(&format!("{what:<16}{}", cells.collect::<String>()));
    }
}
