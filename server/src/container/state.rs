// SPDX-License-Identifier: Apache-2.0
//! What a container is, as a pure machine.
//!
//! ```text
//!  Creating ─Made─▶ Created ─Started─▶ Running ─Exited─▶ Exited ─RemoveAsked─▶ Removing ─▶ gone
//!                      └──StartFailed─────────────────────▲
//! ```
//!
//! Whether a process runs is the monitor's to say; what is recorded here is what it said last.

use serde::{Deserialize, Serialize};

/// A container's state, as recorded. Times in nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Its root filesystem is being made.
    Creating,
    /// May be started.
    Created,
    /// Its program runs.
    Running { pid: i32, since_ns: i64 },
    /// It ran, or could not be started.
    Exited { how: How, since_ns: Option<i64>, at_ns: i64 },
    /// Is being taken away.
    Removing,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    /// By itself, with this code.
    Code { code: i32, seen: Seen },
    /// By this signal.
    Signal { signal: i32, seen: Seen },
    /// Its program never ran; the sentence says why.
    NeverRan { why: String },
    /// Its monitor was lost, so nobody saw it end.
    Lost,
}

/// What was counted when it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Processes the out-of-memory killer took.
    pub(crate) oom_kills: u64,
    /// Most memory ever held, bytes.
    pub(crate) memory_peak_bytes: Option<u64>,
    /// Forks refused by the pids limit.
    pub(crate) pids_refused: u64,
    /// We had sent a stop signal before.
    pub(crate) stop_asked: bool,
    /// Whose limit was reached when it ran out of memory, where the kernel tells.
    #[serde(default)]
    pub(crate) out_of_memory: Option<OutOfMemory>,
    /// What was denied to it, in words; records of earlier versions have none.
    #[serde(default)]
    pub(crate) denials: Vec<String>,
}

/// Whose limit was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OutOfMemory {
    /// The container's own.
    Container,
    /// Its pod's.
    Pod,
    /// Of a cgroup above the pod's.
    Above { cgroup: String },
    /// None: the node had no more.
    Node,
}

/// What can happen to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Root filesystem and log are there.
    Made,
    /// execve went through.
    Started { pid: i32, at_ns: i64 },
    /// It did not.
    StartFailed { why: String, at_ns: i64 },
    /// It ended, or was lost.
    Exited { how: How, at_ns: i64 },
    /// RemoveContainer.
    RemoveAsked,
}

/// An event that makes no sense in that state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {from} cannot take {event}")]
pub(crate) struct Refused {
    from: &'static str,
    event: &'static str,
}

impl State {
    /// Decides what `event` does.
    pub(crate) fn next(self, event: Event) -> Result<Self, Refused> {
        match (self, event) {
            (Self::Creating, Event::Made) => Ok(Self::Created),
            (Self::Created, Event::Started { pid, at_ns }) => {
                Ok(Self::Running { pid, since_ns: at_ns })
            }
            // A monitor repeats what it knows when the daemon reconnects. The first word stands.
            (running @ Self::Running { .. }, Event::Started { .. }) => Ok(running),
            (exited @ Self::Exited { .. }, Event::Started { .. } | Event::Exited { .. }) => {
                Ok(exited)
            }
            (Self::Created, Event::StartFailed { why, at_ns }) => {
                Ok(Self::Exited { how: How::NeverRan { why }, since_ns: None, at_ns })
            }
            // A clock that was set back meanwhile ends nothing before it began.
            (Self::Running { since_ns, .. }, Event::Exited { how, at_ns }) => {
                Ok(Self::Exited { how, since_ns: Some(since_ns), at_ns: at_ns.max(since_ns) })
            }
            (Self::Created, Event::Exited { how, at_ns }) => {
                Ok(Self::Exited { how, since_ns: None, at_ns })
            }
            (
                Self::Creating | Self::Created | Self::Exited { .. } | Self::Removing,
                Event::RemoveAsked,
            )
            | (Self::Removing, Event::Exited { .. }) => Ok(Self::Removing),
            (from, event) => Err(Refused { from: from.name(), event: event.name() }),
        }
    }

    /// For messages and logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Creating => "being created",
            Self::Created => "created",
            Self::Running { .. } => "running",
            Self::Exited { .. } => "exited",
            Self::Removing => "being removed",
        }
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Started { .. } => "started",
            Self::StartFailed { .. } => "start failed",
            Self::Exited { .. } => "exited",
            Self::RemoveAsked => "remove",
        }
    }
}

impl How {
    /// The exit code CRI shows: the program's own, 128 + signal, 128 when it never ran (as
    /// containerd says), 255 when nobody saw.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Code { code, .. } => *code,
            Self::Signal { signal, .. } => 128 + signal,
            Self::NeverRan { .. } => 128,
            Self::Lost => 255,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events() -> impl Strategy<Value = Event> {
        let how = prop_oneof![
            Just(How::Lost),
            (0..256i32).prop_map(|code| How::Code { code, seen: Seen::default() }),
            (1..65i32).prop_map(|signal| How::Signal { signal, seen: Seen::default() }),
        ];
        prop_oneof![
            Just(Event::Made),
            (1..9i32, 0..99i64).prop_map(|(pid, at_ns)| Event::Started { pid, at_ns }),
            Just(Event::StartFailed { why: "no".into(), at_ns: 5 }),
            (how, 0..99i64).prop_map(|(how, at_ns)| Event::Exited { how, at_ns }),
            Just(Event::RemoveAsked),
        ]
    }

    proptest! {
        /// The first end stands, nothing runs twice, and what does not run can always be removed.
        #[test]
        fn every_order_of_events_is_survived(
            events in proptest::collection::vec(events(), 0..30),
        ) {
            let mut state = State::Creating;
            let mut ended: Option<State> = None;
            for event in events {
                let Ok(next) = state.clone().next(event) else { continue };
                if let State::Exited { since_ns: Some(since_ns), at_ns, .. } = &next {
                    prop_assert!(at_ns >= since_ns, "it ended before it began: {next:?}");
                }
                if let Some(first) = &ended {
                    prop_assert!(
                        next == *first || next == State::Removing,
                        "{first:?} became {next:?}"
                    );
                }
                if matches!(next, State::Exited { .. }) && ended.is_none() {
                    ended = Some(next.clone());
                }
                state = next;
            }
            if !matches!(state, State::Running { .. }) {
                prop_assert_eq!(state.next(Event::RemoveAsked).unwrap(), State::Removing);
            }
        }
    }

    #[test]
    fn a_running_container_is_not_removed_before_it_ended() {
        let running = State::Running { pid: 1, since_ns: 2 };
        running.clone().next(Event::RemoveAsked).unwrap_err();
        let how = How::Code { code: 3, seen: Seen::default() };
        let exited = running.next(Event::Exited { how, at_ns: 9 }).unwrap();
        assert_eq!(exited.next(Event::RemoveAsked).unwrap(), State::Removing);
    }

    #[test]
    fn exit_codes_are_the_fields() {
        assert_eq!(How::Signal { signal: 9, seen: Seen::default() }.exit_code(), 137);
        assert_eq!(How::NeverRan { why: String::new() }.exit_code(), 128);
    }
}
