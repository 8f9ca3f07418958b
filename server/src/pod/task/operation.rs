// SPDX-License-Identifier: Apache-2.0
//! The operation in progress on a container, and the callers that wait for it.
//!
//! ```text
//!   CreateContainer            StartContainer
//!         │                         │
//!         ▼        created          ▼        started, failed
//!      Creating ────────────▶ Idle ────▶ Starting ───────────▶ Idle
//!         │ failed              │            │
//!         ▼                     ▼            ▼
//!      Removing ◀──────── RemoveContainer ◀──┘   (a start in progress still reports its result)
//!         │     ▲
//! removed │     │ RemoveContainer again
//!         ▼     │
//!       gone   RemovalFailed
//! ```
//!
//! A removal that is requested during the creation begins when that ends: no two pieces of work ever change the
//! same root filesystem. The container's recorded state is another machine,
//! [`State`](crate::container::State): it says what was done, this one what is being done.
//!
//! Pure: no clock, no disk, no kernel. `C` and `U` are where responses go.

use crate::error::Error;
use hull_proto::monitor::Exit;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A container's operation in progress.
#[derive(Debug)]
pub(super) enum Operation<C, U> {
    /// CreateContainer is in progress.
    Creating {
        waiters: Vec<C>,
        /// A removal was requested meanwhile, by these callers.
        removal: Option<Vec<U>>,
    },
    /// No operation is in progress.
    Idle,
    /// StartContainer is in progress.
    Starting(Start<U>),
    /// RemoveContainer, or the removal of what a failed creation left.
    Removing {
        waiters: Vec<U>,
        /// A start whose result is still to come.
        start: Option<Start<U>>,
        origin: Origin<C>,
    },
    /// The last removal failed. The next request tries again.
    RemovalFailed { visible: bool },
}

/// A start in progress.
#[derive(Debug)]
pub(super) struct Start<U> {
    pub(super) waiters: Vec<U>,
    /// The container exited before the monitor reported its start.
    pub(super) early_exit: Option<Exit>,
}

/// How a container that is being removed came to be.
#[derive(Debug)]
pub(super) enum Origin<C> {
    Created,
    /// The creation failed. Its callers get the error once nothing is left, when the name is free again.
    CreateFailed {
        error: Arc<Error>,
        waiters: Vec<C>,
    },
}

/// Whether a request starts work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin<U> {
    /// The caller starts the work.
    Now,
    /// The work is in progress; this caller waits for it.
    Joined,
    /// Another operation excludes it.
    Excluded(U),
}

/// The callers that get a response when a removal ends.
#[derive(Debug)]
pub(super) struct Removed<C, U> {
    pub(super) waiters: Vec<U>,
    /// Callers of the creation that failed, with its error.
    pub(super) creators: Option<(Arc<Error>, Vec<C>)>,
}

impl<C, U> Operation<C, U> {
    /// A creation without callers yet.
    pub(super) fn creating() -> Self {
        Self::Creating { waiters: Vec::new(), removal: None }
    }

    /// Adds a caller to a creation in progress; gives it back if there is none.
    pub(super) fn join_create(&mut self, waiter: C) -> Option<C> {
        match self {
            Self::Creating { waiters, .. } => {
                waiters.push(waiter);
                None
            }
            Self::Idle | Self::Starting(_) | Self::Removing { .. } | Self::RemovalFailed { .. } => {
                Some(waiter)
            }
        }
    }

    /// The creation succeeded: gives its callers, and whether a removal was requested and begins now.
    pub(super) fn created(&mut self) -> (Vec<C>, bool) {
        match std::mem::replace(self, Self::Idle) {
            Self::Creating { waiters, removal: None } => (waiters, false),
            Self::Creating { waiters, removal: Some(removers) } => {
                let origin = Origin::Created;
                *self = Self::Removing { waiters: removers, start: None, origin };
                (waiters, true)
            }
            other @ (Self::Idle
            | Self::Starting(_)
            | Self::Removing { .. }
            | Self::RemovalFailed { .. }) => {
                *self = other;
                (Vec::new(), false)
            }
        }
    }

    /// The creation failed: the removal of what it left begins.
    pub(super) fn create_failed(&mut self, error: Arc<Error>) {
        if let Self::Creating { waiters, removal } = self {
            let origin = Origin::CreateFailed { error, waiters: std::mem::take(waiters) };
            let waiters = removal.take().unwrap_or_default();
            *self = Self::Removing { waiters, start: None, origin };
        }
    }

    /// Begins StartContainer, or joins one in progress.
    pub(super) fn begin_start(&mut self, waiter: U) -> Begin<U> {
        match self {
            Self::Idle => {
                *self = Self::Starting(Start { waiters: vec![waiter], early_exit: None });
                Begin::Now
            }
            Self::Starting(start) | Self::Removing { start: Some(start), .. } => {
                start.waiters.push(waiter);
                Begin::Joined
            }
            Self::Creating { .. }
            | Self::Removing { start: None, .. }
            | Self::RemovalFailed { .. } => Begin::Excluded(waiter),
        }
    }

