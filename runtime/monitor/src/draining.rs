// SPDX-License-Identifier: Apache-2.0
//! Killed cgroups that are not empty yet: those of containers whose first process has ended, and of failed starts.
//!
//! Nothing here blocks, and nothing is polled: `cgroup.events` of the v2 tree is in the loop. As the kernel reports it
//! once in ten milliseconds at most, the processes that still run are watched as well. Only where there is no such
//! tree a timer checks.

use crate::connection::RequestId;
use crate::event_loop::{EventLoop, EventSource};
use crate::hooks::ContainerHooks;
use hull_cgroup::{Cgroup, Events};
use hull_proto::id::ContainerId;
use hull_proto::monitor::Failure;
use rustix::event::epoll::EventFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// How often a cgroup is checked about which the kernel reports nothing.
const CHECK_EVERY: Duration = Duration::from_millis(2);
/// How many processes of a cgroup are watched.
const PROCESSES_MAX: usize = 16;

/// Kills all processes in a cgroup of the pod `pod`, also if the pod as a whole is frozen.
pub(crate) fn kill(cgroup: &Cgroup, pod: Option<&Cgroup>) -> Result<(), hull_cgroup::Error> {
    match pod {
        Some(pod) => cgroup.kill_within(pod),
        None => cgroup.kill(),
    }
}

/// A cgroup that was killed and is not empty yet.
#[derive(Debug)]
pub(crate) struct DrainingCgroup {
    /// `cgroup.events`, with its token in the loop.
    events: Option<(Events, u64)>,
    /// Processes that still run, with their tokens; each reports once.
    processes: Vec<(OwnedFd, u64)>,
    until: Instant,
}

impl DrainingCgroup {
    /// Kills all processes in a cgroup, and waits in the loop for their end, at most for `limit`.
    pub(crate) fn start(
        cgroup: &Cgroup,
        pod: Option<&Cgroup>,
        limit: Duration,
        event_loop: &mut EventLoop,
    ) -> Self {
        // Processes that cannot be killed are waited for all the same.
        let _gone = kill(cgroup, pod);
        let until = Instant::now() + limit;
        let mut draining = Self { events: None, processes: Vec::new(), until };
        // Nearly always the first process was the only one.
        if cgroup.is_populated().unwrap_or(false) {
            // Without events the timer checks.
            if let Ok(Some(events)) = cgroup.events() {
                let (fd, source) = (events.as_fd(), EventSource::Draining);
                let token = event_loop.add(fd, source, EventFlags::PRI).ok();
                draining.events = token.map(|token| (events, token));
            }
            for pid in cgroup.procs().unwrap_or_default().into_iter().take(PROCESSES_MAX) {
                let Some(pid) = Pid::from_raw(pid) else { continue };
                // One that has ended needs no watching.
                let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
                let once = EventFlags::IN | EventFlags::ONESHOT;
                let token = event_loop.add(pidfd.as_fd(), EventSource::Draining, once).ok();
                draining.processes.extend(token.map(|token| (pidfd, token)));
            }
        }
        draining
    }

    /// Whether no process is left in it, or its time is over.
    pub(crate) fn is_over(&self, cgroup: &Cgroup) -> bool {
        let populated = match &self.events {
            Some((events, _)) => events.is_populated(),
            None => cgroup.is_populated(),
        };
        // A cgroup that cannot be read any more is gone. A process that was moved in the v2 tree is still in the
        // others.
        let populated = populated.unwrap_or(false) || cgroup.is_populated().unwrap_or(false);
        !populated || self.is_late()
    }

    /// Whether its time is over.
    pub(crate) fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Whether the kernel will report the end of all that is left in it.
    pub(crate) fn is_watched(&self) -> bool {
        self.events.as_ref().is_some_and(|(events, _)| events.is_populated().unwrap_or(false))
    }

    /// When it must be checked, whatever is reported.
    pub(crate) fn check_at(&self) -> Instant {
        if self.is_watched() { self.until } else { self.until.min(Instant::now() + CHECK_EVERY) }
    }

    /// Removes its descriptors from the loop, and closes them.
    pub(crate) fn unwatch(&mut self, event_loop: &mut EventLoop) {
        if let Some((events, token)) = self.events.take() {
            event_loop.remove(events.as_fd(), token);
        }
        for (pidfd, token) in std::mem::take(&mut self.processes) {
            event_loop.remove(pidfd.as_fd(), token);
        }
    }
}

/// A start that failed, and is answered when its cgroup is removed.
#[derive(Debug)]
pub(crate) struct FailedStart {
    pub(crate) cgroup: Cgroup,
    pub(crate) draining: DrainingCgroup,
    pub(crate) request: RequestId,
    pub(crate) failure: Failure,
    /// Hooks of the container, whose poststop hooks follow.
    pub(crate) hooks: Option<(ContainerId, ContainerHooks)>,
}
