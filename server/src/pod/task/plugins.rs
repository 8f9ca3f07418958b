// SPDX-License-Identifier: Apache-2.0
//! Notifications of NRI plugins about a container, in order.
//!
//! Plugins receive the events of a container in the order in which they happened: each piece of such work waits
//! for the one before. The task itself waits for none.

use super::data::{Task, answer};
use super::entry::Notified;
use super::result::WorkResult;
use crate::error::Result;
use crate::nri::verbs::NriContext;
use crate::pod::Reply;
use hull_nri::PluginSet;
use hull_proto::id::ContainerId;
use hull_proto::nri::Event;
use std::sync::Arc;

/// Waits until plugins have been notified of earlier events.
pub(super) async fn notified(before: Option<Notified>) {
    if let Some(mut before) = before {
        // Nothing is ever sent: only the end counts.
        while before.changed().await.is_ok() {}
    }
}

impl Task {
    /// The container and its pod, as NRI events describe them.
    pub(super) fn nri_context(&self, id: &ContainerId) -> Option<NriContext> {
        let entry = self.containers.get(id)?;
        Some(NriContext {
            node: Arc::clone(&self.node),
            pod: self.id.clone(),
            pod_record: Arc::clone(&self.record),
            record: Arc::clone(&entry.record),
        })
    }

    /// Notifies plugins of an event, then answers the callers who requested it.
    pub(super) fn notify_then_answer<T: Clone + Send + 'static>(
        &mut self,
        id: &ContainerId,
        plugin_set: Arc<PluginSet>,
        event: Event,
        waiters: Vec<Reply<T>>,
        result: Result<T>,
    ) {
        let nri_context =
            self.nri_context(id).filter(|_| result.is_ok() && plugin_set.is_subscribed(event));
        let (Some(nri_context), Some(entry)) = (nri_context, self.containers.get_mut(id)) else {
            waiters.into_iter().for_each(|waiter| answer(Some(waiter), result.clone()));
            return;
        };
        let (before, done) = entry.place();
        self.work.spawn("notify plugins", |_| WorkResult::Nothing, async move {
            notified(before).await;
            nri_context.notify(&plugin_set, event).await;
            drop(done);
            waiters.into_iter().for_each(|waiter| answer(Some(waiter), result.clone()));
            WorkResult::Nothing
        });
    }

    /// Notifies plugins that a container exited.
    pub(super) fn notify_exited(&mut self, id: &ContainerId) {
        let plugin_set = self.node.plugins.current();
        let nri_context =
            self.nri_context(id).filter(|_| plugin_set.is_subscribed(Event::StopContainer));
        let (Some(nri_context), Some(entry)) = (nri_context, self.containers.get_mut(id)) else {
            return;
        };
        let (before, done) = entry.place();
        self.work.spawn("notify plugins", |_| WorkResult::Nothing, async move {
            notified(before).await;
            nri_context.notify_stopped(&plugin_set).await;
            drop(done);
            WorkResult::Nothing
        });
    }

    /// The notifications that must be done before a container is removed.
    pub(super) fn notified_so_far(&self, id: &ContainerId) -> Option<Notified> {
        self.containers.get(id)?.notified.clone()
    }
}
