// SPDX-License-Identifier: Apache-2.0
//! The directory of a checkpoint while it is made.
//!
//! ```text
//! <data_dir>/checkpoints/<container-id>/   dump.log, stats-dump, rootfs-diff.tar
//!                                          images/   what CRIU writes
//!                                          lock      locked while the daemon or its CRIU lives; CRIU's process id
//! ```
//!
//! There is one for each container, and it goes when the checkpoint is written or has failed. What a daemon that was
//! killed left is removed by the next one, once its CRIU has ended, or is ended after a time.

use super::criu;
use super::error::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use tracing::{info, warn};

const LOCK: &str = "lock";
const IMAGES: &str = "images";
/// Time for the CRIU of a daemon that is gone to notice that. Then it is killed.
const ORPHAN_MAX: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// Longest process id in a lock file, in bytes.
const PID_BYTES_MAX: u64 = 16;

/// The directory, removed with this.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) work: OwnedFd,
    pub(super) images: OwnedFd,
    pub(super) lock: File,
}

impl Directory {
    /// Makes the directory of a container; there must be none.
    pub(super) fn make(all: &Path, container: &str) -> Result<Self, Error> {
        let failed = Error::io("make a directory for it");
        let made = Self::made(all, container);
        made.map_err(|err| {
            if err.kind() == io::ErrorKind::AlreadyExists {
                return Error::InProgress;
            }
            failed(err)
        })
    }

    fn made(all: &Path, container: &str) -> io::Result<Self> {
        let private = |recursive| {
            let mut builder = fs::DirBuilder::new();
            builder.mode(0o700).recursive(recursive);
            builder
        };
        private(true).create(all)?;
        let path = all.join(container);
        private(false).create(&path)?;
        let rest = || -> io::Result<(OwnedFd, OwnedFd, File)> {
            private(false).create(path.join(IMAGES))?;
            let mut options = File::options();
            let lock = options.read(true).write(true).create_new(true).mode(0o600);
            let lock = lock.open(path.join(LOCK))?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            Ok((open_dir(&path)?, open_dir(&path.join(IMAGES))?, lock))
        };
        match rest() {
            Ok((work, images, lock)) => Ok(Self { path, work, images, lock }),
            Err(err) => {
                remove(&path);
                Err(err)
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

fn remove(path: &Path) {
    if let Err(err) = hull_sys::remove_tree(path) {
        warn!(path = %path.display(), error = %err, "directory of a checkpoint not removed");
    }
}

/// The directories that earlier daemons left.
pub(crate) fn left(all: &Path) -> Vec<PathBuf> {
    match fs::read_dir(all) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(err) => {
            warn!(dir = %all.display(), error = %err, "directories of checkpoints not listed");
            Vec::new()
        }
    }
}

/// Removes such a directory when its CRIU has ended. Blocks until then.
pub(crate) fn sweep(path: &Path) {
    if let Err(err) = end_orphan(&path.join(LOCK)) {
        warn!(path = %path.display(), error = %err, "CRIU of an earlier daemon not ended");
        return;
    }
    info!(path = %path.display(), "unfinished checkpoint of an earlier daemon removed");
    remove(path);
}

/// Waits for the CRIU that has this file locked.
fn end_orphan(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let lock = match open(path, flags, Mode::empty()) {
        Ok(lock) => lock,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(err) => return Err(err.into()),
    };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(());
    }
    if let Some(criu) = holder(path, &lock) {
        // Its socket is closed, so it gives up by itself; what it has stopped runs on then, as after a kill.
        let ended = poll(&mut [PollFd::new(&criu, PollFlags::IN)], Some(&ORPHAN_MAX));
        if !matches!(ended, Ok(1..)) {
            // It may have ended just now.
            let _gone = pidfd_send_signal(&criu, Signal::KILL);
        }
    }
    Ok(flock(&lock, FlockOperation::LockExclusive)?)
}

/// The process that holds the lock, if it is the one that the file names.
fn holder(path: &Path, lock: &OwnedFd) -> Option<OwnedFd> {
    let text = hull_sys::files::read(path, PID_BYTES_MAX).ok()?;
    let pid: i32 = String::from_utf8(text).ok()?.trim().parse().ok()?;
    let criu = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let (own, theirs) = (fstat(lock).ok()?, stat(format!("/proc/{pid}/fd/{}", criu::LOCK)).ok()?);
    ((own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino)).then_some(criu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_one_directory_which_goes_with_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let all = dir.path().join("checkpoints");
        assert!(left(&all).is_empty());
        let made = Directory::make(&all, "c").unwrap();
        assert!(matches!(Directory::make(&all, "c"), Err(Error::InProgress)));
        assert_eq!(left(&all), std::slice::from_ref(&made.path));
        drop(made);
        assert!(left(&all).is_empty());
        drop(Directory::make(&all, "c").unwrap());
    }

    #[test]
    fn what_is_left_is_removed_once_nobody_holds_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        fs::create_dir_all(path.join(IMAGES)).unwrap();
        fs::write(path.join(LOCK), "").unwrap();
        let lock = File::open(path.join(LOCK)).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let sweeping = std::thread::spawn({
            let path = path.clone();
            move || sweep(&path)
        });
        // It waits for the lock, whose file names no process that holds it.
        assert!(path.is_dir());
        drop(lock);
        sweeping.join().unwrap();
        assert!(!path.try_exists().unwrap());
        // One without a lock file was not begun.
        fs::create_dir(&path).unwrap();
        sweep(&path);
        assert!(!path.try_exists().unwrap());
    }
}
