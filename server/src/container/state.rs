// SPDX-License-Identifier: Apache-2.0
//! The state machine of a container (pure).
//!
//! ```text
//!  Creating ─Created─▶ Created ─Started─▶ Running ─Exited─▶ Exited ─RemoveAsked─▶ Removing ─▶ gone
//!                      ▲ └──StartFailed, NotStartedAgain──▶ │
//!                      └────────────StartAgain──────────────┘
//! ```
//!
//! A container starts again only for the command line and by its restart policies, never by CRI.
//!
//! Whether a process runs is the monitor's to say; what is recorded here is what it said last.

use hull_plan::{Diagnosis, LastLines};
use serde::{Deserialize, Serialize};

/// A container's state, as recorded. Times in nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Its root filesystem is being created.
    Creating,
    /// May be started.
    Created,
    /// Its program runs.
    Running { pid: i32, since_ns: i64 },
    /// It ran, or could not be started.
    Exited { how: ExitReason, since_ns: Option<i64>, at_ns: i64 },
    /// Its removal is in progress.
    Removing,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExitReason {
    /// By itself, with this code.
    Code {
        code: i32,
        #[serde(rename = "seen")]
        details: ExitDetails,
    },
    /// By this signal.
    Signal {
        signal: i32,
        #[serde(rename = "seen")]
        details: ExitDetails,
    },
    /// Its program never ran; the sentence explains it.
    #[serde(rename = "NeverRan")]
    StartFailed { why: String },
    /// Its monitor was lost, so its exit is unknown.
    Lost,
}

/// Counters and circumstances of the exit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitDetails {
    /// Processes the out-of-memory killer took.
    pub(crate) oom_kills: u64,
    /// Most memory ever held, bytes.
    pub(crate) memory_peak_bytes: Option<u64>,
    /// Forks refused by the pids limit.
    pub(crate) pids_refused: u64,
    /// A stop was requested before the exit.
    #[serde(rename = "stop_asked")]
    pub(crate) stop_requested: bool,
    /// The limit that was reached when it ran out of memory, if the kernel reports it.
    #[serde(default)]
    pub(crate) out_of_memory: Option<OutOfMemory>,
    /// Memory limit of the cgroup that reached it, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reached_limit_bytes: Option<u64>,
    /// The most memory that this cgroup ever held, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reached_peak_bytes: Option<u64>,
    /// Its writable layer was full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) full_layer: Option<Box<FullLayer>>,
    /// Denials by AppArmor and seccomp, in words; records of earlier versions have none.
    #[serde(default)]
    pub(crate) denials: Box<[String]>,
    /// Why it ended, if more is known than its exit code says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) diagnosis: Option<Box<Diagnosis>>,
    /// The last lines that it wrote before it failed.
    #[serde(default, skip_serializing_if = "LastLines::is_empty")]
    pub(crate) output: LastLines,
}

/// The use of a writable layer that is full, and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FullLayer {
    pub(crate) used_bytes: u64,
    pub(crate) limit_bytes: u64,
}

/// The memory limit that was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OutOfMemory {
    /// The container's own.
    Container,
    /// The limit of its pod.
    Pod,
    /// Of a cgroup above the pod's.
    Above { cgroup: String },
    /// None: the node had no more.
    Node,
}

/// An event in the life of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Root filesystem and log are there.
    Created,
    /// execve went through.
    Started { pid: i32, at_ns: i64 },
    /// It did not.
    StartFailed { why: String, at_ns: i64 },
    /// It ended, or was lost.
    Exited { how: ExitReason, at_ns: i64 },
    /// It is to run once more; the monitor has forgotten the run that ended.
    StartAgain,
    /// It is not to run once more after all. Its state as it was before.
    NotStartedAgain { exited: Box<State> },
    /// RemoveContainer was requested.
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
            (Self::Creating, Event::Created) => Ok(Self::Created),
            (Self::Created, Event::Started { pid, at_ns }) => {
                Ok(Self::Running { pid, since_ns: at_ns })
            }
            // A monitor repeats what it knows when the daemon reconnects. The first word stands.
            (running @ Self::Running { .. }, Event::Started { .. }) => Ok(running),
            (exited @ Self::Exited { .. }, Event::Started { .. } | Event::Exited { .. }) => {
                Ok(exited)
            }
            (Self::Created, Event::StartFailed { why, at_ns }) => {
                Ok(Self::Exited { how: ExitReason::StartFailed { why }, since_ns: None, at_ns })
            }
            // A clock that was set back meanwhile ends nothing before it began.
            (Self::Running { since_ns, .. }, Event::Exited { how, at_ns }) => {
                Ok(Self::Exited { how, since_ns: Some(since_ns), at_ns: at_ns.max(since_ns) })
            }
            (Self::Created, Event::Exited { how, at_ns }) => {
                Ok(Self::Exited { how, since_ns: None, at_ns })
            }
            (Self::Exited { .. }, Event::StartAgain) => Ok(Self::Created),
            (Self::Created, Event::NotStartedAgain { exited })
                if matches!(*exited, Self::Exited { .. }) =>
            {
                Ok(*exited)
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
            Self::Created => "made",
            Self::Started { .. } => "started",
            Self::StartFailed { .. } => "start failed",
            Self::Exited { .. } => "exited",
            Self::StartAgain => "start again",
            Self::NotStartedAgain { .. } => "not started again",
            Self::RemoveAsked => "remove",
        }
    }
}

