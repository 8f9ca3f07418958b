// SPDX-License-Identifier: Apache-2.0
//! `make conformance`: critest in full, on a node of its own, in every mode.
//!
//! `conformance [MODE …] [-- ARGS OF CRITEST]`; without a mode, all of them. With arguments for
//! critest (`-ginkgo.focus=…`) only part of the suite runs, and the list of skips is not held against it.

use hull_tests::shell::say;
use hull_tests::suite::images;
use hull_tests::suite::report::Ended;
use hull_tests::suite::run::{Mode, Suite, tools};
use hull_tests::{ExpectExt as _, fixture, paths};
use std::fs;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut parts = args.splitn(2, |arg| arg == "--");
    let named = parts.next().unwrap_or_default();
    let more = parts.next().unwrap_or_default();
    let mut modes = Vec::new();
    for name in named {
        let Some(mode) = Mode::ALL.iter().find(|(known, _)| known == name) else {
            say(&format!("error: no mode {name:?}\nhint: serial, websocket, parallel or handler"));
            return ExitCode::FAILURE;
        };
        modes.push(*mode);
    }
    if modes.is_empty() {
        modes = Mode::ALL.to_vec();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let good = runtime.or_fail("make a runtime").block_on(conformance(&modes, more));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn conformance(modes: &[(&'static str, Mode)], more: &[String]) -> bool {
    let began = Instant::now();
    let registry = fixture::registry();
    let pushed = images::push_all(registry);
    let dir = paths::fixtures().join("critest");
    fs::create_dir_all(&dir).or_fail(format!("make {}", dir.display()));
    let suite = Suite::prepare(&tools(), &dir, registry, &pushed);
    say(&format!("images made and pushed: {:.1?}", began.elapsed()));
    let mut good = true;
    for (name, mode) in modes {
        let began = Instant::now();
        let log = paths::logs().join(format!("critest-{name}.log"));
        let report = suite.run(*mode, more, &log).await;
        say(&format!(
            "\ncritest, {name}: {:.1?}; its log: {}\n{report}",
            began.elapsed(),
            log.display()
        ));
        let wrong = if more.is_empty() { report.wrong() } else { failed(&report.specs) };
        for line in &wrong {
            say(&format!("  {line}"));
        }
        good &= wrong.is_empty();
    }
    good
}

fn failed(specs: &std::collections::BTreeMap<String, Ended>) -> Vec<String> {
    let failures = specs.iter().filter(|(_, ended)| matches!(ended, Ended::Failed(_)));
    failures.map(|(name, ended)| format!("{name}: {ended:?}")).collect()
}