    /// Whether no operation is in progress.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Whether a start is in progress.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self, Self::Starting(_) | Self::Removing { start: Some(_), .. })
    }

    /// Keeps an exit for after the result of a start in progress; gives it back if there is none.
    pub(super) fn hold_exit(&mut self, exit: Exit) -> Option<Exit> {
        match self {
            Self::Starting(start) | Self::Removing { start: Some(start), .. } => {
                start.early_exit = Some(exit);
                None
            }
            Self::Creating { .. }
            | Self::Idle
            | Self::Removing { start: None, .. }
            | Self::RemovalFailed { .. } => Some(exit),
        }
    }

    /// The result of the start is there. Gives its callers and an exit that came before.
    pub(super) fn start_ended(&mut self) -> Option<Start<U>> {
        match std::mem::replace(self, Self::Idle) {
            Self::Starting(start) => Some(start),
            Self::Removing { waiters, start, origin } => {
                *self = Self::Removing { waiters, start: None, origin };
                start
            }
            other @ (Self::Creating { .. } | Self::Idle | Self::RemovalFailed { .. }) => {
                *self = other;
                None
            }
        }
    }

    /// RemoveContainer, or the pod's removal without a caller.
    ///
    /// Returns `true` if the caller starts the work.
    pub(super) fn begin_remove(&mut self, waiter: Option<U>) -> bool {
        let waiters: Vec<U> = waiter.into_iter().collect();
        match std::mem::replace(self, Self::Idle) {
            Self::Creating { waiters: creators, removal } => {
                let mut removers = removal.unwrap_or_default();
                removers.extend(waiters);
                *self = Self::Creating { waiters: creators, removal: Some(removers) };
                false
            }
            Self::Removing { waiters: mut all, start, origin } => {
                all.extend(waiters);
                *self = Self::Removing { waiters: all, start, origin };
                false
            }
            Self::Idle => {
                *self = Self::Removing { waiters, start: None, origin: Origin::Created };
                true
            }
            Self::Starting(start) => {
                *self = Self::Removing { waiters, start: Some(start), origin: Origin::Created };
                true
            }
            Self::RemovalFailed { visible } => {
                let origin = if visible { Origin::Created } else { Origin::hidden() };
                *self = Self::Removing { waiters, start: None, origin };
                true
            }
        }
    }

    /// The removal ended. After a failure the next request tries again; after a success the caller drops all this.
    pub(super) fn removal_ended(&mut self) -> Removed<C, U> {
        match std::mem::replace(self, Self::Idle) {
            Self::Removing { waiters, start, origin } => {
                let visible = matches!(origin, Origin::Created);
                *self = Self::RemovalFailed { visible };
                let starters = start.into_iter().flat_map(|start| start.waiters);
                let creators = match origin {
                    Origin::Created => None,
                    Origin::CreateFailed { error, waiters } => Some((error, waiters)),
                };
                Removed { waiters: waiters.into_iter().chain(starters).collect(), creators }
            }
            other @ (Self::Creating { .. }
            | Self::Idle
            | Self::Starting(_)
            | Self::RemovalFailed { .. }) => {
                *self = other;
                Removed { waiters: Vec::new(), creators: None }
            }
        }
    }

    /// Whether callers know the container's id: not before it is created, nor when that failed.
    pub(super) fn is_visible(&self) -> bool {
        match self {
            Self::Creating { .. }
            | Self::Removing { origin: Origin::CreateFailed { .. }, .. }
            | Self::RemovalFailed { visible: false } => false,
            Self::Idle
            | Self::Starting(_)
            | Self::Removing { origin: Origin::Created, .. }
            | Self::RemovalFailed { visible: true } => true,
        }
    }
}

impl<C> Origin<C> {
    /// Of a failed creation whose callers got their error with the first failed removal.
    fn hidden() -> Self {
        let error = Error::Internal { what: "a failed creation was removed twice".into() };
        Self::CreateFailed { error: Arc::new(error), waiters: Vec::new() }
    }
}

/// Whether a stop was requested, and the callers that wait for the end.
#[derive(Debug)]
pub(super) enum StopRequest<U> {
    No,
    /// The stop signal is sent once, however many callers ask; each has its own grace period.
    Yes {
        waiters: BTreeMap<u64, U>,
    },
}

impl<U> StopRequest<U> {
    /// Notes that the end is requested. Returns `true` the first time.
    pub(super) fn request(&mut self) -> bool {
        let first = matches!(self, Self::No);
        if first {
            *self = Self::Yes { waiters: BTreeMap::new() };
        }
        first
    }

    /// Adds a caller under its number.
    pub(super) fn wait(&mut self, number: u64, waiter: U) {
        if let Self::Yes { waiters } = self {
            waiters.insert(number, waiter);
        } else {
            *self = Self::Yes { waiters: BTreeMap::from([(number, waiter)]) };
        }
    }

