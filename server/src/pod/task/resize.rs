// SPDX-License-Identifier: Apache-2.0
//! UpdatePodSandboxResources: what a pod is to have in all, recorded for who asks after it, when no plugin
//! refuses it.

use super::{Finished, Task, answer};
use crate::error::Error;
use crate::nri::verbs;
use crate::pod::{Reply, Sizes};
use hull_nri::Roster;
use hull_proto::nri::Event;
use std::sync::Arc;

/// What is wanted, by whom, and the plugins that know of it.
#[derive(Debug)]
pub(super) struct Wanted {
    sizes: Sizes,
    reply: Reply<()>,
    roster: Arc<Roster>,
}

impl Task {
    /// Asks plugins, if any hears of it, then goes on.
    pub(super) fn resize(&mut self, sizes: Sizes, reply: Reply<()>) {
        let roster = self.node.plugins.roster();
        let wanted = Wanted { sizes, reply, roster };
        if !wanted.roster.hears(Event::UpdatePodSandbox) || !self.record.state.is_ready() {
            return self.resizable(wanted, Ok(()));
        }
        let record = Arc::clone(&self.record);
        self.work.spawn(async move {
            let Sizes { overhead, resources } = &wanted.sizes;
            let asked =
                verbs::update_pod(&wanted.roster, &record, overhead.as_ref(), resources.as_ref());
            let asked = asked.await;
            Finished::Resizable(Box::new(wanted), asked)
        });
    }

    /// Records what the pod is to have in all. Its cgroup is the kubelet's to write.
    pub(super) fn resizable(&mut self, wanted: Wanted, asked: std::result::Result<(), Error>) {
        let Wanted { sizes, reply, roster } = wanted;
        let result = asked.and_then(|()| self.record_sizes(sizes)).map_err(Arc::new);
        if result.is_err() || !roster.hears(Event::PostUpdatePodSandbox) {
            return answer(Some(reply), result);
        }
        let record = Arc::clone(&self.record);
        self.work.spawn(async move {
            verbs::tell_pod(&roster, Event::PostUpdatePodSandbox, &record).await;
            answer(Some(reply), result);
            Finished::Nothing
        });
    }

    fn record_sizes(&mut self, sizes: Sizes) -> std::result::Result<(), Error> {
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
        let saved = self.node.pods.save(self.id.as_str(), &record);
        saved.map_err(|source| Error::Store { source })?;
        self.record = Arc::new(record);
        self.publish();
        Ok(())
    }
}
