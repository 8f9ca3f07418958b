// SPDX-License-Identifier: Apache-2.0
//! The adversary: tries to get out of containers of every shape, and checks from inside and from outside that
//! each has what was asked for and nothing else.
//!
//! | file | what is attacked |
//! |---|---|
//! | `execve` | descriptors that are open when a program's path is resolved |
//! | `shapes` | what containers of every shape see and may do |
//! | `mount_points` | images whose /proc, /sys, /dev … are links or files |
//! | `leaderless` | processes that do not want to end |
//! | `devices` | device nodes, volumes at /dev, the files behind the standard streams |
//! | `races` | processes on their way into a container |
//! | `monitor` | the monitors of pods: their sockets, and the program that all of them run |
//! | `kernel` | system calls, socket families, keys |
//! | `registry` | a registry that lies |
//! | `client` | a client of the CRI that sends anything |
//! | `memory` | clients that ask for more than the daemon has |
//! | `neighbours` | what a part that hangs costs other pods |
//! | `fuzz` | thousands of requests that look valid, for every method |
//! | `images` | images that are small as they travel and cost a lot to take |
//! | `soak` | everything around pods, killed and stopped while they come and go |
//! | `hammer` | fifty clients that use one container with every verb at once |
//!
//! `make adversary` sets ADVERSARY_ROUNDS to run each race that many times; without it the short form runs.

mod auditor;
mod client;
mod devices;
mod execve;
mod fuzz;
mod hammer;
mod host_view;
mod images;
mod kernel;
mod leaderless;
mod memory;
mod monitor;
mod mount_points;
mod neighbours;
#[cfg(target_arch = "x86_64")]
mod pause;
mod races;
mod registry;
mod shapes;
mod soak;
mod trace;

/// How often a race is run: `ADVERSARY_ROUNDS`, else a number for every day.
fn rounds() -> u32 {
    let told = std::env::var("ADVERSARY_ROUNDS").ok().and_then(|text| text.parse().ok());
    told.unwrap_or(40)
}

/// How often something is done that has a number of its own for the 500 rounds of `make adversary`: `long`, in proportion
/// to `ADVERSARY_ROUNDS`, else `short`.
fn scaled(short: u32, long: u32) -> u32 {
    let told = std::env::var("ADVERSARY_ROUNDS").ok().and_then(|text| text.parse::<u32>().ok());
    told.map_or(short, |rounds| long.saturating_mul(rounds) / 500)
}
