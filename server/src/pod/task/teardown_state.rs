// SPDX-License-Identifier: Apache-2.0
//! How far the teardown of a pod is, and whether NRI plugins know of the pod.
//!
//! ```text
//!  No ──begin──▶ Running ──failed──▶ Backoff ──begin──▶ Running
//!                   │ succeeded (the pod stays, Stopped)
//!                   ├──────────────────────────────────▶ No
//!                   │ succeeded (the pod goes), or RemovePodSandbox of a stopped pod
//!                   ▼
//!            NotifyingPlugins ──record removed──▶ Done
//!                   └──record not removed──▶ RecordKept ──begin──▶ …
//! ```
//!
//! Pure, as [`State`](crate::pod::State), which says what is recorded.

use std::time::Duration;

/// Wait before a failed teardown is repeated without a request. Doubles with each failure, six times at most:
/// a network plugin whose agent is down needs no kubelet to be asked again.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const DOUBLINGS_MAX: u32 = 6;

/// A pod's teardown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Teardown {
    /// None in progress.
    No,
    /// In progress, after this many failures in a row.
    Running { failures: u32 },
    /// Failed this many times in a row; repeated after a while, or on request.
    Backoff { failures: u32 },
    /// Nothing is left but the record; plugins are notified before that goes.
    NotifyingPlugins,
    /// The record could not be removed; the next request tries again.
    RecordKept,
    /// The pod is gone.
    Done,
}

impl Teardown {
    /// Starts a teardown. Returns `false` if one is in progress already, or the pod is going.
    pub(super) fn begin(&mut self) -> bool {
        let failures = match *self {
            Self::No | Self::RecordKept => 0,
            Self::Backoff { failures } => failures,
            Self::Running { .. } | Self::NotifyingPlugins | Self::Done => return false,
        };
        *self = Self::Running { failures };
        true
    }

    /// Everything but the record is gone.
    pub(super) fn succeeded(&mut self) {
        *self = Self::No;
    }

    /// A part could not be removed. Gives the wait before the next try, and the number of failures in a row.
    pub(super) fn failed(&mut self) -> (Duration, u32) {
        let failures = match *self {
            Self::Running { failures } | Self::Backoff { failures } => failures,
            Self::No | Self::NotifyingPlugins | Self::RecordKept | Self::Done => 0,
        };
        let wait = BACKOFF_MIN * 2_u32.pow(failures.min(DOUBLINGS_MAX));
        let failures = failures.saturating_add(1);
        *self = Self::Backoff { failures };
        (wait, failures)
    }

    /// Whether the wait after the failure of this number is the one that the next try waits for: nothing has been tried
    /// on request since.
    pub(super) fn awaits(self, failures: u32) -> bool {
        self == Self::Backoff { failures }
    }

    /// Starts to notify plugins that the pod goes. Returns `false` if that is in progress already.
    pub(super) fn notify(&mut self) -> bool {
        let first = !matches!(self, Self::NotifyingPlugins | Self::Done);
        if first {
            *self = Self::NotifyingPlugins;
        }
        first
    }

    /// The removal of the record was tried, last of all.
    pub(super) fn record_removed(&mut self, removed: bool) {
        *self = if removed { Self::Done } else { Self::RecordKept };
    }

    /// Whether the pod is gone.
    pub(super) fn is_done(self) -> bool {
        self == Self::Done
    }

    /// Whether a pod that could not be built may report that: it is gone, or did not go at the first try.
    pub(super) fn may_report_failure(self) -> bool {
        match self {
            Self::No | Self::NotifyingPlugins => false,
            Self::Running { failures } => failures > 0,
            Self::Backoff { .. } | Self::RecordKept | Self::Done => true,
        }
    }
}

/// Whether a pod waits for RemovePodSandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    OnRequest,
    /// No caller knows the pod's id.
    Automatic,
    /// Its containers have exited, and the pod was to be removed then, with its logs.
    WithLogs,
}

/// The knowledge of NRI plugins about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NriVisibility {
    /// They do not know it.
    Unknown,
    /// They know that it runs.
    Running,
    /// They know that it stops.
    Stopped,
}

impl NriVisibility {
    /// Notes that plugins are notified of the stop. Returns `true` the first time, if they know the pod.
    pub(super) fn stop(&mut self) -> bool {
        let first = *self == Self::Running;
        if first {
            *self = Self::Stopped;
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Begin,
        Ends { well: bool, stays: bool },
        RecordRemoved { well: bool },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Begin),
            (any::<bool>(), any::<bool>()).prop_map(|(well, stays)| Step::Ends { well, stays }),
            any::<bool>().prop_map(|well| Step::RecordRemoved { well }),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        /// No two teardowns run at once, a failed one can always be tried again, and nothing happens to a pod
        /// that is gone.
        #[test]
        fn a_teardown_can_always_be_tried_again(steps in steps()) {
            let (mut teardown, mut running, mut notifying) = (Teardown::No, false, false);
            for step in steps {
                match step {
                    Step::Begin => {
                        let begun = teardown.begin();
                        prop_assert_eq!(begun, !running && !notifying && !teardown.is_done());
                        running |= begun;
                    }
                    Step::Ends { well: false, .. } if running => {
                        running = false;
                        let (wait, failures) = teardown.failed();
                        prop_assert!(teardown.awaits(failures) && !teardown.awaits(failures - 1));
                        prop_assert!(wait >= BACKOFF_MIN && wait <= BACKOFF_MIN * 64);
                        prop_assert!(teardown.may_report_failure());
                    }
                    Step::Ends { well: true, stays } if running => {
                        running = false;
                        teardown.succeeded();
                        if !stays {
                            prop_assert!(teardown.notify());
                            prop_assert!(!teardown.notify());
                            notifying = true;
                        }
                    }
                    Step::RecordRemoved { well } if notifying => {
                        notifying = false;
                        teardown.record_removed(well);
                        if well {
                            prop_assert!(teardown.is_done() && !teardown.begin());
                            return Ok(());
                        }
                    }
                    Step::Ends { .. } | Step::RecordRemoved { .. } => {}
                }
            }
            prop_assert!(running || notifying || teardown.begin());
        }
    }

    #[test]
    fn only_the_wait_after_the_last_failure_begins_a_try() {
        let mut teardown = Teardown::No;
        assert!(teardown.begin());
        assert_eq!(teardown.failed(), (BACKOFF_MIN, 1));
        assert!(teardown.awaits(1));
        // On request, while the first wait goes on.
        assert!(teardown.begin());
        assert!(!teardown.awaits(1));
        assert_eq!(teardown.failed(), (BACKOFF_MIN * 2, 2));
        assert!(!teardown.awaits(1) && teardown.awaits(2));
        assert!(teardown.begin());
        teardown.succeeded();
        assert!(!teardown.awaits(2));
    }

    #[test]
    fn plugins_are_notified_of_a_stop_once() {
        let mut visibility = NriVisibility::Running;
        assert!(visibility.stop());
        assert!(!visibility.stop());
        assert!(!NriVisibility::Unknown.stop());
    }
}
