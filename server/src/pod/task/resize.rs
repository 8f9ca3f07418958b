// SPDX-License-Identifier: Apache-2.0
//! UpdatePodSandboxResources: what a pod is to have in all, recorded for who asks after it.

use super::{Task, answer};
use crate::error::Error;
use crate::pod::{Reply, Sizes};
use std::sync::Arc;

impl Task {
    /// Records what the pod is to have in all. Its cgroup is the kubelet's to write.
    pub(super) fn resize(&mut self, sizes: Sizes, reply: Reply<()>) {
        if !self.record.state.is_ready() {
            let wrong = Error::WrongState {
                verb: "resize",
                kind: "pod",
                id: self.id.to_string(),
                state: self.record.state.name(),
            };
            answer(Some(reply), Err(Arc::new(wrong)));
            return;
        }
        let mut record = (*self.record).clone();
        let linux = record.config.linux.get_or_insert_default();
        linux.overhead = sizes.overhead.or(linux.overhead.take());
        linux.resources = sizes.resources.or(linux.resources.take());
        let saved = self.node.pods.save(self.id.as_str(), &record);
        if saved.is_ok() {
            self.record = Arc::new(record);
            self.publish();
        }
        answer(Some(reply), saved.map_err(|source| Arc::new(Error::Store { source })));
    }
}
