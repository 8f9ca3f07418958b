// SPDX-License-Identifier: Apache-2.0
//! Plans on a real kernel: a busybox root, real namespaces, real cgroups.
//!
//! The rule: every test leaves mounts, cgroups and children as they were, and fails otherwise. The
//! tests run one after the other in one thread, in a mount namespace of their own, as the monitor
//! does; so this has a runner of its own. Arguments are parts of the names of tests to run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test; clippy knows only those of libtest as such"
)]

mod exec;
mod failures;
mod fixture;
mod identity;
mod isolation;
mod pod;
mod root;
mod terminal;
mod users;
mod volumes;

use fixture::Fixture;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

type Test = (&'static str, fn(&Fixture));

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    let list = wanted.iter().any(|arg| arg == "--list");
    wanted.retain(|arg| !arg.starts_with('-'));
    let tests = [
        root::TESTS,
        identity::TESTS,
        exec::TESTS,
        failures::TESTS,
        pod::TESTS,
        users::TESTS,
        volumes::TESTS,
        isolation::TESTS,
        terminal::TESTS,
    ]
    .concat();
    let chosen: Vec<Test> = tests
        .into_iter()
        .filter(|(name, _)| {
            wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()))
        })
        .collect();
    if list {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if let Some(missing) = fixture::missing() {
        println!("NOT RUN: this machine lacks {missing}");
        let must = std::env::var_os("TESTS_MUST_RUN").is_some();
        return if must { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    fixture::own_mount_namespace();
    println!("\nrunning {} tests", chosen.len());
    let mut failed = Vec::new();
    for (name, test) in &chosen {
        let passed = catch_unwind(AssertUnwindSafe(|| test(&Fixture::new()))).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(*name);
        }
    }
    println!(
        "\ntest result: {} passed; {} failed {failed:?}\n",
        chosen.len() - failed.len(),
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
