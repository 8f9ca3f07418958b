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
mod ending;
pub mod limits;
pub mod log;
mod losses;
mod monitor;
mod newcomers;
mod peer;
mod processes;
mod setup;
mod text;
mod verbs;

use hull_proto::monitor::{LISTEN_FD, USER_NAMESPACES_WORK};

/// Finds out whether pods can have user namespaces, with `layers` as a root's lower layers, and tells
/// the daemon.
///
/// # Errors
/// A sentence, to be read after "cannot", when the daemon cannot be told.
pub fn try_user_namespaces(layers: &[String]) -> Result<(), String> {
    let daemon = hull_sys::inherited(LISTEN_FD)
        .ok_or_else(|| format!("find descriptor {LISTEN_FD}, to tell what it found"))?;
    let answer = match hull_init::try_user_namespaces(layers) {
        Ok(()) => USER_NAMESPACES_WORK.to_owned(),
        Err(error) => {
            format!("{}: {}", error.call, std::io::Error::from_raw_os_error(error.errno))
        }
    };
    let told = rustix::io::write(&daemon, answer.as_bytes());
    told.map(drop).map_err(|errno| format!("tell the daemon: {errno}"))
}

/// Serves one pod until it is shut down.
///
/// # Errors
/// A sentence, to be read after "cannot", when it could not start.
pub fn run(pod: &str) -> Result<(), String> {
    let monitor = setup::prepare(pod)?;
    monitor.serve()
}
