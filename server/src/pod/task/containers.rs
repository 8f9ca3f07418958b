// SPDX-License-Identifier: Apache-2.0
//! The half of a pod's task that is about its containers: decides by the container machine and the
//! [`Operation`], records, and hands out the work. Removal is in [`removal`](super::removal).

use super::data::{Task, answer};
use super::entry::ContainerEntry;
use super::operation::{Begin, Operation};
use super::result::WorkResult;
use super::timeline::stage;
use crate::container::start::StartParams;
use crate::container::state::{Event, ExitReason};
use crate::container::stop::{StopParams, Stopped};
use crate::container::{ContainerRecord, State, create, exit_details, log, start, stop};
use crate::error::{Chain, Error};
use crate::monitors::Client;
use crate::node::{Node, new_container_id, now_ns};
use crate::oci_spec;
use crate::pod::Reply;
use crate::records;
use crate::storage::blocking;
use hull_nri::PluginSet;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Command, Exit, LastOutput, Started};
use hull_proto::{cri, nri};
use std::sync::Arc;
use tracing::{error, info, warn};

impl Task {
    pub(super) fn create(&mut self, config: cri::ContainerConfig, reply: Reply<ContainerId>) {
        match self.begin_create(config) {
            Ok(id) => {
                // One that is created already is the result of the first request.
                let unjoined = match self.containers.get_mut(&id) {
                    Some(entry) => entry.operation.join_create(reply),
                    None => Some(reply),
                };
                answer(unjoined, Ok(id));
            }
            Err(err) => answer(Some(reply), Err(Arc::new(err))),
        }
    }

    /// The container that `config` asks for: a new one, or the same that an earlier request asked for.
    fn begin_create(
        &mut self,
        config: cri::ContainerConfig,
    ) -> std::result::Result<ContainerId, Error> {
        if !self.record.state.is_ready() {
            return Err(self.wrong_state("create a container in"));
        }
        let metadata = config.metadata.clone().unwrap_or_default();
        let name = (metadata.name.as_str(), metadata.attempt);
        let same_name = self.containers.iter().find(|(_, entry)| entry.record.metadata() == name);
        if let Some((id, entry)) = same_name {
            let joins = entry.record.config == config
                && matches!(entry.record.state, State::Creating | State::Created);
            if joins {
                return Ok(id.clone());
            }
            return Err(Error::NameTaken {
                name: metadata.name,
                attempt: metadata.attempt,
                holder: id.to_string(),
            });
        }
        let target_pid = self.target_pid(&config)?;
        let id = new_container_id();
        let record = create::record(&self.node, &self.record, &id, config)?;
        self.node.registry.enter_container(id.clone(), self.id.clone());
        let entry = ContainerEntry::new(record, Operation::creating());
        self.begin_container_timeline(&entry.record);
        let (node, record) = (Arc::clone(&self.node), Arc::clone(&entry.record));
        let work = create::make(
            Arc::clone(&self.node),
            self.id.clone(),
            Arc::clone(&self.record),
            Arc::clone(&entry.record),
            target_pid,
        );
        self.containers.insert(id.clone(), entry);
        // Its images are in use before the work looks for them.
        self.publish();
        let (done, failed) = (id.clone(), id.clone());
        let panicked = |err| WorkResult::Created(failed, Err(err));
        self.work.spawn("create the container", panicked, async move {
            // The record is there before anything is made.
            let saved = blocking(move || node.containers.save(&record.id, &*record)).await;
            let created = match saved {
                Ok(()) => work.await,
                Err(source) => Err(Error::Store { source }),
            };
            WorkResult::Created(done, created)
        });
        Ok(id)
    }

