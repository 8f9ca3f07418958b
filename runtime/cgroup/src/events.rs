// SPDX-License-Identifier: Apache-2.0
//! Waits for a cgroup to become empty: `cgroup.events` in the v2 tree supports poll (POLLPRI).

use crate::cgroup::Cgroup;
use crate::error::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Poll interval on a host without a v2 tree: v1 has no event for this.
const LOOK: Duration = Duration::from_millis(1);

/// Longest `cgroup.events`, in bytes: a handful of short lines.
const EVENTS_BYTES_MAX: usize = 512;

/// Waits until the cgroup is empty; returns `false` after `limit`.
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
        // After an interruption or a timeout the loop checks again.
        let _woken = poll(&mut fds, Some(&wait));
    }
}

/// The `cgroup.events` file: poll and epoll report `PRI` after it has changed since the last read.
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

    /// Whether any process is left. A removed cgroup has none.
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
    /// The event source that reports the exit of the last process after a kill. `None` where the caller must
    /// poll and kill repeatedly: without a v2 tree, or without `cgroup.kill` (Linux 5.14).
    pub fn events(&self) -> Result<Option<Events>, Error> {
        let Some(dir) = self.unified() else { return Ok(None) };
        if !dir.join("cgroup.kill").is_file() {
            return Ok(None);
        }
        Events::open(&dir.join("cgroup.events"))
    }
}
