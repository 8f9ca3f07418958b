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
//! It outlives the daemon, and keeps every exit until the daemon has deleted the container. One thread, no
//! blocking call but the clones themselves; buffers only while data flows. It opens no path that a
//! request names: requests carry descriptors. The one name is that of a log that it rotates, in a directory whose
//! descriptor it has.
//!
//! It does not decide what to start: that is in the plan.

mod attach;
mod connection;
mod containers;
mod daemon;
mod draining;
mod event_loop;
mod execs;
mod exit;
mod hook_runs;
mod hooks;
mod journal;
mod last_output;
pub mod limits;
pub mod log;
mod log_buffer;
mod log_file;
mod log_gate;
mod log_rate;
mod log_rotation;
mod log_rules;
mod log_stream;
mod memory_watch;
mod monitor;
mod newcomers;
mod out_of_memory;
mod pause;
mod peer;
mod pending_start;
mod requests;
mod setup;
mod starts;
mod stdio;

use hull_proto::monitor::{HOOKS_OUTPUT_FD, LISTEN_FD, USER_NAMESPACES_WORK};
use std::os::fd::AsFd as _;

/// Tries whether pods can have user namespaces, with `layers` as a root's lower layers, and sends the result to the
/// daemon.
///
/// # Errors
/// A sentence, to be read after "cannot", when the result cannot be sent.
pub fn try_user_namespaces(layers: &[String]) -> Result<(), String> {
    let daemon = hull_sys::inherited(LISTEN_FD)
        .ok_or_else(|| format!("find descriptor {LISTEN_FD}, to send the result"))?;
    let answer = match hull_init::try_user_namespaces(layers) {
        Ok(()) => USER_NAMESPACES_WORK.to_owned(),
        Err(error) => {
            format!("{}: {}", error.call, std::io::Error::from_raw_os_error(error.errno))
        }
    };
    let sent = rustix::io::write(&daemon, answer.as_bytes());
    sent.map(drop).map_err(|errno| format!("send the result to the daemon: {errno}"))
}

/// Runs the poststop hooks of a container whose monitor is gone, if they have not run, and sends what failed to the
/// daemon.
///
/// # Errors
/// A sentence, to be read after "cannot", when they could not be run.
pub fn run_poststop() -> Result<(), String> {
    let inherited = |fd: i32| {
        hull_sys::inherited(fd)
            .ok_or_else(|| format!("find descriptor {fd}, to run poststop hooks"))
    };
    let (dir, daemon) = (inherited(LISTEN_FD)?, inherited(HOOKS_OUTPUT_FD)?);
    // What the daemon was started with is not for hooks.
    let _kept = hull_sys::reset_inherited();
    let failed = hull_init::hook_process::run_owed(dir.as_fd()).map_err(|error| {
        format!("{}: {}", error.call, std::io::Error::from_raw_os_error(error.errno))
    })?;
    // A daemon that is gone does not need it.
    let _gone = rustix::io::write(&daemon, failed.as_bytes());
    Ok(())
}

/// Serves one pod until it is shut down.
///
/// # Errors
/// A sentence, to be read after "cannot", when it could not start.
pub fn run(pod: &str) -> Result<(), String> {
    let monitor = setup::prepare(pod)?;
    monitor.serve()
}
