// SPDX-License-Identifier: Apache-2.0
//! The real monitor over its socket, with real containers on this machine's kernel.
//!
//! A test fails if it leaves cgroups or processes behind; see [`support::Pod`].

#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    reason = "a test expects one case and fails on the rest"
)]
#![allow(clippy::unwrap_used, reason = "also helpers of tests fail by panicking")]

mod classes;
mod containers;
mod daemons;
mod execs;
mod output;
mod pods;
#[path = "../support/mod.rs"]
mod support;

use hull_init::StepError;
use hull_init::plan::Op;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Failure, ProcessState};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use support::{Client, Pod, container_id, eventually};

fn pod() -> Option<Pod> {
    Pod::start(Path::new(env!("CARGO_BIN_EXE_hull-monitor")))
}

/// Puts a container's program on hold until [`go`]: it reads a line from a FIFO first.
fn on_hold(pod: &Pod, name: &str) -> String {
    let fifo = pod.shared().join(name);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    format!("read go < /shared/{name};")
}

fn go(pod: &Pod, name: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let fifo = pod.shared().join(name);
    // Without blocking: a container that has ended must fail the test, not hang it.
    let mut fifo = eventually("the container reads", || {
        File::options().write(true).custom_flags(nonblock).open(&fifo).ok()
    });
    fifo.write_all(b"go\n").unwrap();
}

fn process_state(client: &mut Client, id: &ContainerId) -> Option<ProcessState> {
    client.hello().containers.into_iter().find(|(of, _)| of == id).map(|(_, fact)| fact)
}

fn step_of(failure: Failure) -> StepError {
    match failure {
        Failure::Step(bytes) => borsh::from_slice(&bytes).unwrap(),
        other => panic!("no step failed, but {other:?}"),
    }
}

fn seq(last: u32) -> Vec<u8> {
    (1..=last).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

fn empty_plan(pod: &Pod) -> hull_init::Plan {
    let mut plan = pod.plan(&container_id(), "exit 0");
    plan.ops = vec![Op::Pivot];
    plan
}
