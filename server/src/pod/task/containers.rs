// SPDX-License-Identifier: Apache-2.0
//! The half of a pod's task that is about its containers: decides by the container machine, records,
//! and hands out the work.

use super::plugins::told;
use super::{Finished, Held, Task, answer, seen};
use crate::container::state::{Event, How};
use crate::container::{ContainerRecord, State, create, log, remove, start, stop};
use crate::error::{Chain, Error, Result};
use crate::monitors;
use crate::node::{Node, new_container_id, now_ns};
use crate::pod::Reply;
use crate::spec;
use hull_nri::Roster;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Exit, ExitHow, Started, Verb};
use hull_proto::{cri, nri};
use std::sync::Arc;
use tracing::{error, info, warn};

impl Task {
    pub(super) fn create(&mut self, config: cri::ContainerConfig, reply: Reply<ContainerId>) {
        match self.begin_create(config) {
            Ok(Begun::New(id)) => {
                if let Some(held) = self.containers.get_mut(&id) {
                    held.creating.push(reply);
                }
            }
            Ok(Begun::Joined(id)) => match self.containers.get_mut(&id) {
                Some(held) if held.record.state == State::Creating => held.creating.push(reply),
                _ => answer(Some(reply), Ok(id)),
            },
            Err(err) => answer(Some(reply), Err(Arc::new(err))),
        }
    }

