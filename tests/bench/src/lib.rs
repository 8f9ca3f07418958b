// SPDX-License-Identifier: Apache-2.0
//! `cri-bench`: the same work for any CRI socket, so that runtimes are compared on one's own node.
//!
//! ```text
//! args → run: for each round, each work, each target in turn ─┬→ samples → report (table, JSON, SVG)
//!                     work/*.rs: what is done and timed  ─────┘
//!                     target: one socket, its pods    cpu, memory: what the runtime uses
//! ```
//!
//! The rule: targets get the same requests, and what is timed is what a kubelet waits for, from the
//! request to the answer. It starts no runtime; `bin/side-by-side` does, for `make bench`.

pub mod args;
pub mod cpu;
pub mod error;
pub mod floor;
pub mod isolation;
pub mod memory;
pub mod output;
pub mod report;
pub mod run;
pub mod samples;
pub mod size;
pub mod target;
pub mod testbed;
pub mod work;

pub use error::Error;

/// The result of everything here that may fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
