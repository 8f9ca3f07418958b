// SPDX-License-Identifier: Apache-2.0
//! The order of everything: targets are opened and looked at, then each round does each work for each
//! target in turn, so that what the machine does meanwhile falls on all of them alike.
//!
//! A work that fails is noted and the rest goes on. Pods are taken away after each work, and when the
//! run is interrupted.

use crate::args::Args;
use crate::report::{self, Measured, Note};
use crate::samples::Samples;
use crate::target::Target;
use crate::work::{Context, Work};
use crate::{Error, Result, floor, isolation, output};
use hull_tests::shell::say;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Measures what was asked for.
///
/// # Errors
/// When an endpoint cannot be used at all, or a report not written.
pub async fn run(args: &Args) -> Result<Measured> {
    let logs = args.logs.clone().unwrap_or_else(default_logs);
    let mut targets = Vec::new();
    for endpoint in args.endpoints().unwrap_or_default() {
        targets.push(Target::open(endpoint, &logs, &args.image).await?);
    }
    let mut measured = Measured::of(args, &targets);
    tokio::select! {
        () = measure(args, &targets, &mut measured) => {}
        _ = tokio::signal::ctrl_c() => measured.note("", "", "interrupted: what is here was measured before".into()),
    }
    for target in &targets {
        if let Err(err) = target.clear().await {
            measured.note(&target.endpoint.label, "", err.chain());
        }
    }
    remove(&logs)?;
    Ok(measured)
}

fn default_logs() -> PathBuf {
    Path::new("/var/tmp").join(format!("cri-bench-{}", std::process::id()))
}

fn remove(logs: &Path) -> Result<()> {
    match std::fs::remove_dir_all(logs) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { act: "remove", path: logs.to_owned(), source: err })
        }
        _ => Ok(()),
    }
}

async fn measure(args: &Args, targets: &[Target], measured: &mut Measured) {
    let (size, works) = (args.size(), args.works());
    for target in targets {
        let label = &target.endpoint.label;
        match isolation::check(target).await {
            Ok(missing) => measured.missing_isolation(label, &missing),
            Err(err) => measured.note(label, "isolation", err.chain()),
        }
    }
    for round in 0..size.rounds {
        for work in &works {
            for (number, target) in targets.iter().enumerate() {
                let pull_images = &args.pull_images;
                let context = Context { target, size: &size, round, pull_images };
                one(*work, &context, number, measured).await;
            }
            let of_floor = async {
                if args.no_floor {
                    return Ok(());
                }
                measure_floor(*work, size.lives, targets.len(), &mut measured.samples).await
            };
            if let Err(err) = of_floor.await {
                measured.note(floor::LABEL, work.name(), err.chain());
            }
        }
    }
}

/// Does one work once for one target, and takes its pods away.
async fn one(work: Work, context: &Context<'_>, number: usize, measured: &mut Measured) {
    let began = Instant::now();
    let mut sink = measured.samples.sink(number, work.name());
    let mut done = work.run(context, &mut sink).await;
    if let Err(err) = context.target.clear().await {
        done = done.and(Err(err));
    }
    let label = &context.target.endpoint.label;
    let (round, rounds) = (context.round + 1, context.size.rounds);
    let took = began.elapsed().as_secs_f64();
    output::progress(&format!("round {round}/{rounds}: {} of {label}: {took:.1} s", work.name()));
    if let Err(err) = done {
        measured.note(label, work.name(), err.chain());
    }
}

/// Measures the floor of `work`, where there is one, as one more target.
async fn measure_floor(
    work: Work,
    lives: usize,
    number: usize,
    samples: &mut Samples,
) -> Result<()> {
    if matches!(work, Work::Pods | Work::HostPods | Work::Exec) {
        floor::measure(work, lives, &mut samples.sink(number, work.name())).await?;
    }
    Ok(())
}

/// Prints the report and writes what files were asked for.
///
/// # Errors
/// When a file cannot be written.
pub fn publish(args: &Args, measured: &Measured) -> Result<()> {
    say(&report::table(measured));
    if let Some(path) = &args.json {
        report::write(path, &report::json(measured))?;
    }
    if let Some(dir) = &args.svg {
        for (name, chart) in report::charts(measured) {
            report::write(&dir.join(name), &chart)?;
        }
    }
    for Note { label, work, text } in &measured.notes {
        say(&format!("note: {label} {work}: {text}"));
    }
    Ok(())
}
