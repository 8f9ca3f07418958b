// SPDX-License-Identifier: Apache-2.0
//! What a pod's task has to do with plugins: which of its work tells them of a container, in order.
//!
//! What has happened to a container is told in the order in which it happened: each piece of such work
//! waits for the one before. The task itself waits for none.

use super::{Finished, Held, Task, answer};
use crate::error::Result;
use crate::nri::verbs::About;
use crate::pod::Reply;
use hull_nri::Roster;
use hull_proto::id::ContainerId;
use hull_proto::nri::Event;
use std::sync::Arc;
use tokio::sync::watch;

/// Ends when the work that tells plugins is done.
pub(super) type Told = watch::Receiver<()>;

/// Waits until plugins were told what came before.
pub(super) async fn told(before: Option<Told>) {
    if let Some(mut before) = before {
        // Nothing is ever sent: this is only about the end.
        while before.changed().await.is_ok() {}
    }
}

impl Held {
    /// A place in the order: what came before, and what those that come after wait for.
    fn place(&mut self) -> (Option<Told>, watch::Sender<()>) {
        let (done, ends) = watch::channel(());
        (self.told.replace(ends), done)
    }
}

impl Task {
    /// All that plugins are told of a container.
    pub(super) fn about(&self, id: &ContainerId) -> Option<About> {
        let held = self.containers.get(id)?;
        Some(About {
            node: Arc::clone(&self.node),
            pod: self.id.clone(),
            pod_record: Arc::clone(&self.record),
            record: Arc::clone(&held.record),
        })
    }

    /// Tells plugins that something has happened to a container, then answers those who asked for it.
    pub(super) fn tell_then_answer<T: Clone + Send + 'static>(
        &mut self,
        id: &ContainerId,
        roster: Arc<Roster>,
        event: Event,
        waiters: Vec<Reply<T>>,
        result: Result<T>,
    ) {
        let about = self.about(id).filter(|_| result.is_ok() && roster.hears(event));
        let (Some(about), Some(held)) = (about, self.containers.get_mut(id)) else {
            waiters.into_iter().for_each(|waiter| answer(Some(waiter), result.clone()));
            return;
        };
        let (before, done) = held.place();
        self.work.spawn(async move {
            told(before).await;
            about.tell(&roster, event).await;
            drop(done);
            waiters.into_iter().for_each(|waiter| answer(Some(waiter), result.clone()));
            Finished::Nothing
        });
    }

    /// Tells plugins that a container has ended.
    pub(super) fn tell_ended(&mut self, id: &ContainerId) {
        let roster = self.node.plugins.roster();
        let about = self.about(id).filter(|_| roster.hears(Event::StopContainer));
        let (Some(about), Some(held)) = (about, self.containers.get_mut(id)) else { return };
        let (before, done) = held.place();
        self.work.spawn(async move {
            told(before).await;
            about.stopped(&roster).await;
            drop(done);
            Finished::Nothing
        });
    }

    /// What must have been told before a container is removed.
    pub(super) fn told_so_far(&self, id: &ContainerId) -> Option<Told> {
        self.containers.get(id)?.told.clone()
    }
}