    pub(super) async fn created(
        &mut self,
        id: &ContainerId,
        result: std::result::Result<create::Created, Error>,
    ) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        match result {
            Ok(create::Created { resolved, planned, adjusted, plugin_set }) => {
                let create::Resolved { user, classes, remarks } = resolved;
                entry.planned = planned;
                let (waiters, removal) = entry.operation.created();
                let record = Arc::make_mut(&mut entry.record);
                record.user = Some(user);
                record.classes = classes;
                let (container, image) = (record.metadata().0, record.image_name());
                info!(container, container_id = %id.short(), image, "container created");
                for remark in &remarks {
                    warn!(container, container_id = %id.short(), remark, "part of a container's config has no effect on this node");
                }
                record.remarks = remarks;
                record.adjust = adjusted.adjust;
                if let Some(cgroup) = adjusted.cgroup {
                    record.cgroup = cgroup;
                }
                self.end_container_stage(id, stage::CREATE, None);
                self.advance(id, Event::Created).await;
                let result = if removal {
                    Err(Arc::new(self.wrong_state("create a container in")))
                } else {
                    Ok(id.clone())
                };
                let post = nri::Event::PostCreateContainer;
                self.notify_then_answer(id, plugin_set, post, waiters, result);
                if removal {
                    self.remove_stopped(id).await;
                }
            }
            Err(err) => {
                // No caller knows this id: the same removal as any other takes away what there is, and the callers
                // get the error when the name is free again.
                let err = Arc::new(err);
                entry.operation.create_failed(Arc::clone(&err));
                self.record_container_failure(id, "CreateError", &err);
                self.end_container_stage(id, stage::CREATE, Some(&err));
                self.remove_stopped(id).await;
            }
        }
    }

    pub(super) async fn start(&mut self, id: &ContainerId, reply: Reply<()>) {
        let ready = self.record.state.is_ready();
        let record = self.containers.get(id).map(|entry| Arc::clone(&entry.record));
        let target = record.map_or(Ok(None), |record| self.target_pid(&record.config));
        let Some(entry) = self.containers.get_mut(id) else {
            return answer(Some(reply), Err(not_found(id)));
        };
        match &entry.record.state {
            // The response to the first request was lost.
            State::Running { .. } => return answer(Some(reply), Ok(())),
            State::Created if entry.is_held() => {
                return answer(Some(reply), Err(Arc::new(held("start", id))));
            }
            State::Created if ready || entry.operation.is_starting() => {}
            State::Created => {
                let err = self.wrong_state("start a container in");
                return answer(Some(reply), Err(Arc::new(err)));
            }
            state @ (State::Creating | State::Exited { .. } | State::Removing) => {
                let err = wrong_state("start", id, state);
                return answer(Some(reply), Err(Arc::new(err)));
            }
        }
        let target_pid = match target {
            Ok(target_pid) => target_pid,
            // The start in progress has its own.
            Err(_) if entry.operation.is_starting() => None,
            Err(err) => return answer(Some(reply), Err(Arc::new(err))),
        };
        match entry.operation.begin_start(reply) {
            Begin::Now => {}
            Begin::Joined => return,
            Begin::Excluded(reply) => {
                let err = wrong_state("start", id, &State::Removing);
                return answer(Some(reply), Err(Arc::new(err)));
            }
        }
        let (record, planned) = (Arc::clone(&entry.record), entry.planned.take());
        self.allow_restarts(id).await;
        self.begin_container_stage(id, stage::START);
        let work = start::start(StartParams {
            node: Arc::clone(&self.node),
            client: self.client.clone(),
            pod: self.id.clone(),
            pod_record: Arc::clone(&self.record),
            record,
            planned,
            target_pid,
        });
        let Some(nri_context) = self.nri_context(id) else { return };
        let (done, failed, plugins) = (id.clone(), id.clone(), self.node.plugins.current());
        let panicked = |err| WorkResult::Started(failed, Err(err), plugins);
        self.work.spawn("start the container", panicked, async move {
            let plugin_set = nri_context.node.plugins.current();
            let started = match nri_context.request(&plugin_set, nri::Event::StartContainer).await {
                Ok(()) => work.await,
                Err(refused) => Err(refused),
            };
            WorkResult::Started(done, started, plugin_set)
        });
    }

    /// The process whose pid namespace a container asks to join (`NamespaceMode::TARGET`), which must be that of a
    /// running container of this pod; `None` with another mode.
    fn target_pid(&self, config: &cri::ContainerConfig) -> std::result::Result<Option<i32>, Error> {
        let mode = oci_spec::namespace_mode(config, &self.record.config, |options| options.pid);
        if mode != cri::NamespaceMode::Target {
            return Ok(None);
        }
        let target = oci_spec::namespace_options(config).map_or("", |of| of.target_id.as_str());
        let found = self.containers.iter().find(|(id, _)| id.as_str() == target);
        let why = match found.map(|(_, entry)| &entry.record.state) {
            Some(State::Running { pid, .. }) => return Ok(Some(*pid)),
            Some(_) => "it is not running",
            None if target.is_empty() => "namespace mode TARGET needs an id",
            None => "this pod has no such container",
        };
        let target = target.chars().take(80).flat_map(char::escape_default).collect();
        Err(Error::Spec { source: oci_spec::Error::NoTarget { target, why } })
    }

    pub(super) async fn started(
        &mut self,
        id: &ContainerId,
        result: std::result::Result<Started, Error>,
        plugin_set: Arc<PluginSet>,
    ) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        let start = entry.operation.start_ended();
        let (waiters, early_exit) =
            start.map_or((Vec::new(), None), |start| (start.waiters, start.early_exit));
        let result = match result {
            Ok(Started { pid, at_ns }) => {
                self.advance(id, Event::Started { pid, at_ns }).await;
                self.end_container_stage(id, stage::START, None);
                let (container, image) = (self.name_of(id), self.image_of(id));
                info!(container, container_id = %id.short(), image, pid, "container started");
                Ok(())
            }
            Err(mut err) => {
                if let Error::StartCutShort { was_stopped, .. } = &mut err {
                    *was_stopped = entry.record.stop_requested;
                }
                let (container, image) = (self.name_of(id), self.image_of(id));
                warn!(container, container_id = %id.short(), image, error = %Chain(&err), "container did not start");
                self.record_container_failure(id, "StartError", &err);
                self.end_container_stage(id, stage::START, Some(&err));
                let why = crate::error::sentence(&err);
                self.advance(id, Event::StartFailed { why, at_ns: now_ns() }).await;
                Err(Arc::new(err))
            }
        };
        self.notify_then_answer(id, plugin_set, nri::Event::PostStartContainer, waiters, result);
        if let Some(exit) = early_exit {
            self.exited(id, exit).await;
        } else if self.client.is_none() {
            // The monitor ended during this start.
            self.lose_containers().await;
        }
    }

    pub(super) async fn exited(&mut self, id: &ContainerId, exit: Exit) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        let Some(exit) = entry.operation.hold_exit(exit) else { return };
        // Of some the monitor has told while the container ran.
        let counted = std::mem::take(&mut entry.oom_kills_counted);
        self.node.metrics.oom_kills.add(&[], exit.oom_kills.saturating_sub(counted));
        self.node.metrics.container_exits.count(&[exit_details::kind(exit.how)]);
        let (record, output) = (Arc::clone(&entry.record), entry.last_output.take());
        let event = exit_details::event(&self.node, &self.record, id, &record, exit, output).await;
        let (container, image) = (record.metadata().0, record.image_name());
        info!(container, container_id = %id.short(), image, how = ?exit.how, oom_kills = exit.oom_kills, "container exited");
        self.advance(id, event).await;
        self.notify_exited(id);
        self.schedule_restart(id);
    }

    /// The end of a failed container's output, which comes before the word of its exit.
    pub(super) fn keep_output(&mut self, id: &ContainerId, output: LastOutput) {
        if let Some(entry) = self.containers.get_mut(id) {
            entry.last_output = Some(output);
        }
    }

    /// The container continues; its status says the same while it runs.
    pub(super) fn out_of_memory(&mut self, id: &ContainerId, oom_kills: u64) {
        self.node.metrics.oom_kills.add(&[], oom_kills);
        if let Some(entry) = self.containers.get_mut(id) {
            entry.oom_kills_counted = entry.oom_kills_counted.saturating_add(oom_kills);
        }
        warn!(
            container = self.name_of(id), container_id = %id.short(), oom_kills,
            hint = "raise the memory limit of the container or the pod; the container's status names the limit",
            "running container reached a memory limit, and a process of it or of its pod is killed"
        );
    }

    /// Every container that still counts as running has lost its monitor.
    pub(super) async fn lose_containers(&mut self) {
        let running = self.containers.iter().filter(|(_, entry)| entry.is_running());
        let running: Vec<_> = running.map(|(id, _)| id.clone()).collect();
        for id in running {
            self.node.metrics.container_exits.count(&[exit_details::UNSEEN]);
            self.advance(&id, Event::Exited { how: ExitReason::Lost, at_ns: now_ns() }).await;
            self.notify_exited(&id);
        }
    }

    pub(super) async fn stop(&mut self, id: &ContainerId, grace_s: u64, reply: Reply<()>) {
        // First: a restart in progress ends with this, and goes no further.
        self.cancel_restarts(id).await;
        let Some(entry) = self.containers.get_mut(id) else {
            return answer(Some(reply), Err(not_found(id)));
        };
        if !entry.is_running() && !entry.operation.is_starting() {
            return answer(Some(reply), Ok(()));
        }
        let Some(client) = self.client.clone() else {
            return answer(Some(reply), Ok(()));
        };
        let first = entry.stop.request();
        let waiter = self.next_waiter;
        self.next_waiter += 1;
        entry.stop.wait(waiter, reply);
        if first {
            if grace_s > 0 {
                Arc::make_mut(&mut entry.record).stop_signal_ns = Some(now_ns());
            }
            self.begin_container_stage(id, stage::STOP);
            self.record_stop_request(id).await;
        }
        let Some(entry) = self.containers.get(id) else { return };
        // The process gets one signal, however many requests there are.
        let signal = first.then_some(entry.record.stop_signal);
        let params = self.stop_params(id, entry, client, grace_s, signal);
        let (done, failed) = (id.clone(), id.clone());
        let panicked = move |err| WorkResult::Stopped(failed, waiter, Err(err));
        self.work.spawn("stop the container", panicked, async move {
            WorkResult::Stopped(done, waiter, stop::stop(params).await)
        });
    }

    /// Everything that a stop of the container needs.
    pub(super) fn stop_params(
        &self,
        id: &ContainerId,
        entry: &ContainerEntry,
        client: Client,
        grace_s: u64,
        signal: Option<i32>,
    ) -> StopParams {
        StopParams {
            node: Arc::clone(&self.node),
            client,
            pod: self.id.clone(),
            pod_cgroup: self.record.cgroup.clone(),
            id: id.clone(),
            cgroup: entry.record.cgroup.clone(),
            state: entry.state.subscribe(),
            grace_s,
            signal,
        }
    }

    /// Records that the end of a container was requested: an exit is reported as requested also if the daemon
    /// restarts in between.
    pub(super) async fn record_stop_request(&mut self, id: &ContainerId) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        if !entry.record.stop_requested {
            Arc::make_mut(&mut entry.record).stop_requested = true;
            self.save_container(id).await;
        }
    }

    pub(super) async fn stopped(
        &mut self,
        id: &ContainerId,
        waiter: u64,
        result: std::result::Result<Stopped, Error>,
    ) {
        if let Ok(stopped) = &result {
            self.lose_unreported(id, *stopped).await;
        }
        self.end_container_stage(id, stage::STOP, result.as_ref().err());
        if let Some(entry) = self.containers.get_mut(id) {
            answer(entry.stop.take(waiter), result.map(|_| ()).map_err(Arc::new));
        }
    }

    /// Of a container whose end its monitor does not report, nothing but that is known.
    pub(super) async fn lose_unreported(&mut self, id: &ContainerId, stopped: Stopped) {
        let runs = self.containers.get(id).is_some_and(ContainerEntry::is_running);
        if stopped == Stopped::Unreported && runs {
            warn!(container = self.name_of(id), container_id = %id.short(), "end of a container that its monitor does not report");
            self.advance(id, Event::Exited { how: ExitReason::Lost, at_ns: now_ns() }).await;
            self.notify_exited(id);
        }
    }

    pub(super) fn reopen_log(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(entry) = self.containers.get(id) else {
            return answer(Some(reply), Err(not_found(id)));
        };
        let (State::Running { .. }, Some(client)) = (&entry.record.state, self.client.clone())
        else {
            let err = wrong_state("reopen the log of", id, &entry.record.state);
            return answer(Some(reply), Err(Arc::new(err)));
        };
        let (pod, record, id) = (Arc::clone(&self.record), Arc::clone(&entry.record), id.clone());
        let node = Arc::clone(&self.node);
        self.work.spawn("reopen the log", |_| WorkResult::Nothing, async move {
            let result = reopen(&node, &client, &pod, &record, id).await;
            answer(Some(reply), result.map_err(Arc::new));
            WorkResult::Nothing
        });
    }

    /// Applies an event to a container's state, records and publishes it.
    pub(super) async fn advance(&mut self, id: &ContainerId, event: Event) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        match entry.record.state.clone().next(event) {
            Ok(state) => {
                Arc::make_mut(&mut entry.record).state = state.clone();
                entry.state.send_replace(state);
                self.record_exit(id);
            }
            Err(refused) => {
                error!(container_id = %id, error = %refused, "container machine refused an event");
            }
        }
        self.save_container(id).await;
        self.publish();
    }

    pub(super) async fn save_container(&self, id: &ContainerId) {
        if let Err(err) = self.written(id).await {
            error!(container = self.name_of(id), container_id = %id, error = %Chain(&err), "container record not written");
        }
    }

    /// Writes the record of a container.
    pub(super) async fn written(
        &self,
        id: &ContainerId,
    ) -> std::result::Result<(), records::Error> {
        let Some(entry) = self.containers.get(id) else { return Ok(()) };
        let (node, record) = (Arc::clone(&self.node), Arc::clone(&entry.record));
        blocking(move || node.containers.save(&record.id, &*record)).await
    }

    pub(super) fn wrong_state(&self, verb: &'static str) -> Error {
        Error::WrongState {
            verb,
            kind: "pod",
            id: self.id.to_string(),
            state: self.record.state.name(),
        }
    }
}

async fn reopen(
    node: &Node,
    client: &Client,
    pod: &Arc<crate::pod::PodRecord>,
    record: &Arc<ContainerRecord>,
    id: ContainerId,
) -> std::result::Result<(), Error> {
    let Some(log) = log::open_in_time(&node.storage, pod, record).await? else { return Ok(()) };
    let sent = client.command(Command::ReopenLog { container: id }, vec![log.file]).await;
    sent.map_err(|source| Error::Monitor { doing: "reopen the container's log", source })
}

pub(super) fn not_found(id: &ContainerId) -> Arc<Error> {
    Arc::new(Error::NotFound { kind: "container", id: id.to_string() })
}

/// A client copies files of the container.
pub(super) fn held(verb: &'static str, id: &ContainerId) -> Error {
    Error::WrongState {
        verb,
        kind: "container",
        id: id.to_string(),
        state: "being copied from or to",
    }
}

pub(super) fn wrong_state(verb: &'static str, id: &ContainerId, state: &State) -> Error {
    Error::WrongState { verb, kind: "container", id: id.to_string(), state: state.name() }
}
