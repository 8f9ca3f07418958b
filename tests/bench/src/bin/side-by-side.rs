// SPDX-License-Identifier: Apache-2.0
//! `make bench`: starts Hull and the other runtimes that are installed, and measures them with `cri-bench`.
//!
//! `side-by-side [--label RUNTIME]… [ARGS OF cri-bench]`; a label chooses a runtime, without one all run.

use clap::Parser as _;
use cri_bench::args::Args;
use cri_bench::testbed;
use hull_tests::ExpectExt as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let all: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.or_fail("make a runtime");
    let code = match all.split_first() {
        Some((first, args)) if first == testbed::INSIDE => {
            runtime.block_on(testbed::inside(args, &parsed(args)))
        }
        _ => {
            // Refused here, before anything is started.
            let _parsed = parsed(&all);
            runtime.block_on(testbed::outside(&all))
        }
    };
    ExitCode::from(code)
}

fn parsed(args: &[String]) -> Args {
    Args::parse_from(std::iter::once("side-by-side").chain(args.iter().map(String::as_str)))
}
