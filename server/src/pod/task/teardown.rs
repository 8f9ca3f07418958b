// SPDX-License-Identifier: Apache-2.0
//! The half of a pod's task that is about its end: stopping, taking down, removing, forgetting.
//!
//! ```text
//! stop ─▶ containers are killed ─▶ plugins are told ─▶ parts are taken down ─▶ Stopped
//! remove, once Stopped ─▶ containers are removed ─▶ plugins are told ─▶ record is removed
//! ```

use super::plugins::told;
use super::{Finished, Task, answer};
use crate::container;
use crate::error::{Chain, Error};
use crate::nri::verbs;
use crate::pod::state::{Event, State};
use crate::pod::{Reply, parts};
use hull_proto::nri;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info};

/// When a teardown that failed is tried again without being asked; each further one after twice the
/// time, up to a minute or so. Network plugins whose agent is down need no kubelet to be asked again.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_DOUBLED_MAX: u32 = 6;

impl Task {
    pub(super) fn stop_pod(&mut self, reply: Option<Reply<()>>) {
        match self.record.state {
            State::Stopped => {
                answer(reply, Ok(()));
                self.remove_when_possible();
                return;
            }
            State::Building => {
                self.transition(&Event::StopAsked);
                self.stop_waiters.extend(reply);
                return;
            }
            State::Ready { .. } => info!("stopping pod"),
            State::Stopping => {}
        }
        self.transition(&Event::StopAsked);
        self.stop_waiters.extend(reply);
        self.tear_down();
    }

    /// As RemovePodSandbox, with nobody who waits for it.
    pub(super) fn remove_pod_unasked(&mut self) {
        let (reply, _nobody) = tokio::sync::oneshot::channel();
        self.remove_waiters.push(reply);
        self.stop_pod(None);
    }

    /// Ends the containers, then the sandbox. One at a time; whoever asks meanwhile waits for it.
    pub(super) fn tear_down(&mut self) {
        if self.tearing_down || self.leaving {
            return;
        }
        self.tearing_down = true;
        let client = self.client.clone();
        let running: Vec<_> = self
            .containers
            .iter_mut()
            .filter(|(_, held)| matches!(held.record.state, container::State::Running { .. }))
            .map(|(id, held)| {
                held.stop_asked = true;
                (id.clone(), held.state.subscribe())
            })
            .collect();
        let (Some(client), false) = (client, running.is_empty()) else {
            return self.containers_ended();
        };
        self.work.spawn(async move {
            container::stop::kill_all(&client, running).await;
            Finished::ContainersEnded
        });
    }

    /// The containers have ended, as far as they will: plugins are told, then the sandbox goes.
    pub(super) fn containers_ended(&mut self) {
        let (node, id, record) =
            (Arc::clone(&self.node), self.id.clone(), Arc::clone(&self.record));
        let client = self.client.clone();
        let cgroups = self.containers.values().map(|held| held.record.cgroup.clone()).collect();
        let before: Vec<_> = self.containers.values().map(|held| held.told.clone()).collect();
        // Once, however often the teardown is tried.
        let roster = std::mem::take(&mut self.announced).then(|| self.node.plugins.roster());
        self.work.spawn(async move {
            if let Some(roster) = roster {
                for before in before {
                    told(before).await;
                }
                verbs::tell_pod(&roster, nri::Event::StopPodSandbox, &record).await;
            }
            Finished::TornDown(parts::take_down(&node, &id, &record, cgroups, client).await)
        });
    }

    pub(super) fn torn_down(&mut self, result: std::result::Result<(), parts::Error>) {
        self.tearing_down = false;
        match result {
            Ok(()) => {
                self.client = None;
                self.failed_teardowns = 0;
                self.lose_containers();
                if self.failure.is_some() {
                    // It never was, so it never is Stopped either.
                    return self.leave();
                }
                self.transition(&Event::TornDown);
                info!("pod stopped");
                for waiter in self.stop_waiters.drain(..) {
                    answer(Some(waiter), Ok(()));
                }
            }
            Err(source) => {
                let again = AGAIN_MIN * 2_u32.pow(self.failed_teardowns.min(AGAIN_DOUBLED_MAX));
                self.failed_teardowns += 1;
                error!(error = %Chain(&source), again_s = again.as_secs(), "pod could not be torn down; it stays NOTREADY until it can");
                self.work.spawn(async move {
                    tokio::time::sleep(again).await;
                    Finished::TearDownAgain
                });
                let error = Arc::new(Error::Parts { doing: "tear down", source });
                for waiter in self.stop_waiters.drain(..).chain(self.remove_waiters.drain(..)) {
                    answer(Some(waiter), Err(Arc::clone(&error)));
                }
                self.settled = true;
                self.publish();
            }
        }
    }

    /// Goes on with a removal: the pod is stopped first, then its containers go, then its record.
    pub(super) fn remove_when_possible(&mut self) {
        if self.remove_waiters.is_empty() || !matches!(self.record.state, State::Stopped) {
            return;
        }
        if self.containers.is_empty() {
            self.leave();
            return;
        }
        let ids: Vec<_> = self.containers.keys().cloned().collect();
        for id in ids {
            self.begin_remove(&id);
        }
    }

    /// Nothing of it is left but the record: plugins are told that it goes, then it is forgotten.
    fn leave(&mut self) {
        let roster = self.node.plugins.roster();
        if !self.known || !roster.hears(nri::Event::RemovePodSandbox) {
            return self.forget();
        }
        if std::mem::replace(&mut self.leaving, true) {
            return;
        }
        let record = Arc::clone(&self.record);
        self.work.spawn(async move {
            verbs::tell_pod(&roster, nri::Event::RemovePodSandbox, &record).await;
            Finished::ToldOfEnd
        });
    }

    /// The pod is gone: the record last.
    pub(super) fn forget(&mut self) {
        let removed = self.node.pods.remove(self.id.as_str());
        let result = removed.map_err(|source| Arc::new(Error::Store { source }));
        if result.is_ok() {
            self.node.registry.leave(&self.id, &self.key);
            self.node.rates.forget(self.id.as_str());
            self.gone = true;
        }
        for waiter in self.stop_waiters.drain(..).chain(self.remove_waiters.drain(..)) {
            answer(Some(waiter), result.clone());
        }
        // One whose record would not go can be asked for again.
        self.leaving = false;
        // Those who wait for a pod that could not be built hear why only now, when nothing of it is
        // left.
        self.settled = true;
        self.publish();
        info!("pod removed");
    }
}
