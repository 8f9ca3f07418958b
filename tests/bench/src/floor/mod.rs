// SPDX-License-Identifier: Apache-2.0
//! The kernel floor: what a pod's start and an exec cost when a bare program does the least that they
//! need: clones into the same namespaces, a veth pair on a bridge, the same mounts, the exec.
//!
//! It has no cgroups, no seccomp filter, no masks, no records, no second process that speaks gRPC: a
//! runtime that does its whole duty stays above it. Medians of a runtime are given as multiples of it.
//!
//! ```text
//! cri-bench ── execs itself, single-threaded (it clones) ── pod: pause child, container child
//!           ◄─ one line of JSON: samples by metric
//! ```

mod link;
mod pod;
mod program;

use crate::samples::Sink;
use crate::work::Work;
use crate::{Error, Result};
use hull_tests::shell::say;
use pod::{Floor, Pod};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The label of its column in the report.
pub const LABEL: &str = "kernel floor";

/// Execs per pod.
const EXECS: usize = 5;

/// The smallest program that waits until it is killed.
pub(crate) fn waiting_program() -> Vec<u8> {
    program::wait()
}

/// Measures the floor of `work` in a process of its own.
///
/// # Errors
/// When that process fails.
pub async fn measure(work: Work, lives: usize, sink: &mut Sink<'_>) -> Result<()> {
    let failed = |said: String| Error::Floor { said };
    let me = std::env::current_exe().map_err(|err| failed(err.to_string()))?;
    let lives = lives.to_string();
    let ran = tokio::process::Command::new(me).args(["--be-the-floor", &lives]).output().await;
    let ran = ran.map_err(|err| failed(err.to_string()))?;
    let said = String::from_utf8_lossy(&ran.stdout);
    let Ok(times) = serde_json::from_str::<Value>(&said) else {
        return Err(failed(String::from_utf8_lossy(&ran.stderr).trim().to_owned()));
    };
    let mut add = |of: &str, metric: &str| {
        for value in times[of].as_array().into_iter().flatten().filter_map(Value::as_f64) {
            sink.add(metric, crate::samples::Unit::Ms, value);
        }
    };
    match work {
        Work::Pods => {
            add("up", "pod up");
            add("down", "pod down");
        }
        Work::HostPods => add("host_up", "pod up"),
        Work::Exec => add("exec", "ExecSync true"),
        Work::Parallel
        | Work::Memory
        | Work::Lists
        | Work::Restart
        | Work::Pull
        | Work::Logs
        | Work::Stream
        | Work::Idle
        | Work::Growth => {}
    }
    Ok(())
}

/// Runs as the bare program: starts and ends so many pods, and prints their times as JSON.
#[must_use]
pub fn run(lives: usize) -> ExitCode {
    match measured(lives) {
        Ok(times) => {
            say(&times.to_string());
            ExitCode::SUCCESS
        }
        Err(err) => {
            crate::output::progress(&format!("cannot {err}"));
            ExitCode::FAILURE
        }
    }
}

fn measured(lives: usize) -> hull_sys::Result<Value> {
    let floor = Floor::new()?;
    let (mut up, mut down, mut host_up, mut exec) = (vec![], vec![], vec![], vec![]);
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    // The first life of each kind fills caches.
    for life in 0..=lives {
        let began = Instant::now();
        let pod = Pod::start(&floor, true)?;
        let started = began.elapsed();
        for _ in 0..EXECS {
            let began = Instant::now();
            pod.exec()?;
            if life > 0 {
                exec.push(ms(began.elapsed()));
            }
        }
        let began = Instant::now();
        pod.end()?;
        if life > 0 {
            up.push(ms(started));
            down.push(ms(began.elapsed()));
        }
        let began = Instant::now();
        let pod = Pod::start(&floor, false)?;
        if life > 0 {
            host_up.push(ms(began.elapsed()));
        }
        pod.end()?;
    }
    Ok(json!({"up": up, "down": down, "host_up": host_up, "exec": exec}))
}