impl ExitReason {
    /// The exit code CRI shows: the program's own, 128 + signal, 128 when it never ran (as
    /// containerd says), 255 when it is unknown.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Code { code, .. } => *code,
            Self::Signal { signal, .. } => 128 + signal,
            Self::StartFailed { .. } => 128,
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
            Just(ExitReason::Lost),
            (0..256i32).prop_map(|code| ExitReason::Code { code, details: ExitDetails::default() }),
            (1..65i32)
                .prop_map(|signal| ExitReason::Signal { signal, details: ExitDetails::default() }),
        ];
        prop_oneof![
            Just(Event::Created),
            (1..9i32, 0..99i64).prop_map(|(pid, at_ns)| Event::Started { pid, at_ns }),
            Just(Event::StartFailed { why: "no".into(), at_ns: 5 }),
            (how, 0..99i64).prop_map(|(how, at_ns)| Event::Exited { how, at_ns }),
            Just(Event::StartAgain),
            Just(Event::RemoveAsked),
        ]
    }

    proptest! {
        /// The first end stands until a person or a policy has it start again, nothing else runs twice, and what does not
        /// run can always be removed.
        #[test]
        fn every_order_of_events_is_survived(
            events in proptest::collection::vec(events(), 0..30),
        ) {
            let mut state = State::Creating;
            let mut ended: Option<State> = None;
            for event in events {
                let again = event == Event::StartAgain;
                let Ok(next) = state.clone().next(event) else { continue };
                if again {
                    prop_assert!(ended.take().is_some(), "it started again before it ended");
                }
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
        let how = ExitReason::Code { code: 3, details: ExitDetails::default() };
        let exited = running.next(Event::Exited { how, at_ns: 9 }).unwrap();
        assert_eq!(exited.next(Event::RemoveAsked).unwrap(), State::Removing);
    }

    #[test]
    fn what_is_not_started_again_after_all_is_as_it_was() {
        let how = ExitReason::Code { code: 3, details: ExitDetails::default() };
        let exited = State::Exited { how, since_ns: Some(2), at_ns: 9 };
        let created = exited.clone().next(Event::StartAgain).unwrap();
        assert_eq!(created, State::Created);
        let withdrawn = Event::NotStartedAgain { exited: Box::new(exited.clone()) };
        assert_eq!(created.next(withdrawn).unwrap(), exited);
        let odd = Event::NotStartedAgain { exited: Box::new(State::Creating) };
        State::Created.next(odd).unwrap_err();
    }

    /// Records and `crictl inspect` have these names, also those that the code calls otherwise.
    #[test]
    fn recorded_names_stay() {
        let details = ExitDetails { oom_kills: 1, ..ExitDetails::default() };
        let code = serde_json::to_value(ExitReason::Code { code: 3, details }).unwrap();
        assert_eq!(code["Code"]["seen"]["oom_kills"], 1);
        let signal = ExitReason::Signal { signal: 9, details: ExitDetails::default() };
        assert_eq!(serde_json::to_value(signal).unwrap()["Signal"]["seen"]["stop_asked"], false);
        let failed = serde_json::to_value(ExitReason::StartFailed { why: "no".into() }).unwrap();
        assert_eq!(failed["NeverRan"]["why"], "no");
    }

    #[test]
    fn exit_codes_are_the_ones_that_other_runtimes_report() {
        assert_eq!(
            ExitReason::Signal { signal: 9, details: ExitDetails::default() }.exit_code(),
            137
        );
        assert_eq!(ExitReason::StartFailed { why: String::new() }.exit_code(), 128);
    }
}
