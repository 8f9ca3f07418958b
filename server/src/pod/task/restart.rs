// SPDX-License-Identifier: Apache-2.0
//! Restarts of containers of `hull run --restart`, by the pod's task.
//!
//! ```text
//! exit ─▶ Waiting ──wait is over──▶ Creating ──created──▶ Starting ──▶ the exited attempt is removed
//!            │                         │                     │ it did not start: its own exit
//!            └─── stop, removal ───────┴─────────────────────┘
//! ```
//!
//! CRI runs a container once, so a restart is a new attempt with an id of its own, as with a kubelet. A stop or kill by
//! a person is final: it is recorded, so the next daemon respects it as well.

use super::data::Task;
use super::entry::Restart;
use super::result::WorkResult;
use crate::container::State;
use crate::container::state::ExitReason;
use crate::error::{Chain, Error, Result};
use crate::pod::Reply;
use crate::pod::run_pods::{self, RestartPolicy};
use hull_proto::id::ContainerId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::{info, warn};

/// Grace period of a container that was started again while somebody stopped it, in seconds.
const STOP_GRACE_S: u64 = 10;

impl Task {
    /// Begins the back-off of a container that has exited, if its policy says that it runs again.
    pub(super) fn schedule_restart(&mut self, id: &ContainerId) {
        if let Some(wait) = self.restart_wait(id) {
            self.wait_for_restart(id, wait);
        }
    }

