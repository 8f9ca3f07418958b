// SPDX-License-Identifier: Apache-2.0
//! The half of a pod's task that is about its end: stop, teardown, removal.
//!
//! ```text
//! stop ─▶ containers are killed ─▶ plugins are notified ─▶ parts are taken down ─▶ Stopped
//! remove, once Stopped ─▶ containers are removed ─▶ plugins are notified ─▶ record is removed
//! ```

use super::data::{Task, answer};
use super::entry::ContainerEntry;
use super::plugins::notified;
use super::result::WorkResult;
use super::teardown_state::{NriVisibility, Removal};
use super::timeline::stage;
use crate::container;
use crate::error::{Chain, Error};
use crate::nri::verbs;
use crate::pod::state::{Event, State};
use crate::pod::{self, Reply, auto_remove, teardown};
use crate::storage::blocking;
use hull_proto::nri;
use std::path::PathBuf;
use std::sync::Arc;
use tracing::{error, info, warn};

impl Task {
    pub(super) async fn stop_pod(&mut self, reply: Option<Reply<()>>) {
        match self.record.state {
            State::Stopped => {
                answer(reply, Ok(()));
                self.remove_when_possible().await;
                return;
            }
            State::Building => {
                self.transition(&Event::StopAsked).await;
                self.stop_waiters.extend(reply);
                return;
            }
            State::Ready { .. } => info!("stopping pod"),
            State::Stopping => {}
        }
        self.transition(&Event::StopAsked).await;
        self.stop_waiters.extend(reply);
        self.tear_down().await;
    }

    /// RemovePodSandbox without a caller.
    pub(super) async fn remove_automatically(&mut self) {
        let (reply, _nobody) = tokio::sync::oneshot::channel();
        self.remove_waiters.push(reply);
        self.stop_pod(None).await;
    }

    /// Begins to remove a pod of `hull run --rm -d` whose containers have all exited. Its last container may have exited
    /// while there was no daemon. Returns whether it begins.
    pub(super) async fn remove_if_over(&mut self) -> bool {
        let over = match self.record.state {
            State::Building => false,
            State::Ready { .. } => !self.containers.is_empty(),
            State::Stopping | State::Stopped => true,
        };
        let has_exited =
            |entry: &ContainerEntry| matches!(entry.record.state, container::State::Exited { .. });
        let waits = self.removal == Removal::OnRequest && self.logs_to_remove().is_some();
        let begins = waits && over && self.containers.values().all(has_exited);
        if begins {
            info!("its containers have exited; the pod is removed");
            self.removal = Removal::WithLogs;
            self.remove_automatically().await;
        }
        begins
    }

    fn logs_to_remove(&self) -> Option<PathBuf> {
        auto_remove::logs_to_remove(&self.record, &self.node.config.current().data_dir)
    }

    /// Removes the logs of a pod that goes with them.
    async fn remove_logs(&self) {
        let Some(directory) = self.logs_to_remove() else { return };
        let path = directory.clone();
        if let Err(err) = blocking(move || auto_remove::remove_logs(&path)).await {
            warn!(error = %err, directory = %directory.display(), "logs of a removed pod are left");
        }
    }

    /// Ends the containers, then the sandbox. One teardown runs at a time; later requests wait for it.
    pub(super) async fn tear_down(&mut self) {
        if !self.teardown.begin() {
            return;
        }
        self.begin_stage(stage::STOP_POD);
        let running = self.containers.iter().filter(|(_, entry)| entry.is_running());
        let running: Vec<_> =
            running.map(|(id, entry)| (id.clone(), entry.state.subscribe())).collect();
        for (id, _) in &running {
            if let Some(entry) = self.containers.get_mut(id) {
                entry.stop.request();
            }
            self.record_stop_request(id).await;
        }
        let (Some(client), false) = (self.client.clone(), running.is_empty()) else {
            return self.containers_ended();
        };
        let panicked = |_| WorkResult::ContainersEnded;
        self.work.spawn("kill the pod's containers", panicked, async move {
            container::stop::kill_all(&client, running).await;
            WorkResult::ContainersEnded
        });
    }