    /// Takes the caller with this number.
    pub(super) fn take(&mut self, number: u64) -> Option<U> {
        match self {
            Self::No => None,
            Self::Yes { waiters } => waiters.remove(&number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_proto::monitor::ExitHow;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The calls that a pod's task makes, in any order that can happen.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        JoinCreate,
        CreateEnds { well: bool },
        Start,
        StartEnds,
        Exit,
        Remove { caller: bool },
        RemovalEnds { well: bool },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::JoinCreate),
            any::<bool>().prop_map(|well| Step::CreateEnds { well }),
            Just(Step::Start),
            Just(Step::StartEnds),
            Just(Step::Exit),
            any::<bool>().prop_map(|caller| Step::Remove { caller }),
            any::<bool>().prop_map(|well| Step::RemovalEnds { well }),
        ];
        proptest::collection::vec(step, 0..60)
    }

    fn exit() -> Exit {
        Exit {
            how: ExitHow::Code(0),
            at_ns: 1,
            oom_kills: 0,
            memory_peak_bytes: None,
            pids_refused: 0,
        }
    }

    /// The machine with the work that it has started, and the callers that still wait.
    struct Model {
        operation: Operation<u32, u32>,
        waiting: BTreeSet<u32>,
        next: u32,
        creating: bool,
        starting: bool,
        removing: bool,
    }

    impl Model {
        fn caller(&mut self) -> u32 {
            self.next += 1;
            self.waiting.insert(self.next);
            self.next
        }

        fn respond(&mut self, callers: impl IntoIterator<Item = u32>) {
            for caller in callers {
                assert!(self.waiting.remove(&caller), "caller {caller} got two responses");
            }
        }

        fn begin_removal(&mut self) {
            assert!(!self.removing, "two removals at once");
            assert!(!self.creating, "a removal during the creation");
            self.removing = true;
        }

        /// Returns `true` when the container is gone.
        fn step(&mut self, step: Step) -> bool {
            match step {
                Step::JoinCreate => {
                    let caller = self.caller();
                    let refused = self.operation.join_create(caller);
                    assert_eq!(refused.is_none(), self.creating);
                    self.respond(refused);
                }
                Step::CreateEnds { well } if self.creating => {
                    self.creating = false;
                    if well {
                        let (callers, removal) = self.operation.created();
                        self.respond(callers);
                        if removal {
                            self.begin_removal();
                        }
                    } else {
                        let error = Error::Internal { what: "test".into() };
                        self.operation.create_failed(Arc::new(error));
                        self.begin_removal();
                        assert!(!self.operation.is_visible());
                    }
                }
                Step::Start => {
                    let caller = self.caller();
                    match self.operation.begin_start(caller) {
                        Begin::Now => {
                            assert!(!self.starting && !self.creating && !self.removing);
                            self.starting = true;
                        }
                        Begin::Joined => assert!(self.starting),
                        Begin::Excluded(caller) => self.respond([caller]),
                    }
                }
                Step::StartEnds if self.starting => {
                    self.starting = false;
                    let start = self.operation.start_ended().expect("a start was in progress");
                    self.respond(start.waiters);
                }
                Step::Exit => {
                    assert_eq!(self.operation.hold_exit(exit()).is_none(), self.starting);
                }
                Step::Remove { caller } => {
                    let caller = caller.then(|| self.caller());
                    if self.operation.begin_remove(caller) {
                        self.begin_removal();
                    }
                }
                // The task removes what does not run: the start has ended by then.
                Step::RemovalEnds { well } if self.removing && !self.starting => {
                    self.removing = false;
                    let Removed { waiters, creators } = self.operation.removal_ended();
                    self.respond(waiters);
                    self.respond(creators.into_iter().flat_map(|(_, callers)| callers));
                    return well;
                }
                Step::CreateEnds { .. } | Step::StartEnds | Step::RemovalEnds { .. } => {}
            }
            assert_eq!(self.operation.is_starting(), self.starting);
            false
        }
    }

    proptest! {
        /// Every caller gets exactly one response once the work in progress has ended, and no two pieces of work
        /// exclude each other at the same time.
        #[test]
        fn every_caller_gets_one_response(steps in steps()) {
            let mut model = Model {
                operation: Operation::creating(),
                waiting: BTreeSet::new(),
                next: 0,
                creating: true,
                starting: false,
                removing: false,
            };
            let mut gone = false;
            for step in steps {
                gone = model.step(step);
                if gone {
                    break;
                }
            }
            if !gone {
                model.step(Step::CreateEnds { well: true });
                model.step(Step::StartEnds);
                model.step(Step::Remove { caller: true });
                model.step(Step::RemovalEnds { well: true });
            }
            prop_assert!(model.waiting.is_empty(), "{:?} wait for ever", model.waiting);
        }
    }

    #[test]
    fn the_stop_signal_is_sent_once() {
        let mut stop = StopRequest::No;
        assert!(stop.request());
        stop.wait(1, "first");
        assert!(!stop.request());
        stop.wait(2, "second");
        assert_eq!(stop.take(1), Some("first"));
        assert_eq!(stop.take(1), None);
        assert_eq!(stop.take(2), Some("second"));
    }
}
