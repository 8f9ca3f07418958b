// SPDX-License-Identifier: Apache-2.0
//! The program `cri-bench`; see the library.

use clap::Parser as _;
use cri_bench::args::Args;
use cri_bench::output::progress;
use cri_bench::{floor, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(lives) = args.be_the_floor {
        // Before there are threads: it clones.
        return floor::run(lives);
    }
    if let Err(wrong) = args.endpoints() {
        progress(&format!("error: {wrong}"));
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => {
            progress(&format!("error: cannot start the tokio runtime: {err}"));
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        let measured = run::run(&args).await?;
        run::publish(&args, &measured)?;
        Ok::<bool, cri_bench::Error>(!measured.failed)
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            progress(&format!("error: {}", err.chain()));
            ExitCode::FAILURE
        }
    }
}