    /// The containers have exited, as far as they do: plugins are notified, then the sandbox goes.
    pub(super) fn containers_ended(&mut self) {
        let (node, id, record) =
            (Arc::clone(&self.node), self.id.clone(), Arc::clone(&self.record));
        let client = self.client.clone();
        let cgroups = self.containers.values().map(|entry| entry.record.cgroup.clone()).collect();
        let before: Vec<_> = self.containers.values().map(|entry| entry.notified.clone()).collect();
        // Once, however often the teardown is tried.
        let plugin_set = self.nri.stop().then(|| self.node.plugins.current());
        let panicked =
            |err| WorkResult::TornDown(Err(pod::Error::Internal { source: Box::new(err) }));
        self.work.spawn("tear the pod down", panicked, async move {
            if let Some(plugin_set) = plugin_set {
                for before in before {
                    notified(before).await;
                }
                verbs::notify_pod(&plugin_set, nri::Event::StopPodSandbox, &record).await;
            }
            WorkResult::TornDown(teardown::take_down(&node, &id, &record, cgroups, client).await)
        });
    }

    pub(super) async fn torn_down(&mut self, result: std::result::Result<(), pod::Error>) {
        self.node.history.end_stage(self.id.as_str(), stage::STOP_POD, failure(&result));
        self.node.history.settle();
        match result {
            Ok(()) => {
                self.client = None;
                self.teardown.succeeded();
                self.lose_containers().await;
                if self.failure.is_some() {
                    // It was never ready, so it is not reported as stopped either.
                    return self.leave().await;
                }
                self.transition(&Event::TornDown).await;
                info!("pod stopped");
                for waiter in self.stop_waiters.drain(..) {
                    answer(Some(waiter), Ok(()));
                }
            }
            Err(source) => {
                let (again, failures) = self.teardown.failed();
                error!(error = %Chain(&source), again_s = again.as_secs(), "pod could not be torn down; it stays NOTREADY until it can");
                let panicked = move |_| WorkResult::RetryTeardown(failures);
                self.work.spawn("wait for the next teardown", panicked, async move {
                    tokio::time::sleep(again).await;
                    WorkResult::RetryTeardown(failures)
                });
                let error = Arc::new(Error::Parts { doing: "tear down", source });
                for waiter in self.stop_waiters.drain(..).chain(self.remove_waiters.drain(..)) {
                    answer(Some(waiter), Err(Arc::clone(&error)));
                }
                self.publish();
            }
        }
    }

    /// Goes on with a removal: the pod is stopped first, then its containers go, then its record.
    pub(super) async fn remove_when_possible(&mut self) {
        if self.remove_waiters.is_empty() || !matches!(self.record.state, State::Stopped) {
            return;
        }
        if self.containers.is_empty() {
            self.leave().await;
            return;
        }
        let ids: Vec<_> = self.containers.keys().cloned().collect();
        for id in ids {
            self.begin_remove(&id, None).await;
        }
    }

    /// Only the record is left: plugins are notified that the pod goes, then the record is removed.
    async fn leave(&mut self) {
        let plugin_set = self.node.plugins.current();
        if !self.teardown.notify() {
            return;
        }
        if self.nri == NriVisibility::Unknown
            || !plugin_set.is_subscribed(nri::Event::RemovePodSandbox)
        {
            return self.forget().await;
        }
        let record = Arc::clone(&self.record);
        let panicked = |_| WorkResult::PluginsNotifiedOfRemoval;
        self.work.spawn("notify plugins", panicked, async move {
            verbs::notify_pod(&plugin_set, nri::Event::RemovePodSandbox, &record).await;
            WorkResult::PluginsNotifiedOfRemoval
        });
    }

    /// The pod is gone: the record last.
    pub(super) async fn forget(&mut self) {
        if self.removal == Removal::WithLogs {
            self.remove_logs().await;
        }
        let (node, id) = (Arc::clone(&self.node), self.id.clone());
        let removed = blocking(move || node.pods.remove(id.as_str())).await;
        let result = removed.map_err(|source| Arc::new(Error::Store { source }));
        self.teardown.record_removed(result.is_ok());
        if result.is_ok() {
            self.node.registry.leave(&self.id, &self.key);
            self.node.history.gone(self.id.as_str());
            self.node.rates.forget(self.id.as_str());
        }
        for waiter in self.stop_waiters.drain(..).chain(self.remove_waiters.drain(..)) {
            answer(Some(waiter), result.clone());
        }
        // Callers that wait for a pod that could not be built get the reason only now, when nothing of it is left.
        self.publish();
        if result.is_ok() {
            info!("pod removed");
        }
    }
}

/// The reason of a failed teardown; empty if it succeeded.
fn failure(result: &std::result::Result<(), pod::Error>) -> String {
    result.as_ref().err().map(|err| Chain(err).to_string()).unwrap_or_default()
}
