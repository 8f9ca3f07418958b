// SPDX-License-Identifier: Apache-2.0
//! Out-of-memory kills in running containers: the first process may live on, so its end reports nothing.

use crate::event_loop::{EventLoop, EventSource};
use hull_cgroup::{Cgroup, OomEvents};
use hull_proto::id::ContainerId;
use rustix::event::PollFlags;
use rustix::event::epoll::EventFlags;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// Least time between two reports of a container: one that allocates at its limit has events all the time.
const REPORT_MIN: Duration = Duration::from_secs(1);

/// The out-of-memory events of a container's cgroup, in the loop.
#[derive(Debug)]
pub(crate) struct MemoryWatch {
    events: OomEvents,
    token: u64,
    /// Set while its events are not waited for.
    resumes_at: Option<Instant>,
}

impl MemoryWatch {
    /// Adds the events of a container's cgroup to the loop. `None` without a memory controller, or without descriptors:
    /// the counters of its end are complete all the same.
    pub(crate) fn new(cgroup: &Cgroup, id: &ContainerId, events: &mut EventLoop) -> Option<Self> {
        let source = cgroup.oom_events().ok().flatten()?;
        let flags = if source.flags() == PollFlags::PRI { EventFlags::PRI } else { EventFlags::IN };
        let token = events.add(source.as_fd(), EventSource::Memory(id.clone()), flags).ok()?;
        Some(Self { events: source, token, resumes_at: None })
    }

    /// The number of kills since the last call, if there is anything to report. On v1 an event announces a kill, which
    /// may not be counted yet; on v2 other lines of `memory.events` may have changed.
    /// Waits for no other for [`REPORT_MIN`]; what happens meanwhile is in the next report.
    pub(crate) fn take(&mut self, cgroup: &Cgroup, events: &EventLoop) -> Option<u64> {
        events.suspend(self.events.as_fd());
        self.resumes_at = Some(Instant::now() + REPORT_MIN);
        let is_announced = self.events.flags() != PollFlags::PRI;
        let kills = self.events.take(cgroup).unwrap_or(0);
        (is_announced || kills > 0).then_some(kills)
    }

    /// The number of kills that were reported so far.
    pub(crate) fn reported(&self) -> u64 {
        self.events.reported()
    }

    /// The time at which its events are waited for again.
    pub(crate) fn resumes_at(&self) -> Option<Instant> {
        self.resumes_at
    }

    /// Waits for its events again, if it is time.
    pub(crate) fn resume(&mut self, events: &EventLoop) {
        if self.resumes_at.is_some_and(|at| at <= Instant::now()) {
            self.resumes_at = None;
            let flags = if self.events.flags() == PollFlags::PRI {
                EventFlags::PRI
            } else {
                EventFlags::IN
            };
            events.resume_for(self.events.as_fd(), self.token, flags);
        }
    }

    /// Takes it out of the loop.
    pub(crate) fn remove(self, events: &mut EventLoop) {
        events.remove(self.events.as_fd(), self.token);
    }
}
