// SPDX-License-Identifier: Apache-2.0
//! The signals that neither end nor stop the daemon: SIGHUP has it read its configuration, SIGUSR1 has it write its
//! operations to the log, and the others, which kill a process that says nothing about them, do nothing.
//!
//! SIGTERM and SIGINT are [`StopRequests`](super::stop_requests::StopRequests); SIGQUIT, SIGABRT and the signals of
//! faults keep their actions, for people and supervisors who want a core.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that end a process by default, and are without a meaning here.
const WITHOUT_MEANING: [&str; 9] =
    ["USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "XCPU", "XFSZ"];

/// The real-time signals that programs may use.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The signals with a meaning.
#[derive(Debug)]
pub(super) struct Signals {
    hang_up: Signal,
    user: Signal,
}

/// The meaning of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Reload,
    Dump,
}

impl Signals {
    /// Survives signals from now on. Processes that are started begin with the default actions: an exec drops
    /// handlers.
    ///
    /// # Errors
    /// `sigaction(2)` fails.
    pub(super) fn survive() -> io::Result<Self> {
        let numbers = WITHOUT_MEANING.iter().filter_map(|name| hull_plan::signals::number(name));
        for number in numbers.chain(REAL_TIME) {
            // The handler stays when nobody listens.
            drop(signal(SignalKind::from_raw(number))?);
        }
        hull_sys::ignore_terminal_stops().map_err(io::Error::other)?;
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next request. Cancel safe.
    pub(super) async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.hang_up.recv() => Request::Reload,
            _ = self.user.recv() => Request::Dump,
        }
    }
}
