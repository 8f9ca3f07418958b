// SPDX-License-Identifier: Apache-2.0
//! Reaping of the monitors that this daemon has started. How they ended does not matter: they are
//! known by their connections. Those of an earlier daemon are not our children.
//!
//! Each monitor is waited for by its process id, not all children of the process: network plugins are
//! children too, and their callers need their exit codes.

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// The monitors that have not been reaped yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Reaper {
    running: Arc<Mutex<HashSet<Pid>>>,
    more: Arc<Notify>,
}

impl Reaper {
    /// Reaps in the background, whenever a child has ended.
    pub(super) fn start() -> io::Result<Self> {
        let mut ended = signal(SignalKind::child())?;
        let this = Self::default();
        let own = this.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = ended.recv() => {}
                    // It may have ended before it was known.
                    () = own.more.notified() => {}
                }
                own.reap();
            }
        });
        Ok(this)
    }

    /// Has a child reaped once it has ended.
    pub(super) fn take(&self, pid: i32) {
        let Some(pid) = Pid::from_raw(pid) else { return };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
        self.more.notify_one();
    }

    fn reap(&self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let runs = |pid: &Pid| match waitid(WaitId::Pid(*pid), options) {
            Ok(ended) => ended.is_none(),
            Err(errno) => errno == Errno::INTR,
        };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).retain(runs);
    }
}
