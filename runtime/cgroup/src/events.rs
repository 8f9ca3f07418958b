// SPDX-License-Identifier: Apache-2.0
//! Waiting for a cgroup to become empty: `cgroup.events` of the v2 tree can be polled (POLLPRI).

use crate::{Cgroup, Error};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::time::{Duration, Instant};

/// How often a host without a v2 tree is looked at: v1 has no event for this.
const LOOK: Duration = Duration::from_millis(1);

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
    let path = dir.join("cgroup.events");
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(source) => return Err(Error::Read { path, source }),
    };
    loop {
        let mut text = String::new();
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        match read {
            Ok(_) if crate::files::field(&text, "populated") != Some(1) => return Ok(true),
            Ok(_) => {}
            // ENODEV: it was removed meanwhile.
            Err(err) if err.raw_os_error() == Some(crate::error::libc_errno::ENODEV) => {
                return Ok(true);
            }
            Err(source) => return Err(Error::Read { path, source }),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut fds = [PollFd::new(&file, PollFlags::PRI)];
        let wait = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // Interrupted or timed out: looked at again above.
        let _woken = poll(&mut fds, Some(&wait));
    }
}
