// SPDX-License-Identifier: Apache-2.0
//! Starts of a container that has exited: by a restart policy, and by `hull start` and `hull restart`.
//!
//! ```text
//! exit ─▶ Waiting ──wait is over──▶ Clearing ──cleared──▶ recorded as Created ──▶ started
//!            │     `hull start` ───▶   │                                            │ it did not start: another exit
//!            └──── stop, removal ──────┴─▶ stays exited                             └──▶ Waiting
//! ```
//!
//! The container keeps its id, its writable layer and its log. Only its monitor's knowledge of the exited run is cleared,
//! and that comes first: so a daemon that is killed at any moment leaves an exited container, which its policy or its
//! user starts, or one that is recorded as created for a further run, which the next daemon starts.
//!
//! CRI has no such start: StartContainer of an exited container is an error, and a kubelet's containers are refused here.
//!
//! A stop or kill by a person is final. It is recorded for the name of the container before anything else, so neither a
//! restart in progress nor the next daemon undoes it.

use super::containers::{held, not_found, wrong_state};
use super::data::{Task, answer};
use super::entry::{ContainerEntry, Restart};
use super::operation::StopRequest;
use super::plugins::notified;
use super::result::WorkResult;
use super::timeline::stage;
use crate::container::state::{Event, ExitReason};
use crate::container::{State, again};
use crate::error::{Chain, Error, Result};
use crate::node::now_ns;
use crate::pod::Reply;
use crate::pod::run_pods::{self, RestartPolicy};
use hull_proto::id::ContainerId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

impl Task {
    /// Begins the back-off of a container that has exited, if its policy says that it runs again.
    pub(super) fn schedule_restart(&mut self, id: &ContainerId) {
        if let Some(wait) = self.restart_wait(id) {
            self.wait_for_restart(id, wait);
        }
    }

