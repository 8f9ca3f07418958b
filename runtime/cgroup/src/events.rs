// SPDX-License-Identifier: Apache-2.0
//! Waiting for a cgroup to become empty: `cgroup.events` of the v2 tree can be polled (POLLPRI).

use crate::cgroup::Cgroup;
use crate::error::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a host without a v2 tree is looked at: v1 has no event for this.
const LOOK: Duration = Duration::from_millis(1);

/// Longest `cgroup.events`, in bytes: a handful of short lines.
const EVENTS_BYTES_MAX: usize = 512;

/// `false` when the time is up before the last process is gone.
pub(crate) fn wait_empty(cgroup: &Cgroup, limit: Duration) -> Result<bool, Error> {
    let until = Instant::now() + limit;
    let Some(dir) = cgroup.unified() else {
        while cgroup.is_populated()? {
            if Instant::now() >= until {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
        return Ok(true);
    };
    let Some(events) = Events::open(&dir.join("cgroup.events"))? else { return Ok(true) };
    loop {
        if !events.is_populated()? {
            return Ok(true);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        let wait = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // Interrupted or timed out: looked at again above.
        let _woken = poll(&mut fds, Some(&wait));
    }
}

/// `cgroup.events` of a cgroup: poll and epoll say `PRI` when it has changed since it was read last.
#[derive(Debug)]
pub struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    fn open(path: &Path) -> Result<Option<Self>, Error> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        }
    }

    /// Whether any process is left. One that was removed has none.
    pub fn is_populated(&self) -> Result<bool, Error> {
        let mut text = [0; EVENTS_BYTES_MAX];
        match self.file.read_at(&mut text, 0) {
            Ok(read) => {
                let text = String::from_utf8_lossy(&text[..read]);
                Ok(crate::files::field(&text, "populated") == Some(1))
            }
            Err(err) if err.raw_os_error() == Some(crate::error::libc_errno::ENODEV) => Ok(false),
            Err(source) => Err(Error::Read { path: self.path.clone(), source }),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Cgroup {
    /// What tells that its last process is gone, once it was killed. `None` where it must be looked at
    /// and killed again and again: without a v2 tree, or without `cgroup.kill` (Linux 5.14) in it.
    pub fn events(&self) -> Result<Option<Events>, Error> {
        let Some(dir) = self.unified() else { return Ok(None) };
        if !dir.join("cgroup.kill").is_file() {
            return Ok(None);
        }
        Events::open(&dir.join("cgroup.events"))
    }
}
