// SPDX-License-Identifier: Apache-2.0
//! The adversary: tries to get out of containers of every shape, and checks from inside and from outside that
//! each has what was asked for and nothing else.
//!
//! | file | what is attacked |
//! |---|---|
//! | `execve` | descriptors that are open when a program's path is resolved |
//! | `shapes` | what containers of every shape see and may do |
//! | `places` | images whose /proc, /sys, /dev … are links or files |
//! | `ending` | processes that do not want to end |
//! | `devices` | device nodes, volumes at /dev, the files behind the standard streams |
//! | `races` | processes on their way into a container |
//! | `monitor` | the monitors of pods: their sockets, and the program that all of them run |
//! | `kernel` | system calls, socket families, keys |
//! | `registry` | a registry that lies |
//! | `client` | a client of the CRI that sends anything |
//! | `memory` | clients that ask for more than the daemon has |
//! | `neighbours` | what a part that hangs costs other pods |
//!
//! `make adversary` sets ADVERSARY_ROUNDS to run each race that many times; without it the short form runs.

mod auditor;
mod client;
mod devices;
mod ending;
mod execve;
mod kernel;
mod memory;
mod monitor;
mod neighbours;
mod outside;
mod places;
mod races;
mod registry;
mod shapes;
mod trace;

/// How often a race is run: `ADVERSARY_ROUNDS`, else a number for every day.
fn rounds() -> u32 {
    let told = std::env::var("ADVERSARY_ROUNDS").ok().and_then(|text| text.parse().ok());
    told.unwrap_or(40)
}
