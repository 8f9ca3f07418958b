// SPDX-License-Identifier: Apache-2.0
//! Tells the node's history what happens to the pod and its containers: the verbs as stages, and the ends.

use super::data::Task;
use crate::container::state::ExitReason;
use crate::container::{ContainerRecord, State};
use crate::diagnostics::ending;
use crate::error::{Error, sentence};
use crate::node::now_ns;
use crate::pod::timeline;
use hull_proto::id::ContainerId;
use tracing::warn;

/// The stages that are verbs of CRI.
pub(super) mod stage {
    pub(crate) const START_POD: &str = "start pod";
    pub(crate) const STOP_POD: &str = "stop pod";
    pub(crate) const CREATE: &str = "create container";
    pub(crate) const START: &str = "start container";
    pub(crate) const STOP: &str = "stop container";
    pub(crate) const REMOVE: &str = "remove container";
}

impl Task {
    /// Begins the timeline of this pod, and its first stage.
    pub(super) fn begin_timeline(&self) {
        self.node.history.begin(timeline::of_pod(&self.record));
        self.begin_stage(stage::START_POD);
    }

    /// Begins the timeline of a container, and its first stage.
    pub(super) fn begin_container_timeline(&self, record: &ContainerRecord) {
        self.node.history.begin(timeline::of_container(&self.record, record));
        self.node.history.begin_stage(&record.id, "", stage::CREATE);
    }

    /// Begins a verb of the pod.
    pub(super) fn begin_stage(&self, name: &'static str) {
        self.node.history.begin_stage(self.id.as_str(), "", name);
    }

    /// Ends a verb of the pod, and has the timeline written.
    pub(super) fn end_stage(&self, name: &'static str, failure: Option<&Error>) {
        self.node.history.end_stage(self.id.as_str(), name, text(failure));
        self.node.history.settle();
    }

    /// The pod could not be built.
    pub(super) fn record_build_failure(&self, error: &Error) {
        let end = ending::of_error(error, "StartError", now_ns());
        self.node.history.end(self.id.as_str(), end);
        self.end_stage(stage::START_POD, Some(error));
    }

    /// Begins a verb of a container.
    pub(super) fn begin_container_stage(&self, id: &ContainerId, name: &'static str) {
        self.node.history.begin_stage(id.as_str(), "", name);
    }

    /// Ends a verb of a container, and has the timeline written.
    pub(super) fn end_container_stage(
        &self,
        id: &ContainerId,
        name: &'static str,
        failure: Option<&Error>,
    ) {
        self.node.history.end_stage(id.as_str(), name, text(failure));
        self.node.history.settle();
    }

    /// A container could not be created or started.
    pub(super) fn record_container_failure(&self, id: &ContainerId, reason: &str, error: &Error) {
        self.node.history.end(id.as_str(), ending::of_error(error, reason, now_ns()));
    }

    /// Records the exit of a container, if that is its state. A failed start has been recorded with its error, unless
    /// an earlier daemon was killed before that was written.
    pub(super) fn record_exit(&self, id: &ContainerId) {
        let Some(entry) = self.containers.get(id) else { return };
        if let State::Exited { how, at_ns, .. } = &entry.record.state
            && (!self.node.history.has_end(id.as_str())
                || !matches!(how, ExitReason::StartFailed { .. }))
        {
            let end = ending::of_exit(&entry.record, how, *at_ns);
            if let Some(why) = end.diagnosis.as_ref().filter(|_| !end.ordinary) {
                warn!(
                    container = entry.record.metadata().0, container_id = %id.short(), kind = why.kind, layer = why.layer.name(), what = why.what,
                    cause = why.cause, certainty = ?why.certainty, hint = why.fix, "container failed"
                );
            }
            self.node.history.end(id.as_str(), end);
        }
    }

    /// Records the exits that happened while there was no daemon.
    pub(super) fn record_missed_exits(&self) {
        for id in self.containers.keys() {
            if !self.node.history.has_end(id.as_str()) {
                self.record_exit(id);
            }
        }
    }
}

fn text(failure: Option<&Error>) -> String {
    failure.map(sentence).unwrap_or_default()
}
