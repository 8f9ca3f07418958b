// SPDX-License-Identifier: Apache-2.0
//! Out-of-memory kills in running containers: the first process may live on, so its end reports nothing.

use crate::event_loop::{EventLoop, EventSource};
use hull_cgroup::{Cgroup, OomEvents};
use hull_proto::id::ContainerId;
use rustix::event::PollFlags;
use rustix::event::epoll::EventFlags;
use std::os::fd::AsFd as _;

/// The out-of-memory events of a container's cgroup, in the loop.
#[derive(Debug)]
pub(crate) struct MemoryWatch {
    events: OomEvents,
    token: u64,
}

impl MemoryWatch {
    /// Adds the events of a container's cgroup to the loop. `None` without a memory controller, or without descriptors:
    /// the counters of its end are complete all the same.
    pub(crate) fn new(cgroup: &Cgroup, id: &ContainerId, events: &mut EventLoop) -> Option<Self> {
        let source = cgroup.oom_events().ok().flatten()?;
        let flags = if source.flags() == PollFlags::PRI { EventFlags::PRI } else { EventFlags::IN };
        let token = events.add(source.as_fd(), EventSource::Memory(id.clone()), flags).ok()?;
        Some(Self { events: source, token })
    }

    /// The number of kills since the last call, if there is anything to report. On v1 an event announces a kill, which
    /// may not be counted yet; on v2 other lines of `memory.events` may have changed.
    pub(crate) fn take(&mut self, cgroup: &Cgroup) -> Option<u64> {
        let is_announced = self.events.flags() != PollFlags::PRI;
        let kills = self.events.take(cgroup).unwrap_or(0);
        (is_announced || kills > 0).then_some(kills)
    }

    /// Takes it out of the loop.
    pub(crate) fn remove(self, events: &mut EventLoop) {
        events.remove(self.events.as_fd(), self.token);
    }
}