    fn begin_create(&mut self, config: cri::ContainerConfig) -> std::result::Result<Begun, Error> {
        if !self.record.state.is_ready() {
            return Err(self.wrong_state("create a container in"));
        }
        let metadata = config.metadata.clone().unwrap_or_default();
        let same_name = self
            .containers
            .iter()
            .find(|(_, held)| held.record.metadata() == (metadata.name.as_str(), metadata.attempt));
        if let Some((id, held)) = same_name {
            let joins = held.record.config == config
                && matches!(held.record.state, State::Creating | State::Created);
            if joins {
                return Ok(Begun::Joined(id.clone()));
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
        self.node
            .containers
            .save(id.as_str(), &record)
            .map_err(|source| Error::Store { source })?;
        self.node.registry.enter_container(id.clone(), self.id.clone());
        let held = Held::new(record);
        let work = create::make(
            Arc::clone(&self.node),
            self.id.clone(),
            Arc::clone(&self.record),
            Arc::clone(&held.record),
            target_pid,
        );
        self.containers.insert(id.clone(), held);
        // Its images are in use before the work looks for them.
        self.publish();
        let done = id.clone();
        self.work.spawn(async move { Finished::Created(done, work.await) });
        Ok(Begun::New(id))
    }

    pub(super) fn created(
        &mut self,
        id: &ContainerId,
        result: std::result::Result<create::Made, Error>,
    ) {
        let Some(held) = self.containers.get_mut(id) else { return };
        match result {
            Ok(create::Made { user, planned, adjusted, roster }) => {
                held.planned = planned;
                let waiters = std::mem::take(&mut held.creating);
                let record = Arc::make_mut(&mut held.record);
                record.user = Some(user);
                record.adjust = adjusted.adjust;
                if let Some(cgroup) = adjusted.cgroup {
                    record.cgroup = cgroup;
                }
                self.advance(id, Event::Made);
                let post = nri::Event::PostCreateContainer;
                self.tell_then_answer(id, roster, post, waiters, Ok(id.clone()));
            }
            Err(err) => {
                // Nobody knows this id: taken away by the same removal as any other, and told when
                // its name is free again.
                held.unmade = Some(Arc::new(err));
                self.begin_remove(id);
            }
        }
    }

    pub(super) fn start(&mut self, id: &ContainerId, reply: Reply<()>) {
        let ready = self.record.state.is_ready();
        let config = self.containers.get(id).map(|held| Arc::clone(&held.record));
        let target = config.map_or(Ok(None), |record| self.target_pid(&record.config));
        let Some(held) = self.containers.get_mut(id) else {
            return answer(Some(reply), Err(not_found(id)));
        };
        match (&held.record.state, &mut held.starting) {
            // Asked twice: the answer to the first call was lost on its way.
            (State::Running { .. }, _) => return answer(Some(reply), Ok(())),
            (State::Created, Some(waiters)) => return waiters.push(reply),
            (State::Created, None) if ready => {}
            (State::Created, None) => {
                let err = self.wrong_state("start a container in");
                return answer(Some(reply), Err(Arc::new(err)));
            }
            (state, _) => {
                let err = wrong_state("start", id, state);
                return answer(Some(reply), Err(Arc::new(err)));
            }
        }
        let target_pid = match target {
            Ok(target_pid) => target_pid,
            Err(err) => return answer(Some(reply), Err(Arc::new(err))),
        };
        held.starting = Some(vec![reply]);
        let (record, planned) = (Arc::clone(&held.record), held.planned.take());
        let work = start::start(start::Order {
            node: Arc::clone(&self.node),
            client: self.client.clone(),
            pod: self.id.clone(),
            pod_record: Arc::clone(&self.record),
            record,
            planned,
            target_pid,
        });
        let Some(about) = self.about(id) else { return };
        let id = id.clone();
        self.work.spawn(async move {
            let roster = about.node.plugins.roster();
            let started = match about.ask(&roster, nri::Event::StartContainer).await {
                Ok(()) => work.await,
                Err(refused) => Err(refused),
            };
            Finished::Started(id, started, roster)
        });
    }

    /// The process whose pid namespace a container asks to join (`NamespaceMode::TARGET`), which must be that of a
    /// running container of this pod; `None` with another mode.
    fn target_pid(&self, config: &cri::ContainerConfig) -> std::result::Result<Option<i32>, Error> {
        let mode = spec::namespace_mode(config, &self.record.config, |options| options.pid);
        if mode != cri::NamespaceMode::Target {
            return Ok(None);
        }
        let target = spec::namespace_options(config).map_or("", |of| of.target_id.as_str());
        let found = self.containers.iter().find(|(id, _)| id.as_str() == target);
        let why = match found.map(|(_, held)| &held.record.state) {
            Some(State::Running { pid, .. }) => return Ok(Some(*pid)),
            Some(_) => "it is not running",
            None if target.is_empty() => "namespace mode TARGET needs an id",
            None => "this pod has no such container",
        };
        let target = target.chars().take(80).flat_map(char::escape_default).collect();
        Err(Error::Spec { source: spec::Error::NoTarget { target, why } })
    }

    pub(super) fn started(
        &mut self,
        id: &ContainerId,
        result: std::result::Result<Started, Error>,
        roster: Arc<Roster>,
    ) {
        let Some(held) = self.containers.get_mut(id) else { return };
        let waiters = held.starting.take().unwrap_or_default();
        let early_exit = held.early_exit.take();
        let result = match result {
            Ok(Started { pid, at_ns }) => {
                self.advance(id, Event::Started { pid, at_ns });
                info!(container = %id.short(), pid, "container started");
                Ok(())
            }
            Err(err) => {
                warn!(container = %id.short(), error = %Chain(&err), "container did not start");
                let why = crate::cri::status::sentence(&err);
                self.advance(id, Event::StartFailed { why, at_ns: now_ns() });
                Err(Arc::new(err))
            }
        };
        self.tell_then_answer(id, roster, nri::Event::PostStartContainer, waiters, result);
        if let Some(exit) = early_exit {
            self.exited(id, exit);
        } else if self.client.is_none() {
            // The monitor went while this start was on its way.
            self.lose_containers();
        }
    }

    pub(super) fn exited(&mut self, id: &ContainerId, exit: Exit) {
        let Some(held) = self.containers.get_mut(id) else { return };
        if held.starting.is_some() {
            held.early_exit = Some(exit);
            return;
        }
        let seen = seen::of(&self.node, &self.record, id, &held.record, &exit, held.stop_asked);
        let how = match exit.how {
            ExitHow::Code(code) => How::Code { code, seen },
            ExitHow::Signal(signal) => How::Signal { signal, seen },
        };
        info!(container = %id.short(), how = ?exit.how, oom_kills = exit.oom_kills, "container ended");
        self.advance(id, Event::Exited { how, at_ns: exit.at_ns });
        self.tell_ended(id);
    }

    /// The container goes on; who reads its log must know that it has a hole.
    pub(super) fn log_lost(&self, id: &ContainerId, bytes: u64, errno: i32) {
        let log = self.containers.get(id).map_or("", |held| held.record.log_path.as_str());
        warn!(
            container = %id.short(), log, lost_bytes = bytes,
            error = %std::io::Error::from_raw_os_error(errno),
            hint = "make room on the filesystem of the log, or have the kubelet rotate earlier (`containerLogMaxSize`)",
            "output of a container is missing in its log"
        );
    }

    /// Every container that still counts as running has lost its monitor.
    pub(super) fn lose_containers(&mut self) {
        let running: Vec<_> = self
            .containers
            .iter()
            .filter(|(_, held)| matches!(held.record.state, State::Running { .. }))
            .map(|(id, _)| id.clone())
            .collect();
        for id in running {
            self.advance(&id, Event::Exited { how: How::Lost, at_ns: now_ns() });
            self.tell_ended(&id);
        }
    }

    pub(super) fn stop(&mut self, id: &ContainerId, grace_s: u64, reply: Reply<()>) {
        let Some(held) = self.containers.get_mut(id) else {
            return answer(Some(reply), Err(not_found(id)));
        };
        if !matches!(held.record.state, State::Running { .. }) && held.starting.is_none() {
            // What does not run is stopped.
            return answer(Some(reply), Ok(()));
        }
        let Some(client) = self.client.clone() else {
            return answer(Some(reply), Ok(()));
        };
        let first = !std::mem::replace(&mut held.stop_asked, true);
        let order = stop::Order {
            node: Arc::clone(&self.node),
            client,
            pod: self.id.clone(),
            pod_cgroup: self.record.cgroup.clone(),
            id: id.clone(),
            cgroup: held.record.cgroup.clone(),
            state: held.state.subscribe(),
            grace_s,
            // The process is asked once, however often the kubelet asks us.
            signal: first.then_some(held.record.stop_signal),
        };
        let waiter = self.next_waiter;
        self.next_waiter += 1;
        held.stopping.insert(waiter, reply);
        let id = id.clone();
        self.work.spawn(async move { Finished::Stopped(id, waiter, stop::stop(order).await) });
    }

    pub(super) fn stopped(
        &mut self,
        id: &ContainerId,
        waiter: u64,
        result: std::result::Result<(), Error>,
    ) {
        if let Some(held) = self.containers.get_mut(id) {
            answer(held.stopping.remove(&waiter), result.map_err(Arc::new));
        }
    }

    pub(super) fn remove(&mut self, id: &ContainerId, reply: Reply<()>) {
        match self.containers.get_mut(id) {
            Some(held) => {
                held.removing.push(reply);
                self.begin_remove(id);
            }
            None => answer(Some(reply), Ok(())),
        }
    }

    /// Kills what runs, then takes everything of it away.
    pub(super) fn begin_remove(&mut self, id: &ContainerId) {
        let Some(held) = self.containers.get_mut(id) else { return };
        if std::mem::replace(&mut held.removal, true) {
            return;
        }
        held.stop_asked = true;
        let runs = matches!(held.record.state, State::Running { .. }) || held.starting.is_some();
        let Some(client) = self.client.clone().filter(|_| runs) else {
            return self.removal_goes_on(id);
        };
        let kill = stop::Order {
            node: Arc::clone(&self.node),
            client,
            pod: self.id.clone(),
            pod_cgroup: self.record.cgroup.clone(),
            id: id.clone(),
            cgroup: held.record.cgroup.clone(),
            state: held.state.subscribe(),
            grace_s: 0,
            signal: None,
        };
        let id = id.clone();
        self.work.spawn(async move { Finished::Killed(id, stop::stop(kill).await) });
    }

    /// It does not run: recorded as being removed, then removed.
    pub(super) fn removal_goes_on(&mut self, id: &ContainerId) {
        self.advance(id, Event::RemoveAsked);
        let Some(held) = self.containers.get(id) else { return };
        let (node, client, record) =
            (Arc::clone(&self.node), self.client.clone(), Arc::clone(&held.record));
        let (before, about) = (self.told_so_far(id), self.about(id));
        let pod_cgroup = self.record.cgroup.clone();
        let id = id.clone();
        self.work.spawn(async move {
            told(before).await;
            if let Some(about) = about {
                about.tell(&node.plugins.roster(), nri::Event::RemoveContainer).await;
            }
            let removed = remove::remove(&node, client, &id, &record, pod_cgroup).await;
            Finished::Removed(id, removed)
        });
    }

    pub(super) fn removed(&mut self, id: &ContainerId, result: std::result::Result<(), Error>) {
        let Some(held) = self.containers.get_mut(id) else { return };
        let waiters = std::mem::take(&mut held.removing);
        held.removal = false;
        let creators = std::mem::take(&mut held.creating);
        let unmade = held.unmade.clone();
        let result = result.and_then(|()| {
            let removed = self.node.containers.remove(id.as_str());
            removed.map_err(|source| Error::Store { source })
        });
        let result: Result<()> = result.map_err(Arc::new);
        match &result {
            Ok(()) => {
                self.containers.remove(id);
                self.node.registry.leave_container(id);
                self.node.rates.forget(id.as_str());
                self.node.layers.forget(id.as_str());
                info!(container = %id.short(), "container removed");
            }
            Err(err) => {
                error!(container = %id.short(), error = %Chain(&**err), "container could not be removed");
                for waiter in self.remove_waiters.drain(..) {
                    answer(Some(waiter), Err(Arc::clone(err)));
                }
            }
        }
        self.publish();
        for (creator, err) in creators.into_iter().zip(unmade.iter().cycle()) {
            answer(Some(creator), Err(Arc::clone(err)));
        }
        for waiter in waiters {
            answer(Some(waiter), result.clone());
        }
    }

    pub(super) fn reopen_log(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(held) = self.containers.get(id) else {
            return answer(Some(reply), Err(not_found(id)));
        };
        let (State::Running { .. }, Some(client)) = (&held.record.state, self.client.clone())
        else {
            let err = wrong_state("reopen the log of", id, &held.record.state);
            return answer(Some(reply), Err(Arc::new(err)));
        };
        let (pod, record, id) = (Arc::clone(&self.record), Arc::clone(&held.record), id.clone());
        let node = Arc::clone(&self.node);
        self.work.spawn(async move {
            let result = reopen(&node, &client, &pod, &record, id).await;
            answer(Some(reply), result.map_err(Arc::new));
            Finished::Nothing
        });
    }

    /// Moves a container's machine on, records and shows it.
    fn advance(&mut self, id: &ContainerId, event: Event) {
        let Some(held) = self.containers.get_mut(id) else { return };
        match held.record.state.clone().next(event) {
            Ok(state) => {
                Arc::make_mut(&mut held.record).state = state.clone();
                held.state.send_replace(state);
            }
            Err(refused) => {
                error!(container = %id, error = %refused, "container machine refused an event")
            }
        }
        self.save_container(id);
        self.publish();
    }

    pub(super) fn save_container(&self, id: &ContainerId) {
        let Some(held) = self.containers.get(id) else { return };
        if let Err(err) = self.node.containers.save(id.as_str(), &*held.record) {
            error!(container = %id, error = %Chain(&err), "container record not written");
        }
    }

    fn wrong_state(&self, verb: &'static str) -> Error {
        Error::WrongState {
            verb,
            kind: "pod",
            id: self.id.to_string(),
            state: self.record.state.name(),
        }
    }
}

enum Begun {
    New(ContainerId),
    Joined(ContainerId),
}

async fn reopen(
    node: &Node,
    client: &monitors::Client,
    pod: &Arc<crate::pod::PodRecord>,
    record: &Arc<ContainerRecord>,
    id: ContainerId,
) -> std::result::Result<(), Error> {
    let Some(file) = log::open_in_time(&node.storage, pod, record).await? else { return Ok(()) };
    let told = client.tell(Verb::ReopenLog { container: id }, vec![file]).await;
    told.map_err(|source| Error::Monitor { doing: "reopen the container's log", source })
}

pub(super) fn not_found(id: &ContainerId) -> Arc<Error> {
    Arc::new(Error::NotFound { kind: "container", id: id.to_string() })
}

pub(super) fn wrong_state(verb: &'static str, id: &ContainerId, state: &State) -> Error {
    Error::WrongState { verb, kind: "container", id: id.to_string(), state: state.name() }
}
