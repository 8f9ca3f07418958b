// SPDX-License-Identifier: Apache-2.0
//! The race for processes that are just being created: every process in /proc is visited as soon as it is there.
//!
//! The pids that come next are tried before they show in a listing, by several threads, each of which only makes
//! system calls.

use crate::output::print_line;
use std::fs;

/// How many pids after the newest process are tried.
const AHEAD: u32 = 6;
/// How often they are tried between two listings: a listing takes longer than a process needs to be created.
const TRIES: u32 = 200;
const THREADS: u32 = 3;

/// Calls `visit` with every pid, on several threads, until the auditor is killed. Prints `ready` first.
pub(crate) fn visit_all(visit: impl Fn(u32) + Clone + Send + 'static) -> ! {
    print_line("ready");
    for _ in 1..THREADS {
        let visit = visit.clone();
        std::thread::spawn(move || visit_forever(visit));
    }
    visit_forever(visit)
}

fn visit_forever(visit: impl Fn(u32)) -> ! {
    let mut newest = 0;
    loop {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
        newest = pids.inspect(|pid| visit(*pid)).max().unwrap_or(newest);
        for _ in 0..TRIES {
            (newest + 1..=newest + AHEAD).for_each(&visit);
        }
    }
}
