// SPDX-License-Identifier: Apache-2.0
//! A container in its pod's task.

use super::operation::{Operation, StopRequest};
use crate::container::{self, ContainerRecord};
use crate::pod::Reply;
use hull_proto::id::ContainerId;
use hull_proto::monitor::LastOutput;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// Closes when the work that notifies plugins is done.
pub(super) type Notified = watch::Receiver<()>;

/// A container of the pod.
#[derive(Debug)]
pub(super) struct ContainerEntry {
    pub(super) record: Arc<ContainerRecord>,
    pub(super) execs: container::ExecTemplate,
    pub(super) planned: container::CachedPlan,
    /// For work that waits until the container exits.
    pub(super) state: watch::Sender<container::State>,
    pub(super) operation: Operation<Reply<ContainerId>, Reply<()>>,
    pub(super) stop: StopRequest<Reply<()>>,
    pub(super) updates: Updates,
    pub(super) restart: Restart,
    /// Lives while a client holds the container, see [`Command::Hold`](crate::pod::Command::Hold).
    pub(super) hold: Weak<()>,
    /// The last wait before a restart.
    pub(super) waited: Option<Duration>,
    /// The end of its output, between its failure and the word of its exit.
    pub(super) last_output: Option<LastOutput>,
    /// Processes of this run that were killed for memory, and are in the metrics already.
    pub(super) oom_kills_counted: u64,
    /// Ends when plugins have been notified of everything so far.
    pub(super) notified: Option<Notified>,
}

/// The restart of an exited container in progress.
#[derive(Debug, Default)]
pub(super) enum Restart {
    #[default]
    No,
    /// Its back-off is not over.
    Waiting {
        /// Tells this wait from an earlier one that was cut short.
        turn: u64,
    },
    /// The rest of the exited run is being cleared; the start follows.
    Clearing {
        waiters: Vec<Reply<()>>,
        /// It was stopped meanwhile.
        is_cancelled: bool,
        by_person: bool,
    },
}

impl Restart {
    /// Whether none is in progress.
    pub(super) fn is_no(&self) -> bool {
        matches!(self, Self::No)
    }
}

/// Updates of a container's limits in progress.
#[derive(Debug)]
pub(super) struct Updates {
    pub(super) waiters: BTreeMap<u64, Reply<()>>,
    /// One permit: the update that writes the cgroup holds it.
    pub(super) turn: Arc<tokio::sync::Semaphore>,
}

impl ContainerEntry {
    /// A container that an earlier daemon recorded.
    pub(super) fn recorded(record: ContainerRecord) -> Self {
        Self::new(record, Operation::Idle)
    }

    pub(super) fn new(
        record: ContainerRecord,
        operation: Operation<Reply<ContainerId>, Reply<()>>,
    ) -> Self {
        let (state, _) = watch::channel(record.state.clone());
        Self {
            record: Arc::new(record),
            execs: container::ExecTemplate::default(),
            planned: container::CachedPlan::default(),
            state,
            operation,
            stop: StopRequest::No,
            updates: Updates {
                waiters: BTreeMap::new(),
                turn: Arc::new(tokio::sync::Semaphore::new(1)),
            },
            restart: Restart::No,
            hold: Weak::new(),
            waited: None,
            last_output: None,
            oom_kills_counted: 0,
            notified: None,
        }
    }

    /// Whether a client holds it.
    pub(super) fn is_held(&self) -> bool {
        self.hold.strong_count() > 0
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.record.state, container::State::Running { .. })
    }

    /// A place in the order of notifications: the notifications before it, and the end that later ones wait for.
    pub(super) fn place(&mut self) -> (Option<Notified>, watch::Sender<()>) {
        let (done, ends) = watch::channel(());
        (self.notified.replace(ends), done)
    }
}
