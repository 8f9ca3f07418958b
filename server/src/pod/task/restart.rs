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
//! a person is final. It is recorded for the name of the container before anything else, so neither a restart in
//! progress nor the next daemon undoes it; a stop of an attempt that was replaced meanwhile goes to the newest.

use super::data::Task;
use super::entry::{ContainerEntry, Restart};
use super::result::WorkResult;
use super::timeline::stage;
use crate::container::State;
use crate::container::state::{Event, ExitReason};
use crate::error::{Chain, Error, Result};
use crate::node::now_ns;
use crate::pod::Reply;
use crate::pod::run_pods::{self, RestartPolicy};
use hull_proto::id::ContainerId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::{info, warn};

/// Grace period of a container that was started again while somebody stopped it, in seconds.
const STOP_GRACE_S: u64 = 10;
/// Most ids of replaced attempts that are remembered.
const SUPERSEDED_MAX: usize = 16;

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
            || entry.record.stop_requested
            || self.record.restarts_cancelled.contains(entry.record.metadata().0)
            || entry.restart != Restart::No
            || !entry.operation.is_idle();
        if is_final || !self.record.state.is_ready() || !self.is_newest(id) {
            return None;
        }
        let ran_ns = since_ns.map_or(0, |since_ns| at_ns.saturating_sub(since_ns));
        let ran = Duration::from_nanos(u64::try_from(ran_ns).unwrap_or(0));
        Some(run_pods::backoff(entry.waited, ran))
    }

    /// Whether no later attempt of this container exists. One that is being removed does not count, nor one that could
    /// not be.
    fn is_newest(&self, id: &ContainerId) -> bool {
        let Some(entry) = self.containers.get(id) else { return false };
        let (name, attempt) = entry.record.metadata();
        self.newest(name).is_none_or(|(highest, _)| highest <= attempt)
    }

    /// The newest attempt of the container `name` that is not being removed.
    fn newest(&self, name: &str) -> Option<(u32, &ContainerId)> {
        let is_there = |entry: &ContainerEntry| !matches!(entry.record.state, State::Removing);
        let all = self.containers.iter().filter(|(_, entry)| is_there(entry));
        let named = all.filter(|(_, entry)| entry.record.metadata().0 == name);
        named.map(|(id, entry)| (entry.record.metadata().1, id)).max()
    }

    /// The name and number of an attempt of a container with a restart policy, also of one that was replaced.
    fn restarting(&self, id: &ContainerId) -> Option<(String, u32)> {
        let Some(entry) = self.containers.get(id) else {
            let known = self.superseded.iter().find(|(old, ..)| old == id);
            return known.map(|(_, name, attempt)| (name.clone(), *attempt));
        };
        let policy = RestartPolicy::of(&self.record, &entry.record.config);
        let (name, attempt) = entry.record.metadata();
        (policy != RestartPolicy::No).then(|| (name.to_owned(), attempt))
    }

    /// The attempt by which restarts have replaced, or are replacing, this one; not one that a person has started since.
    pub(super) fn successor(&self, id: &ContainerId) -> Option<ContainerId> {
        let (name, own) = self.restarting(id)?;
        let (attempt, next) = self.newest(&name)?;
        let later = attempt.checked_sub(own).filter(|later| *later > 0)?;
        let restarts = run_pods::restart_count(&self.containers.get(next)?.record.config);
        (restarts >= later).then(|| next.clone())
    }

    /// Whether this attempt is the daemon's and its start has not begun.
    pub(super) fn is_unstarted_restart(&self, id: &ContainerId) -> bool {
        let Some(entry) = self.containers.get(id) else { return false };
        matches!(entry.record.state, State::Creating | State::Created)
            && !entry.operation.is_starting()
            && self.restarting(id).is_some()
            && run_pods::restart_count(&entry.record.config) > 0
    }

    /// Keeps the id of a removed attempt that a restart has replaced. Returns whether it did.
    pub(super) fn remember_superseded(&mut self, id: &ContainerId) -> bool {
        if self.successor(id).is_none() {
            return false;
        }
        let Some((name, attempt)) = self.restarting(id) else { return false };
        self.superseded.push_back((id.clone(), name, attempt));
        if self.superseded.len() > SUPERSEDED_MAX
            && let Some((oldest, ..)) = self.superseded.pop_front()
        {
            self.node.registry.leave_container(&oldest);
        }
        true
    }

    /// The back-off of a container is over: creates its next attempt.
    pub(super) fn restart_due(&mut self, id: &ContainerId) {
        let goes_on = self.record.state.is_ready() && self.is_newest(id);
        let Some((name, _)) = self.restarting(id) else { return };
        // Also those that are being removed have their numbers.
        let attempts = self.containers.values().map(|entry| entry.record.metadata());
        let highest = attempts.filter(|of| of.0 == name).map(|of| of.1).max().unwrap_or(0);
        let Some(entry) = self.containers.get_mut(id) else { return };
        if entry.restart != Restart::Waiting {
            return;
        }
        let next = run_pods::next_attempt(&entry.record.config, &entry.record.image_id, highest);
        let Some(config) = next.filter(|_| goes_on && entry.operation.is_idle()) else {
            warn!(container = %id.short(), "container not restarted: it is not the newest attempt, or its pod is going");
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
        match next {
            // Stopped or removed meanwhile, or the pod is going.
            Ok(next)
                if !self.record.state.is_ready()
                    || self.is_cancelled(&next)
                    || !self.containers.get(old).is_some_and(|of| of.operation.is_idle()) =>
            {
                self.end_restart(old);
                self.begin_remove(&next, None).await;
            }
            Ok(next) => {
                let waited = self.containers.get(old).and_then(|entry| entry.waited);
                if let Some(entry) = self.containers.get_mut(&next) {
                    entry.waited = waited;
                }
                self.start_attempt(Some(old.clone()), next).await;
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
        if let Some(old) = &old {
            self.end_restart(old);
            self.begin_remove(old, None).await;
        }
        match result {
            Ok(()) if self.is_cancelled(next) => {
                let (reply, _nobody) = oneshot::channel();
                self.stop(next, STOP_GRACE_S, reply).await;
            }
            Ok(()) => info!(container = %next.short(), "container restarted"),
            Err(err) => {
                warn!(container = %next.short(), error = %Chain(&*err), "container not restarted");
                self.start_refused(next, &err).await;
                self.schedule_restart(next);
            }
        }
    }

    /// Records a start that was refused before it began as one that failed, so that the next attempt follows.
    async fn start_refused(&mut self, id: &ContainerId, err: &Error) {
        let is_unstarted = self.containers.get(id).is_some_and(|entry| {
            matches!(entry.record.state, State::Created) && entry.operation.is_idle()
        });
        if is_unstarted {
            self.begin_container_stage(id, stage::START);
            self.record_container_failure(id, "StartError", err);
            self.end_container_stage(id, stage::START, Some(err));
            let why = crate::error::sentence(err);
            self.advance(id, Event::StartFailed { why, at_ns: now_ns() }).await;
        }
    }

    fn end_restart(&mut self, id: &ContainerId) {
        if let Some(entry) = self.containers.get_mut(id) {
            entry.restart = Restart::No;
        }
        self.publish();
    }

    /// Whether a person has stopped the container of this attempt.
    fn is_cancelled(&self, id: &ContainerId) -> bool {
        let of = self.restarting(id);
        of.is_some_and(|(name, _)| self.record.restarts_cancelled.contains(&name))
    }

    /// Records that the container does not start again by itself, and ends a wait for that. An attempt that a person has
    /// replaced since has no say in this.
    pub(super) async fn cancel_restarts(&mut self, id: &ContainerId) {
        let Some((name, _)) = self.restarting(id) else { return };
        if !self.is_newest(id) && self.successor(id).is_none() {
            return;
        }
        for entry in self.containers.values_mut() {
            if entry.restart == Restart::Waiting && entry.record.metadata().0 == name {
                entry.restart = Restart::No;
            }
        }
        if !self.record.restarts_cancelled.contains(&name) {
            let mut record = (*self.record).clone();
            let names = self.containers.values().map(|entry| entry.record.metadata().0);
            let names: BTreeSet<&str> = names.collect();
            record.restarts_cancelled.retain(|of| names.contains(of.as_str()));
            record.restarts_cancelled.insert(name);
            self.record = Arc::new(record);
            self.save().await;
        }
        self.publish();
    }

    /// An attempt that a person starts restarts as its policy says, also after a stop before its start. Not earlier: a
    /// creation that fails leaves a stopped container stopped.
    pub(super) async fn allow_restarts(&mut self, id: &ContainerId) {
        let Some(entry) = self.containers.get(id) else { return };
        if run_pods::restart_count(&entry.record.config) > 0 {
            return;
        }
        let name = entry.record.metadata().0.to_owned();
        if self.record.restarts_cancelled.contains(&name) {
            let mut record = (*self.record).clone();
            record.restarts_cancelled.remove(&name);
            self.record = Arc::new(record);
            self.save().await;
        }
    }

    /// Continues the restarts of an earlier daemon, and restarts what has exited meanwhile.
    pub(super) async fn resume_restarts(&mut self) {
        let with_policy = self.containers.keys().filter_map(|id| self.restarting(id));
        let names: BTreeSet<String> = with_policy.map(|(name, _)| name).collect();
        for name in names {
            if let Some((attempt, id)) = self.newest(&name) {
                let id = id.clone();
                self.resume_restart(&name, attempt, &id).await;
            }
        }
    }

    /// Continues the restart of the container `name`, whose newest attempt is `id`.
    async fn resume_restart(&mut self, name: &str, attempt: u32, id: &ContainerId) {
        let Some(entry) = self.containers.get(id) else { return };
        let by_daemon = run_pods::restart_count(&entry.record.config) > 0;
        let state = entry.record.state.clone();
        let is_earlier = |(other, of): (&str, u32)| other == name && of < attempt;
        let superseded = self.containers.iter().filter(|(_, of)| {
            is_earlier(of.record.metadata()) && matches!(of.record.state, State::Exited { .. })
        });
        let superseded: Vec<_> = superseded.map(|(old, _)| old.clone()).collect();
        // Earlier attempts have no say: a person may have stopped one, and started this container again since.
        let is_final = self.is_cancelled(id);
        match (by_daemon, state) {
            // A stop ended the restart that the last daemon was in.
            (true, State::Created) if is_final => {
                return self.begin_remove(id, None).await;
            }
            (true, State::Running { .. }) if is_final && !superseded.is_empty() => {
                let (reply, _nobody) = oneshot::channel();
                self.stop(id, STOP_GRACE_S, reply).await;
            }
            (true, State::Created) if self.record.state.is_ready() => {
                self.start_attempt(None, id.clone()).await;
            }
            (_, State::Exited { .. }) => self.schedule_restart(id),
            (_, State::Creating | State::Created | State::Running { .. } | State::Removing) => {}
        }
        if by_daemon {
            for old in superseded {
                self.begin_remove(&old, None).await;
            }
        }
    }
}

fn unanswered() -> Arc<Error> {
    Arc::new(Error::Internal { what: "the work for a restart ended without a result".into() })
}