    fn wait_for_restart(&mut self, id: &ContainerId, wait: Duration) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        entry.restart = Restart::Waiting;
        entry.waited = Some(wait);
        info!(container = %id.short(), wait_ms = wait.as_millis(), "container will be restarted");
        let (due, failed) = (id.clone(), id.clone());
        let panicked = |_| WorkResult::RestartDue(failed);
        self.work.spawn("wait for the restart", panicked, async move {
            tokio::time::sleep(wait).await;
            WorkResult::RestartDue(due)
        });
        self.publish();
    }

    /// Whether a restart of this container begins next.
    pub(super) fn restarts(&self, id: &ContainerId) -> bool {
        self.restart_wait(id).is_some()
    }

    /// The wait before the restart of this container; `None` if it stays as it is.
    fn restart_wait(&self, id: &ContainerId) -> Option<Duration> {
        let entry = self.containers.get(id)?;
        let State::Exited { how, since_ns, at_ns } = &entry.record.state else { return None };
        let config = &entry.record.config;
        let policy = RestartPolicy::of(&self.record, config);
        let count = run_pods::restart_count(config);
        // The caller of a first start has got its error.
        let never_ran = matches!(how, ExitReason::StartFailed { .. }) && count == 0;
        let is_final = never_ran
            || !policy.restarts(how.exit_code(), count)
            || entry.record.is_stopped_for_good()
            || entry.restart != Restart::No
            || !entry.operation.is_idle();
        if is_final || !self.record.state.is_ready() || !self.is_newest(id) {
            return None;
        }
        let ran_ns = since_ns.map_or(0, |since_ns| at_ns.saturating_sub(since_ns));
        let ran = Duration::from_nanos(u64::try_from(ran_ns).unwrap_or(0));
        Some(run_pods::backoff(entry.waited, ran))
    }

    /// Whether no later attempt of this container exists.
    fn is_newest(&self, id: &ContainerId) -> bool {
        let Some(entry) = self.containers.get(id) else { return false };
        let (name, attempt) = entry.record.metadata();
        let is_later = |(other, later): (&str, u32)| other == name && later > attempt;
        !self.containers.values().any(|of| is_later(of.record.metadata()))
    }

    /// The back-off of a container is over: creates its next attempt.
    pub(super) fn restart_due(&mut self, id: &ContainerId) {
        let goes_on = self.record.state.is_ready() && self.is_newest(id);
        let Some(entry) = self.containers.get_mut(id) else { return };
        if entry.restart != Restart::Waiting {
            return;
        }
        let next = run_pods::next_attempt(&entry.record.config, &entry.record.image_id);
        let Some(config) = next.filter(|_| goes_on && entry.operation.is_idle()) else {
            entry.restart = Restart::No;
            return self.publish();
        };
        entry.restart = Restart::InProgress;
        let (reply, created) = oneshot::channel();
        self.create(config, reply);
        let (old, failed) = (id.clone(), id.clone());
        let panicked = |err| WorkResult::RestartCreated(failed, Err(Arc::new(err)));
        self.work.spawn("create the next attempt", panicked, async move {
            WorkResult::RestartCreated(old, created.await.unwrap_or_else(|_| Err(unanswered())))
        });
    }

    /// The next attempt of `old` exists, or could not be created.
    pub(super) async fn restart_created(&mut self, old: &ContainerId, next: Result<ContainerId>) {
        let stopped = self.is_stopped_for_good(old);
        match next {
            Ok(next) if stopped || self.is_stopped_for_good(&next) => {
                self.end_restart(old);
                self.keep_stopped(old).await;
                self.begin_remove(&next, None).await;
            }
            Ok(next) if self.record.state.is_ready() => {
                let waited = self.containers.get(old).and_then(|entry| entry.waited);
                if let Some(entry) = self.containers.get_mut(&next) {
                    entry.waited = waited;
                }
                self.start_attempt(Some(old.clone()), next).await;
            }
            // The pod is going, and both attempts with it.
            Ok(next) => {
                self.end_restart(old);
                self.begin_remove(&next, None).await;
            }
            Err(err) => {
                warn!(container = %old.short(), error = %Chain(&*err), "container not restarted; trying again");
                self.end_restart(old);
                if self.restarts(old) {
                    // However long it ran before: the failure would repeat at once.
                    let waited = self.containers.get(old).and_then(|entry| entry.waited);
                    self.wait_for_restart(old, run_pods::backoff(waited, Duration::ZERO));
                }
            }
        }
    }

    /// Starts an attempt of a restart.
    async fn start_attempt(&mut self, old: Option<ContainerId>, next: ContainerId) {
        let (reply, started): (Reply<()>, _) = oneshot::channel();
        self.start(&next, reply).await;
        let failed = (old.clone(), next.clone());
        let panicked = |err| WorkResult::Restarted(failed.0, failed.1, Err(Arc::new(err)));
        self.work.spawn("start the next attempt", panicked, async move {
            let result = started.await.unwrap_or_else(|_| Err(unanswered()));
            WorkResult::Restarted(old, next, result)
        });
    }

    /// The next attempt runs, or could not be started. Either way the earlier one is superseded.
    pub(super) async fn restarted(
        &mut self,
        old: Option<ContainerId>,
        next: &ContainerId,
        result: Result<()>,
    ) {
        let mut stopped = false;
        if let Some(old) = &old {
            stopped = self.is_stopped_for_good(old);
            self.end_restart(old);
            self.begin_remove(old, None).await;
        }
        match result {
            Ok(()) if stopped => {
                let (reply, _nobody) = oneshot::channel();
                self.stop(next, STOP_GRACE_S, reply).await;
            }
            Ok(()) => info!(container = %next.short(), "container restarted"),
            Err(_) if stopped => self.keep_stopped(next).await,
            Err(_) => self.schedule_restart(next),
        }
    }

    fn end_restart(&mut self, id: &ContainerId) {
        if let Some(entry) = self.containers.get_mut(id) {
            entry.restart = Restart::No;
        }
        self.publish();
    }

    fn is_stopped_for_good(&self, id: &ContainerId) -> bool {
        self.containers.get(id).is_some_and(|entry| entry.record.is_stopped_for_good())
    }

    /// Records that the container does not start again by itself, and ends a wait for that.
    pub(super) async fn keep_stopped(&mut self, id: &ContainerId) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        let has_policy = RestartPolicy::of(&self.record, &entry.record.config) != RestartPolicy::No;
        if !has_policy {
            return;
        }
        if entry.restart == Restart::Waiting {
            entry.restart = Restart::No;
        }
        if !entry.record.restart_cancelled {
            Arc::make_mut(&mut entry.record).restart_cancelled = true;
            self.save_container(id).await;
        }
        self.publish();
    }

    /// Continues the restarts of an earlier daemon, and restarts what has exited meanwhile.
    pub(super) async fn resume_restarts(&mut self) {
        let mut newest: BTreeMap<String, (u32, ContainerId)> = BTreeMap::new();
        for (id, entry) in &self.containers {
            if RestartPolicy::of(&self.record, &entry.record.config) == RestartPolicy::No {
                continue;
            }
            let (name, attempt) = entry.record.metadata();
            let known = newest.entry(name.to_owned()).or_insert_with(|| (attempt, id.clone()));
            if known.0 < attempt {
                *known = (attempt, id.clone());
            }
        }
        for (name, (attempt, id)) in newest {
            self.resume_restart(&name, attempt, &id).await;
        }
    }

    /// Continues the restart of the container `name`, whose newest attempt is `id`.
    async fn resume_restart(&mut self, name: &str, attempt: u32, id: &ContainerId) {
        let Some(entry) = self.containers.get(id) else { return };
        let by_daemon = run_pods::restart_count(&entry.record.config) > 0;
        let state = entry.record.state.clone();
        if by_daemon {
            let is_earlier = |(other, of): (&str, u32)| other == name && of < attempt;
            let superseded = self.containers.iter().filter(|(_, of)| {
                is_earlier(of.record.metadata()) && matches!(of.record.state, State::Exited { .. })
            });
            let superseded: Vec<_> = superseded.map(|(old, _)| old.clone()).collect();
            for old in superseded {
                self.begin_remove(&old, None).await;
            }
        }
        match state {
            State::Created if by_daemon && self.record.state.is_ready() => {
                self.start_attempt(None, id.clone()).await;
            }
            State::Exited { .. } => self.schedule_restart(id),
            State::Creating | State::Created | State::Running { .. } | State::Removing => {}
        }
    }
}

fn unanswered() -> Arc<Error> {
    Arc::new(Error::Internal { what: "the work for a restart ended without a result".into() })
}
