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
use crate::{Error, Result, floor, isolation};
use hull_tests::shell::say;
use std::path::{Path, PathBuf};

/// Longest part of a label in a path.
const LABEL_MAX: usize = 40;

/// Measures what was asked for.
///
/// # Errors
/// When an endpoint cannot be used at all, or a report not written.
pub async fn run(args: &Args) -> Result<Measured> {
    let logs = args.logs.clone().unwrap_or_else(default_logs);
    let mut targets = Vec::new();
    for (number, mut endpoint) in args.endpoints().unwrap_or_default().into_iter().enumerate() {
        if endpoint.label.is_empty() {
            endpoint.label = format!("endpoint {}", number + 1);
        }
        endpoint.label.truncate(LABEL_MAX);
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
        match isolation::look(target).await {
            Ok(lacks) => measured.lacks(label, &lacks),
            Err(err) => measured.note(label, "isolation", err.chain()),
        }
    }
    for round in 0..size.rounds {
        for work in &works {
            for (number, target) in targets.iter().enumerate() {
                let began = std::time::Instant::now();
                let context =
                    Context { target, size: &size, round, pull_images: &args.pull_images };
                let mut sink = measured.samples.sink(number, work.name());
                let mut done = work.run(&context, &mut sink).await;
                if let Err(err) = target.clear().await {
                    done = done.and(Err(err));
                }
                let label = &target.endpoint.label;
                let took = began.elapsed().as_secs_f64();
                report::progress(&format!(
                    "round {}/{}: {} of {label}: {took:.1} s",
                    round + 1,
                    size.rounds,
                    work.name()
                ));
                if let Err(err) = done {
                    measured.note(label, work.name(), err.chain());
                }
            }
            if !args.no_floor {
                of_kernel(*work, size.lives, targets.len(), &mut measured.samples)
                    .await
                    .unwrap_or_else(|err| {
                        measured.note(floor::LABEL, work.name(), err.chain());
                    });
            }
        }
    }
}

/// Measures the floor of `work`, where there is one, as one more target.
async fn of_kernel(work: Work, lives: usize, number: usize, samples: &mut Samples) -> Result<()> {
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
