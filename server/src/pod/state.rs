// SPDX-License-Identifier: Apache-2.0
//! The state machine of a pod (pure).
//!
//! ```text
//!  Building ──Built──▶ Ready ──StopAsked/SandboxLost──▶ Stopping ──TornDown──▶ Stopped ─▶ gone
//!      └──────────BuildFailed/StopAsked────────────────────┘  ▲
//!                                          a teardown that fails stays here (NOTREADY) and is tried again
//! ```
//!
//! No clock, no disk, no kernel. The pod's task records the answer, then acts on it.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A pod's state, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Its setup is in progress.
    Building,
    /// Containers may run in it.
    Ready {
        /// The pause process, in the host's pid namespace.
        pause_pid: i32,
        /// Its own addresses, the main one first; empty on the host's network.
        ips: Vec<IpAddr>,
    },
    /// Its teardown is in progress, or has failed.
    Stopping,
    /// Nothing of it is left on the host but its record, its logs and its containers' records; its links
    /// go within a moment, and its addresses are kept until then.
    Stopped,
}

/// An event in the life of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// All parts are there.
    Built { pause_pid: i32, ips: Vec<IpAddr> },
    /// A part could not be made.
    BuildFailed,
    /// StopPodSandbox or RemovePodSandbox.
    StopAsked,
    /// The pause process or the monitor ended by itself.
    SandboxLost,
    /// All parts are gone.
    TornDown,
}

/// An event that makes no sense in that state: a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pod that is {from} cannot take {event}")]
pub(crate) struct Refused {
    from: &'static str,
    event: &'static str,
}

impl State {
    /// Decides what `event` does.
    pub(crate) fn next(self, event: &Event) -> Result<Self, Refused> {
        match (self, event) {
            (Self::Building, Event::Built { pause_pid, ips }) => {
                Ok(Self::Ready { pause_pid: *pause_pid, ips: ips.clone() })
            }
            (
                Self::Building | Self::Ready { .. } | Self::Stopping,
                Event::StopAsked | Event::SandboxLost,
            )
            | (Self::Building, Event::BuildFailed) => Ok(Self::Stopping),
            // Asked again, or told late: it is stopped.
            (Self::Stopped, Event::StopAsked | Event::SandboxLost | Event::TornDown)
            | (Self::Stopping, Event::TornDown) => Ok(Self::Stopped),
            (from, event) => Err(Refused { from: from.name(), event: event.name() }),
        }
    }

    /// For messages and logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Ready { .. } => "ready",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// Whether CRI shows it as SANDBOX_READY.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Built { .. } => "built",
            Self::BuildFailed => "build failed",
            Self::StopAsked => "stop",
            Self::SandboxLost => "sandbox lost",
            Self::TornDown => "torn down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Built { pause_pid: 7, ips: vec![] }),
            Just(Event::BuildFailed),
            Just(Event::StopAsked),
            Just(Event::SandboxLost),
            Just(Event::TornDown),
        ]
    }

    proptest! {
        /// After any history, a stop that gets through ends in Stopped, and a stopped pod is
        /// never ready again.
        #[test]
        fn a_stop_always_ends(events in proptest::collection::vec(events(), 0..20)) {
            let mut state = State::Building;
            let mut was_stopping = false;
            for event in &events {
                if let Ok(next) = state.clone().next(event) {
                    state = next;
                }
                was_stopping |= matches!(state, State::Stopping | State::Stopped);
                prop_assert!(!(was_stopping && state.is_ready()), "came back to life by {event:?}");
            }
            let stopping = state.next(&Event::StopAsked).unwrap();
            prop_assert_eq!(stopping.next(&Event::TornDown).unwrap(), State::Stopped);
        }
    }

    #[test]
    fn a_pod_that_was_never_built_is_not_torn_down_silently() {
        State::Building.next(&Event::TornDown).unwrap_err();
        State::Ready { pause_pid: 1, ips: vec![] }.next(&Event::TornDown).unwrap_err();
    }
}
