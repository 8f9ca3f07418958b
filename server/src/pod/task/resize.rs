// SPDX-License-Identifier: Apache-2.0
//! UpdatePodSandboxResources: records the pod-level resources so that later status calls can report them, unless a
//! plugin refuses them.

use super::data::{Task, answer};
use super::result::{Resize, WorkResult};
use crate::error::Error;
use crate::nri::verbs;
use crate::pod::{Reply, Sizes};
use crate::storage::blocking;
use hull_proto::nri::Event;
use std::sync::Arc;

impl Task {
    /// Asks plugins, if any is subscribed, then records the resources.
    pub(super) async fn resize(&mut self, sizes: Sizes, reply: Reply<()>) {
        let plugin_set = self.node.plugins.current();
        let wanted = Resize { sizes, reply, plugin_set };
        if !wanted.plugin_set.is_subscribed(Event::UpdatePodSandbox)
            || !self.record.state.is_ready()
        {
            return self.resizable(wanted, Ok(())).await;
        }
        let record = Arc::clone(&self.record);
        self.work.spawn(
            "call plugins about new pod resources",
            |_| WorkResult::Nothing,
            async move {
                let Sizes { overhead, resources } = &wanted.sizes;
                let request = verbs::update_pod(
                    &wanted.plugin_set,
                    &record,
                    overhead.as_ref(),
                    resources.as_ref(),
                );
                let allowed = request.await;
                WorkResult::ResizeAllowed(Box::new(wanted), allowed)
            },
        );
    }

    /// Records the pod-level resources. The kubelet writes the pod's cgroup itself.
    pub(super) async fn resizable(
        &mut self,
        wanted: Resize,
        allowed: std::result::Result<(), Error>,
    ) {
        let Resize { sizes, reply, plugin_set } = wanted;
        let recorded = match allowed {
            Ok(()) => self.record_sizes(sizes).await,
            Err(refused) => Err(refused),
        };
        let result = recorded.map_err(Arc::new);
        if result.is_err() || !plugin_set.is_subscribed(Event::PostUpdatePodSandbox) {
            return answer(Some(reply), result);
        }
        let record = Arc::clone(&self.record);
        self.work.spawn("notify plugins", |_| WorkResult::Nothing, async move {
            verbs::notify_pod(&plugin_set, Event::PostUpdatePodSandbox, &record).await;
            answer(Some(reply), result);
            WorkResult::Nothing
        });
    }

    async fn record_sizes(&mut self, sizes: Sizes) -> std::result::Result<(), Error> {
        if !self.record.state.is_ready() {
            return Err(Error::WrongState {
                verb: "resize",
                kind: "pod",
                id: self.id.to_string(),
                state: self.record.state.name(),
            });
        }
        let mut record = (*self.record).clone();
        let linux = record.config.linux.get_or_insert_default();
        linux.overhead = sizes.overhead.or(linux.overhead.take());
        linux.resources = sizes.resources.or(linux.resources.take());
        let (node, record) = (Arc::clone(&self.node), Arc::new(record));
        let wanted = Arc::clone(&record);
        let saved = blocking(move || node.pods.save(&wanted.id, &*wanted)).await;
        saved.map_err(|source| Error::Store { source })?;
        self.record = record;
        self.publish();
        Ok(())
    }
}
