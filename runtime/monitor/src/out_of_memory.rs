// SPDX-License-Identifier: Apache-2.0
//! Reports of running containers that run out of memory.

use crate::memory_watch::MemoryWatch;
use crate::monitor::Monitor;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Event, VERSION_LAST_OUTPUT};
use std::time::Instant;

impl Monitor {
    /// Begins to watch the memory of a container whose program runs.
    pub(crate) fn watch_memory(&mut self, id: &ContainerId) {
        if let Some(container) = self.containers.get_mut(id) {
            container.memory = MemoryWatch::new(&container.cgroup, id, &mut self.events);
        }
    }

    /// Reports that a running container ran out of memory.
    pub(crate) fn out_of_memory(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let watch = container.memory.as_mut();
        let Some(oom_kills) = watch.and_then(|watch| watch.take(&container.cgroup, &self.events))
        else {
            return;
        };
        if self.daemon.version() >= VERSION_LAST_OUTPUT {
            self.daemon.event(Event::OutOfMemory { container: id.clone(), oom_kills });
        }
    }

    /// Waits again for the memory events of containers whose last report is old enough.
    pub(crate) fn resume_memory(&mut self) {
        for watch in self.containers.values_mut().filter_map(|of| of.memory.as_mut()) {
            watch.resume(&self.events);
        }
    }

    /// The times at which [`Self::resume_memory`] has something to do.
    pub(crate) fn memory_times(&self) -> impl Iterator<Item = Instant> {
        self.containers.values().filter_map(|of| of.memory.as_ref()?.resumes_at())
    }
}
