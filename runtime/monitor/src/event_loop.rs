// SPDX-License-Identifier: Apache-2.0
//! The descriptors that the monitor waits for: one epoll, and the source behind each token.

use hull_proto::id::ContainerId;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// Tokens of the fixed descriptors; the others are counted up from [`FIRST_FREE`].
pub(crate) const LISTEN: u64 = 0;
pub(crate) const SIGNAL: u64 = 1;
pub(crate) const DAEMON: u64 = 2;
const FIRST_FREE: u64 = 3;

/// Added to every timeout: the kernel's clocks may be that much short, and waking up early would be in vain.
const TICK: Duration = Duration::from_millis(1);

/// The source of events of a descriptor.
#[derive(Debug, Clone)]
pub(crate) enum EventSource {
    /// A connection that has not sent hello, by its number.
    Newcomer(u64),
    /// The status pipe of a container's start.
    Status(ContainerId),
    /// The status pipe of the pause process's start.
    PauseStatus,
    /// The status pipe of an exec's start, by its number.
    ExecStatus(u64),
    Stdout(ContainerId),
    Stderr(ContainerId),
    /// A client attached to the container, with a backlog of output.
    Client(ContainerId),
    /// The memory events of a running container's cgroup.
    Memory(ContainerId),
    /// A process that runs hooks, by its number.
    Hooks(u64),
    /// A cgroup that is being drained: all of them are checked after every turn.
    Draining,
}

/// One epoll, and the sources of its descriptors.
#[derive(Debug)]
pub(crate) struct EventLoop {
    epoll: OwnedFd,
    sources: BTreeMap<u64, EventSource>,
    next_token: u64,
}

impl EventLoop {
    pub(crate) fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, sources: BTreeMap::new(), next_token: FIRST_FREE })
    }

    /// Adds a descriptor for reading, under one of the fixed tokens.
    pub(crate) fn add_fixed(&self, fd: BorrowedFd<'_>, token: u64) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)
    }

    /// Adds a descriptor; returns its token.
    pub(crate) fn add(
        &mut self,
        fd: BorrowedFd<'_>,
        source: EventSource,
        flags: EventFlags,
    ) -> Result<u64, Errno> {
        let token = self.next_token;
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)?;
        self.next_token += 1;
        self.sources.insert(token, source);
        Ok(token)
    }

    /// Changes the events that a descriptor is waited for.
    pub(crate) fn modify(&self, fd: BorrowedFd<'_>, token: u64, flags: EventFlags) {
        let _same = epoll::modify(&self.epoll, fd, EventData::new_u64(token), flags);
    }

    /// Removes a descriptor.
    pub(crate) fn remove(&mut self, fd: BorrowedFd<'_>, token: u64) {
        let _closed = epoll::delete(&self.epoll, fd);
        self.sources.remove(&token);
    }

    /// Removes all clients of a container, whose sockets are closed.
    pub(crate) fn remove_clients(&mut self, id: &ContainerId) {
        self.sources.retain(|_, source| !matches!(source, EventSource::Client(of) if of == id));
    }

    /// Stops waiting for a descriptor, which keeps its token.
    pub(crate) fn suspend(&self, fd: BorrowedFd<'_>) {
        let _closed = epoll::delete(&self.epoll, fd);
    }

    /// Waits again for reading from a suspended descriptor.
    pub(crate) fn resume(&self, fd: BorrowedFd<'_>, token: u64) {
        self.resume_for(fd, token, EventFlags::IN);
    }

    /// Waits again for the events of a suspended descriptor.
    pub(crate) fn resume_for(&self, fd: BorrowedFd<'_>, token: u64, flags: EventFlags) {
        let _exists = epoll::add(&self.epoll, fd, EventData::new_u64(token), flags);
    }

    pub(crate) fn source(&self, token: u64) -> Option<EventSource> {
        self.sources.get(&token).cloned()
    }

    /// Waits for events, at most for `limit`; returns their number.
    pub(crate) fn wait(
        &self,
        events: &mut Vec<Event>,
        limit: Option<Duration>,
    ) -> Result<usize, Errno> {
        let limit = limit.and_then(|limit| Timespec::try_from(limit + TICK).ok());
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), limit.as_ref())
    }
}
