// SPDX-License-Identifier: Apache-2.0
//! Watches a cgroup for processes that the out-of-memory killer takes: on v2 `memory.events` supports poll (POLLPRI),
//! on v1 `cgroup.event_control` connects an eventfd with `memory.oom_control`
//! (`Documentation/admin-guide/cgroup-v1/memory.rst`, 9).

use crate::cgroup::Cgroup;
use crate::cgroupfs::Version;
use crate::error::Error;
use crate::files::write;
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// The event source of one cgroup.
#[derive(Debug)]
pub struct OomEvents {
    source: OwnedFd,
    flags: PollFlags,
    /// The number of kills that were reported.
    seen: u64,
}

impl Cgroup {
    /// The event source for out-of-memory kills; `None` where there is no memory controller.
    ///
    /// # Errors
    /// The file cannot be opened, or the eventfd not be connected.
    pub fn oom_events(&self) -> Result<Option<OomEvents>, Error> {
        let opened = |path: std::path::PathBuf| match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        };
        let seen = self.exit_counters()?.oom_kills;
        if self.version() == Version::V2 {
            let Some(dir) = self.unified() else { return Ok(None) };
            let file = opened(dir.join("memory.events"))?;
            return Ok(file.map(|file| OomEvents {
                source: file.into(),
                flags: PollFlags::PRI,
                seen,
            }));
        }
        let Some(dir) = self.v1("memory") else { return Ok(None) };
        let Some(file) = opened(dir.join("memory.oom_control"))? else { return Ok(None) };
        let source = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::Read { path: dir.clone(), source: errno.into() })?;
        let line = format!("{} {}", source.as_raw_fd(), file.as_raw_fd());
        write(&dir, "cgroup.event_control", &line)?;
        Ok(Some(OomEvents { source, flags: PollFlags::IN, seen }))
    }
}

impl OomEvents {
    /// The events of poll(2) to wait for.
    #[must_use]
    pub fn flags(&self) -> PollFlags {
        self.flags
    }

    /// The number of kills that were reported so far, or had happened before.
    #[must_use]
    pub fn reported(&self) -> u64 {
        self.seen
    }

    /// The number of kills since the last call.
    ///
    /// # Errors
    /// The counters of the cgroup cannot be read.
    pub fn take(&mut self, cgroup: &Cgroup) -> Result<u64, Error> {
        // What was announced is read, so that poll waits again; how much it was, the counters tell.
        if self.flags == PollFlags::PRI {
            let _announced = rustix::io::pread(&self.source, &mut [0; 1024], 0);
        } else {
            let _announced = rustix::io::read(&self.source, &mut [0; 8]);
        }
        let now = cgroup.exit_counters()?.oom_kills;
        let new = now.saturating_sub(self.seen);
        self.seen = now;
        Ok(new)
    }
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}