    fn wait_for_restart(&mut self, id: &ContainerId, wait: Duration) {
        let turn = self.next_waiter;
        self.next_waiter += 1;
        let Some(entry) = self.containers.get_mut(id) else { return };
        entry.restart = Restart::Waiting { turn };
        entry.waited = Some(wait);
        info!(container = self.name_of(id), container_id = %id.short(), wait_ms = wait.as_millis(), "container will be restarted");
        let (due, failed) = (id.clone(), id.clone());
        let panicked = move |_| WorkResult::RestartDue(failed, turn);
        self.work.spawn("wait for the restart", panicked, async move {
            tokio::time::sleep(wait).await;
            WorkResult::RestartDue(due, turn)
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
        // The caller of a start has got its error.
        let never_ran = matches!(how, ExitReason::StartFailed { .. }) && count == 0;
        let is_final = never_ran
            || !policy.restarts(how.exit_code(), count)
            || entry.record.stop_requested
            || self.record.restarts_cancelled.contains(entry.record.metadata().0)
            || !entry.restart.is_no()
            || !entry.operation.is_idle();
        if is_final || !self.record.state.is_ready() || !self.is_newest(id) {
            return None;
        }
        let ran_ns = since_ns.map_or(0, |since_ns| at_ns.saturating_sub(since_ns));
        let ran = Duration::from_nanos(u64::try_from(ran_ns).unwrap_or(0));
        Some(run_pods::backoff(entry.waited, ran))
    }

    /// Whether no later attempt of this name exists, as other clients of CRI create them.
    fn is_newest(&self, id: &ContainerId) -> bool {
        let Some(entry) = self.containers.get(id) else { return false };
        let (name, attempt) = entry.record.metadata();
        let is_later = |of: &ContainerEntry| {
            let (other, later) = of.record.metadata();
            other == name && later > attempt && !matches!(of.record.state, State::Removing)
        };
        !self.containers.values().any(is_later)
    }

    /// The name of a container with a restart policy.
    fn with_policy(&self, id: &ContainerId) -> Option<String> {
        let record = &self.containers.get(id)?.record;
        let policy = RestartPolicy::of(&self.record, &record.config);
        (policy != RestartPolicy::No).then(|| record.metadata().0.to_owned())
    }

    /// The back-off of a container is over.
    pub(super) fn restart_due(&mut self, id: &ContainerId, turn: u64) {
        let goes_on = self.record.state.is_ready() && self.is_newest(id);
        let Some(entry) = self.containers.get_mut(id) else { return };
        if !matches!(entry.restart, Restart::Waiting { turn: waits } if waits == turn) {
            return;
        }
        entry.restart = Restart::No;
        if !goes_on || entry.is_held() || !entry.operation.is_idle() {
            warn!(container = self.name_of(id), container_id = %id.short(), "container not restarted: it is not the newest attempt, or its pod is going");
            return self.publish();
        }
        self.clear_for_restart(id, None);
    }

    /// Starts a container for a person, also one that has exited.
    pub(super) async fn start_again(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(entry) = self.containers.get(id) else {
            return answer(Some(reply), Err(not_found(id)));
        };
        let has_exited = matches!(entry.record.state, State::Exited { .. });
        let refused = if entry.is_running() && matches!(entry.stop, StopRequest::Yes { .. }) {
            in_state(id, "being stopped")
        } else if entry.is_running() {
            return answer(Some(reply), Ok(()));
        } else if !has_exited {
            return self.start(id, reply).await;
        } else if run_pods::is_of_kubelet(&self.record, &entry.record.config) {
            let why = "it is a container of a kubelet, which alone starts it again".into();
            Error::Invalid { field: "container_id", why }
        } else if entry.is_held() {
            held("start", id)
        } else if !entry.operation.is_idle() {
            wrong_state("start", id, &State::Removing)
        } else if !self.record.state.is_ready() {
            self.wrong_state("start a container in")
        } else {
            return self.clear_for_restart(id, Some(reply));
        };
        answer(Some(reply), Err(Arc::new(refused)));
    }

    /// Has the monitor forget the exited run, and makes missing sources of volumes.
    fn clear_for_restart(&mut self, id: &ContainerId, waiter: Option<Reply<()>>) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        if let Restart::Clearing { waiters, is_cancelled, by_person } = &mut entry.restart {
            *is_cancelled &= waiter.is_none();
            *by_person |= waiter.is_some();
            waiters.extend(waiter);
            return;
        }
        let by_person = waiter.is_some();
        let waiters = waiter.into_iter().collect();
        entry.restart = Restart::Clearing { waiters, is_cancelled: false, by_person };
        let (node, record) = (Arc::clone(&self.node), Arc::clone(&entry.record));
        let (before, client) = (self.notified_so_far(id), self.client.clone());
        let pod_cgroup = self.record.cgroup.clone();
        let (id, failed) = (id.clone(), id.clone());
        let panicked = |err| WorkResult::Cleared(failed, Err(err));
        self.work.spawn("clear the exited run", panicked, async move {
            // Plugins receive its end before its next start.
            notified(before).await;
            let cleared = again::clear(&node, client, &id, &record, pod_cgroup).await;
            WorkResult::Cleared(id, cleared)
        });
        self.publish();
    }

    /// The exited run is cleared, or could not be: starts the next one.
    pub(super) async fn cleared(
        &mut self,
        id: &ContainerId,
        result: std::result::Result<(), Error>,
    ) {
        // Word of the exited run that came before the monitor forgot it must not be taken for the next one's.
        while let Ok(event) = self.monitor_events.try_recv() {
            self.monitor_event(event).await;
        }
        let Some(entry) = self.containers.get_mut(id) else { return };
        let Restart::Clearing { waiters, is_cancelled, by_person } =
            std::mem::take(&mut entry.restart)
        else {
            return;
        };
        let has_exited = matches!(entry.record.state, State::Exited { .. });
        let refused = match result {
            Err(err) => Err(Arc::new(err)),
            Ok(()) if is_cancelled => Err(Arc::new(in_state(id, "being stopped"))),
            Ok(()) if !has_exited || !entry.operation.is_idle() => {
                Err(Arc::new(wrong_state("start", id, &entry.record.state)))
            }
            Ok(()) if !self.record.state.is_ready() => {
                Err(Arc::new(self.wrong_state("start a container in")))
            }
            Ok(()) => self.recorded_as_created(id, by_person).await,
        };
        match refused {
            Ok(()) => self.start_cleared(id, waiters).await,
            Err(err) => {
                let is_quiet = is_cancelled || !has_exited;
                if !is_quiet {
                    warn!(container = self.name_of(id), container_id = %id.short(), error = %Chain(&*err), "container not restarted");
                }
                if self.restarts(id) {
                    // However long it ran before: the failure would repeat at once.
                    let waited = self.containers.get(id).and_then(|entry| entry.waited);
                    self.wait_for_restart(id, run_pods::backoff(waited, Duration::ZERO));
                }
                waiters.into_iter().for_each(|of| answer(Some(of), Err(Arc::clone(&err))));
                self.publish();
            }
        }
    }

    /// Records an exited container as created for its next run. It stays exited if that cannot be recorded.
    async fn recorded_as_created(&mut self, id: &ContainerId, by_person: bool) -> Result<()> {
        let Some(entry) = self.containers.get_mut(id) else { return Err(not_found(id)) };
        let before = Arc::clone(&entry.record);
        let mut record = (*before).clone();
        if !record.begin_next_run(now_ns()) {
            return Err(Arc::new(wrong_state("start", id, &record.state)));
        }
        run_pods::count_restart(&mut record.config, by_person);
        entry.record = Arc::new(record);
        if let Err(source) = self.written(id).await {
            if let Some(entry) = self.containers.get_mut(id) {
                entry.record = before;
            }
            return Err(Arc::new(Error::Store { source }));
        }
        let Some(entry) = self.containers.get_mut(id) else { return Err(not_found(id)) };
        // Those who wait for the end of the exited run keep a channel that says so.
        entry.state = watch::channel(entry.record.state.clone()).0;
        let attempt = entry.record.metadata().1;
        if let StopRequest::Yes { waiters } = std::mem::replace(&mut entry.stop, StopRequest::No) {
            waiters.into_values().for_each(|of| answer(Some(of), Ok(())));
        }
        entry.last_output = None;
        self.node.rates.forget(id.as_str());
        self.node.history.again(id.as_str(), attempt);
        self.publish();
        Ok(())
    }

    /// Starts a container that is recorded as created for a further run.
    async fn start_cleared(&mut self, id: &ContainerId, waiters: Vec<Reply<()>>) {
        let (reply, started): (Reply<()>, _) = oneshot::channel();
        self.start(id, reply).await;
        for waiter in waiters {
            self.start(id, waiter).await;
        }
        let (done, failed) = (id.clone(), id.clone());
        let panicked = |err| WorkResult::Restarted(failed, Err(Arc::new(err)));
        self.work.spawn("start the container again", panicked, async move {
            let result = started.await.unwrap_or_else(|_| Err(unanswered()));
            WorkResult::Restarted(done, result)
        });
    }

    /// The next run has begun, or could not.
    pub(super) async fn restarted(&mut self, id: &ContainerId, result: Result<()>) {
        match result {
            Ok(()) => {
                info!(container = self.name_of(id), container_id = %id.short(), "container restarted")
            }
            Err(err) => {
                warn!(container = self.name_of(id), container_id = %id.short(), error = %Chain(&*err), "container not restarted");
                self.start_refused(id, &err).await;
                self.schedule_restart(id);
            }
        }
    }

    /// Records a start that was refused before it began as one that failed, so that the next one follows.
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

    /// Whether a person has stopped the container.
    fn is_cancelled(&self, id: &ContainerId) -> bool {
        self.with_policy(id).is_some_and(|name| self.record.restarts_cancelled.contains(&name))
    }

    /// Records that the container does not start again by itself, and ends a restart that has not begun to start it.
    pub(super) async fn cancel_restarts(&mut self, id: &ContainerId) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        match &mut entry.restart {
            Restart::No => {}
            Restart::Waiting { .. } => entry.restart = Restart::No,
            Restart::Clearing { is_cancelled, .. } => *is_cancelled = true,
        }
        if let Some(name) = self.with_policy(id).filter(|_| self.is_newest(id))
            && !self.record.restarts_cancelled.contains(&name)
        {
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

    /// Whether its policy may restart the container, which nobody has stopped.
    pub(super) fn may_restart(&self, id: &ContainerId) -> bool {
        self.with_policy(id).is_some() && !self.is_cancelled(id)
    }

    /// Undoes that a person has ended the restarts of a container.
    pub(super) async fn restore_restarts(&mut self, id: &ContainerId) {
        let Some(name) = self.with_policy(id) else { return };
        self.uncancel(&name).await;
        // It may have exited meanwhile, for another reason.
        self.schedule_restart(id);
    }

    /// A container that a person starts restarts as its policy says, also after a stop before its start.
    pub(super) async fn allow_restarts(&mut self, id: &ContainerId) {
        let Some(entry) = self.containers.get(id) else { return };
        if run_pods::restart_count(&entry.record.config) > 0 {
            return;
        }
        let name = entry.record.metadata().0.to_owned();
        self.uncancel(&name).await;
    }

    async fn uncancel(&mut self, name: &str) {
        if self.record.restarts_cancelled.contains(name) {
            let mut record = (*self.record).clone();
            record.restarts_cancelled.remove(name);
            self.record = Arc::new(record);
            self.save().await;
        }
    }

    /// Continues the restarts of an earlier daemon, and restarts what has exited meanwhile.
    pub(super) async fn resume_restarts(&mut self) {
        let ids: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in ids {
            let Some(entry) = self.containers.get(&id) else { continue };
            let is_unstarted = matches!(entry.record.state, State::Created)
                && entry.record.previous.is_some()
                && entry.operation.is_idle();
            if !is_unstarted {
                self.schedule_restart(&id);
            } else if self.record.state.is_ready() && !self.is_cancelled(&id) {
                self.start_cleared(&id, Vec::new()).await;
            } else {
                self.withdraw_run(&id).await;
            }
        }
    }

    /// Records a container that was about to be started again as exited, as it was before.
    async fn withdraw_run(&mut self, id: &ContainerId) {
        let Some(entry) = self.containers.get(id) else { return };
        if let Some(previous) = &entry.record.previous {
            let event = Event::NotStartedAgain { exited: Box::new(previous.state.clone()) };
            self.advance(id, event).await;
        } else {
            error!(container = self.name_of(id), container_id = %id.short(), "container without an earlier run was to be started again");
        }
    }
}

/// The error of a start that something else excludes.
fn in_state(id: &ContainerId, state: &'static str) -> Error {
    Error::WrongState { verb: "start", kind: "container", id: id.to_string(), state }
}

fn unanswered() -> Arc<Error> {
    Arc::new(Error::Internal { what: "the work for a restart ended without a result".into() })
}
