// SPDX-License-Identifier: Apache-2.0
//! Processes of a container in /proc, held by descriptors: a number that is used again never means another
//! process.

use super::error::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Most that is read of a file of the kernel: a table of some hundred thousand mounts.
pub(super) const FILE_BYTES_MAX: u64 = 32 << 20;
/// Longest path and label that is shown, in characters.
pub(super) const SHOWN_MAX: usize = 200;

/// Reads at most `limit` bytes of a file of the kernel, beneath an open directory. Bytes that are not UTF-8 are
/// replaced.
pub(super) fn read_at(dir: BorrowedFd<'_>, path: &str, limit: u64) -> Result<String, Error> {
    let opened =
        openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty());
    let file = File::from(opened.map_err(Error::kernel(format!("open {path}")))?);
    let mut bytes = Vec::new();
    match file.take(limit).read_to_end(&mut bytes) {
        Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(source) if source.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
            Err(Error::Ended)
        }
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// A process, held by descriptors so that a reused pid cannot stand in for it.
#[derive(Debug)]
pub(super) struct ProcessHandle {
    pidfd: OwnedFd,
    /// Its directory in /proc.
    pub(super) dir: OwnedFd,
    /// The directory of a live thread: a process goes on when its first thread has ended, and the kernel
    /// then shows its namespaces and mounts only through the other threads.
    pub(super) thread: OwnedFd,
}

impl ProcessHandle {
    /// Opens a process by its pid; an error if it has ended.
    pub(super) fn open(pid: i32) -> Result<Self, Error> {
        let number = Pid::from_raw(pid).filter(|_| pid > 0).ok_or(Error::Ended)?;
        let pidfd =
            pidfd_open(number, PidfdFlags::empty()).map_err(Error::kernel("open a pidfd"))?;
        let path = format!("/proc/{pid}");
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match openat(CWD, path.as_str(), how, Mode::empty()) {
            Err(Errno::NOENT) => return Err(Error::Ended),
            other => other.map_err(Error::kernel(format!("open {path}")))?,
        };
        let thread = live_thread(dir.as_fd())?;
        let held = Self { pidfd, dir, thread };
        // The directory is of the process of the pidfd if that has not ended by now.
        held.check_running()?;
        Ok(held)
    }

    /// An error if the process has ended.
    pub(super) fn check_running(&self) -> Result<(), Error> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::Ended),
            Err(errno) => Err(Error::kernel("poll its pidfd")(errno)),
        }
    }
}

/// Whether a status file belongs to a thread that has ended: the file still shows rights that it no longer has.
pub(super) fn has_ended(status: &str) -> bool {
    status.lines().any(|line| line.starts_with("State:\tZ") || line.starts_with("State:\tX"))
}

/// Opens the directory of a live thread of the process: of its first thread if that lives.
pub(super) fn live_thread(dir: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &str| openat(dir, path, how, Mode::empty());
    if !has_ended(&read_at(dir, "status", 1 << 20)?) {
        return open(".").map_err(Error::kernel("open its directory in /proc"));
    }
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let tasks = openat(dir, "task", how, Mode::empty()).and_then(Dir::new);
    for task in tasks.map_err(Error::kernel("list its threads"))?.flatten() {
        let Ok(number) = task.file_name().to_str() else { continue };
        if number.starts_with('.') {
            continue;
        }
        let status = read_at(dir, &format!("task/{number}/status"), 1 << 20);
        if let (Ok(false), Ok(found)) =
            (status.map(|text| has_ended(&text)), open(&format!("task/{number}")))
        {
            return Ok(found);
        }
    }
    Err(Error::Ended)
}

/// The kernel's name of a namespace, such as `net:[4026531840]`.
/// `None` if the kernel does not have this kind.
pub(super) fn namespace(dir: BorrowedFd<'_>, kind: &str) -> Result<Option<String>, Error> {
    let path = format!("ns/{kind}");
    match readlinkat(dir, path.as_str(), Vec::new()) {
        Ok(name) => Ok(name.into_string().ok()),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::kernel(format!("read its {path}"))(errno)),
    }
}

/// Opens a live thread of the process with this name in /proc.
pub(super) fn open_live_thread(pid: &str) -> Option<OwnedFd> {
    let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(CWD, format!("/proc/{pid}"), how, Mode::empty()).ok()?;
    live_thread(dir.as_fd()).ok()
}
