// SPDX-License-Identifier: Apache-2.0
//! The removal of a container: of one that exists, and of what a failed creation left.

use super::containers::{held, not_found};
use super::data::{Task, answer};
use super::entry::ContainerEntry;
use super::operation::Removed;
use super::plugins::notified;
use super::result::WorkResult;
use super::timeline::stage;
use crate::container::State;
use crate::container::state::Event;
use crate::container::{remove, stop};
use crate::error::{Chain, Error, Result};
use crate::pod::Reply;
use crate::storage::blocking;
use hull_proto::id::ContainerId;
use hull_proto::nri;
use std::sync::Arc;
use tracing::{error, info};

impl Task {
    pub(super) async fn remove(&mut self, id: &ContainerId, reply: Reply<()>) {
        if self.containers.get(id).is_some_and(ContainerEntry::is_held) {
            return answer(Some(reply), Err(Arc::new(held("remove", id))));
        }
        self.cancel_restarts(id).await;
        if self.containers.contains_key(id) {
            self.begin_remove(id, Some(reply)).await;
        } else {
            answer(Some(reply), Ok(()));
        }
    }

    /// Holds a container that does not run, for a client that uses its files.
    pub(super) fn hold(&mut self, id: &ContainerId, reply: Reply<Arc<()>>) {
        let restarts = self.restarts(id);
        let Some(entry) = self.containers.get_mut(id) else {
            return answer(Some(reply), Err(not_found(id)));
        };
        let rests = matches!(entry.record.state, State::Created | State::Exited { .. })
            && entry.operation.is_idle();
        if !rests || restarts || !entry.restart.is_no() {
            let is_starting = entry.operation.is_starting();
            let state = match entry.record.state.name() {
                _ if rests => "about to be restarted",
                _ if is_starting => "being started",
                name => name,
            };
            let (verb, kind, id) = ("copy files of", "container", id.to_string());
            return answer(Some(reply), Err(Arc::new(Error::WrongState { verb, kind, id, state })));
        }
        // Several copies at a time would mount the same writable layer twice.
        if entry.is_held() {
            return answer(Some(reply), Err(Arc::new(held("copy files of", id))));
        }
        let hold = Arc::new(());
        entry.hold = Arc::downgrade(&hold);
        answer(Some(reply), Ok(hold));
    }

    /// Kills what runs, then removes the container. A removal in progress is joined.
    pub(super) async fn begin_remove(&mut self, id: &ContainerId, waiter: Option<Reply<()>>) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        if !entry.operation.begin_remove(waiter) {
            return;
        }
        entry.stop.request();
        let runs = entry.is_running() || entry.operation.is_starting();
        let Some(client) = self.client.clone().filter(|_| runs) else {
            return self.remove_stopped(id).await;
        };
        self.record_stop_request(id).await;
        let Some(entry) = self.containers.get(id) else { return };
        let kill = self.stop_params(id, entry, client, 0, None);
        let (done, failed) = (id.clone(), id.clone());
        let panicked = |err| WorkResult::Killed(failed, Err(err));
        self.work.spawn("kill the container", panicked, async move {
            WorkResult::Killed(done, stop::stop(kill).await)
        });
    }

    /// The container does not run: recorded as being removed, then removed.
    pub(super) async fn remove_stopped(&mut self, id: &ContainerId) {
        self.begin_container_stage(id, stage::REMOVE);
        self.advance(id, Event::RemoveAsked).await;
        let Some(entry) = self.containers.get(id) else { return };
        let (node, client, record) =
            (Arc::clone(&self.node), self.client.clone(), Arc::clone(&entry.record));
        let (before, nri_context) = (self.notified_so_far(id), self.nri_context(id));
        let pod_cgroup = self.record.cgroup.clone();
        let (id, failed) = (id.clone(), id.clone());
        let panicked = |err| WorkResult::Removed(failed, Err(err));
        self.work.spawn("remove the container", panicked, async move {
            notified(before).await;
            if let Some(nri_context) = nri_context {
                nri_context.notify(&node.plugins.current(), nri::Event::RemoveContainer).await;
            }
            let removed = remove::remove(&node, client, &id, &record, pod_cgroup).await;
            let removed = match removed {
                // The record goes last.
                Ok(()) => blocking(move || node.containers.remove(&record.id))
                    .await
                    .map_err(|source| Error::Store { source }),
                Err(err) => Err(err),
            };
            WorkResult::Removed(id, removed)
        });
    }

    pub(super) async fn removed(
        &mut self,
        id: &ContainerId,
        result: std::result::Result<(), Error>,
    ) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        let Removed { waiters, creators } = entry.operation.removal_ended();
        self.end_container_stage(id, stage::REMOVE, result.as_ref().err());
        let result: Result<()> = result.map_err(Arc::new);
        match &result {
            Ok(()) => {
                let removed = self.containers.remove(id);
                self.node.history.gone(id.as_str());
                self.node.registry.leave_container(id);
                self.node.rates.forget(id.as_str());
                self.node.layers.forget(id.as_str());
                let name = removed.as_ref().map_or("", |entry| entry.record.metadata().0);
                let image = removed.as_ref().map_or("", |entry| entry.record.image_name());
                info!(container = name, container_id = %id.short(), image, "container removed");
            }
            Err(err) => {
                error!(container = self.name_of(id), container_id = %id.short(), error = %Chain(&**err), "container could not be removed");
                for waiter in self.remove_waiters.drain(..) {
                    answer(Some(waiter), Err(Arc::clone(err)));
                }
            }
        }
        self.publish();
        if let Some((error, creators)) = creators {
            for creator in creators {
                answer(Some(creator), Err(Arc::clone(&error)));
            }
        }
        for waiter in waiters {
            answer(Some(waiter), result.clone());
        }
    }
}
