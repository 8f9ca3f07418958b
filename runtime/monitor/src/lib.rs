// SPDX-License-Identifier: Apache-2.0
//! The per-pod process: parent of everything in the pod.
//!
//! ```text
//! daemon ── requests ──▶ loop (epoll) ──▶ clone, signal, cgroup
//!        ◀── replies, exits ──┤
//! children end ── SIGCHLD ────┤
//! output ── pipes, pty ───────┴──▶ log files, CRI format
//! ```
//!
//! It outlives the daemon and keeps what happened until the daemon has taken it. One thread, no
//! blocking call but the clones themselves; buffers only while data flows. It opens no path that a
//! request names: descriptors come along.
//!
//! Not here: what to start, or why. That is in the plan.

mod attach;
mod connection;
mod frame;
pub mod log;
mod monitor;
mod processes;
mod setup;
mod verbs;

pub use frame::Frames;

/// Serves one pod until it is shut down.
///
/// # Errors
/// A sentence, to be read after "cannot", when it could not start.
pub fn run(pod: &str) -> Result<(), String> {
    let monitor = setup::prepare(pod)?;
    monitor.serve()
}
