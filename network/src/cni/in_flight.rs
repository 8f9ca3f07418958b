// SPDX-License-Identifier: Apache-2.0
//! Marks running plugin calls, so that a restarted daemon finds the calls of a killed one: a plugin that is
//! still attaching a pod while another detaches it would leave the pod half attached.
//!
//! ```text
//! <state_dir>/cni/<pod-id>.call   the stdin of the plugin that is running for the pod; locked
//! ```
//!
//! The lock belongs to the open file description, which the plugin shares as its stdin. So it is held as
//! long as either the daemon or the plugin is running, however the daemon ends.
//!
//! The rule: such a plugin may finish within [`ORPHAN_TIMEOUT`], because killing a plugin can leak what it
//! was about to record: host-local never frees an address whose file does not name its owner yet.

use super::error::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpgid, kill_process_group, pidfd_open};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long a plugin of an earlier daemon may run before it is killed.
pub(super) const ORPHAN_TIMEOUT: Duration = crate::limits::FINISH_S.time();

/// Time between two tries to lock a marker: the kernel releases the lock of a killed process a moment after the process
/// is gone, and no event tells of it.
const LOOK: Duration = Duration::from_millis(10);
/// How long a marker is tried to be locked once its holders are gone or killed.
const RELEASE: Duration = Duration::from_secs(2);

/// The marker of a running call: its stdin. Removed from disk when the call has ended.
#[derive(Debug)]
pub(super) struct InFlightCall {
    path: PathBuf,
}

impl InFlightCall {
    /// Writes and locks the plugin's stdin. The call is marked until the returned guard is dropped.
    ///
    /// # Errors
    /// The file cannot be written; another process holds it for longer than [`ORPHAN_TIMEOUT`].
    pub(super) fn begin(path: PathBuf, input: &[u8]) -> Result<(Self, File), Error> {
        let made = || {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            if !lock(&file, ORPHAN_TIMEOUT)? {
                return Ok(None);
            }
            file.write_all(input)?;
            file.rewind()?;
            Ok(Some(file))
        };
        let file = made().map_err(|source| Error::Input { path: path.clone(), source })?;
        let Some(file) = file else { return Err(Error::StillRunning { path }) };
        Ok((Self { path }, file))
    }
}

impl Drop for InFlightCall {
    fn drop(&mut self) {
        // If this fails, the next call for the pod finds the file.
        drop(fs::remove_file(&self.path));
    }
}

/// Waits for a plugin of an earlier daemon, if there is one, and kills it after `limit`.
///
/// # Errors
/// The file cannot be used; another process still holds it after that, because it hangs in the kernel, or
/// was left by the plugin.
pub(super) fn finish_orphan(path: &Path, limit: Duration) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Input { path: path.to_owned(), source };
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    if !lock(&file, Duration::ZERO).map_err(failed)? {
        tracing::info!(call = %path.display(), "waiting for a network plugin of an earlier daemon");
        if !wait_for_holders(path, limit) {
            tracing::warn!(call = %path.display(), "killing a network plugin of an earlier daemon that does not exit");
            for pid in holders(path) {
                // It may have exited in the meantime.
                let _gone =
                    getpgid(Some(pid)).and_then(|group| kill_process_group(group, Signal::KILL));
            }
        }
        if !lock(&file, RELEASE).map_err(failed)? {
            return Err(Error::StillRunning { path: path.to_owned() });
        }
    }
    fs::remove_file(path).map_err(failed)
}

/// Locks the file. Returns `false` if others hold it for longer than `limit`.
fn lock(file: &File, limit: Duration) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if began.elapsed() < limit => thread::sleep(LOOK),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits for all processes whose stdin is this file; returns `false` if some still run after `limit`.
fn wait_for_holders(path: &Path, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        let opened = holders(path).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        // Ignore processes that have exited by now.
        let running: Result<Vec<OwnedFd>, Errno> =
            opened.filter(|of| !matches!(of, Err(Errno::SRCH))).collect();
        // A process without a pidfd cannot be waited for.
        let Ok(running) = running else { return false };
        if running.is_empty() {
            return true;
        }
        let left = until.saturating_duration_since(Instant::now());
        let mut ends: Vec<_> =
            running.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
        let ended = poll(&mut ends, Timespec::try_from(left).ok().as_ref());
        if left.is_zero() || ended == Ok(0) {
            return false;
        }
    }
}

/// The processes whose stdin is this file.
fn holders(path: &Path) -> impl Iterator<Item = Pid> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter(move |entry| {
        fs::read_link(entry.path().join("fd/0")).is_ok_and(|stdin| stdin == path)
    })
    .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::{Command, Stdio};

    /// A plugin whose daemon was killed: the file stays.
    fn orphan(path: &Path, script: &str) -> std::process::Child {
        let (in_flight, file) = InFlightCall::begin(path.to_owned(), b"{}").unwrap();
        std::mem::forget(in_flight);
        let mut plugin = Command::new("sh");
        plugin.args(["-c", script]).stdin(Stdio::from(file)).process_group(0).spawn().unwrap()
    }

    #[test]
    fn a_call_that_outlived_its_daemon_may_finish_and_is_killed_when_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("x.call");
        let mut quick = orphan(&path, "sleep 0.2; exit 7");
        // Nobody here waits for it meanwhile, as nobody does for a child of a daemon that is gone.
        finish_orphan(&path, Duration::from_secs(60)).unwrap();
        assert_eq!(quick.wait().unwrap().code(), Some(7));
        assert!(!path.try_exists().unwrap());

        let mut hangs = orphan(&path, "sleep 600; exit 7");
        finish_orphan(&path, Duration::from_millis(10)).unwrap();
        assert_eq!(hangs.wait().unwrap().signal(), Some(9));
        assert!(!path.try_exists().unwrap());
        finish_orphan(&path, ORPHAN_TIMEOUT).unwrap();
    }

    #[test]
    fn what_holds_a_call_and_cannot_be_found_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("x.call");
        let (in_flight, file) = InFlightCall::begin(path.clone(), b"{}").unwrap();
        std::mem::forget(in_flight);
        let err = finish_orphan(&path, Duration::from_millis(10)).unwrap_err();
        assert!(matches!(&err, Error::StillRunning { path: held } if *held == path), "{err}");
        assert!(err.hint().unwrap().contains("fuser"), "{err}");
        drop(file);
        finish_orphan(&path, Duration::from_millis(10)).unwrap();
        assert!(!path.try_exists().unwrap());
    }

    #[test]
    fn a_call_that_ended_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.call");
        let (in_flight, file) = InFlightCall::begin(path.clone(), b"{}").unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "{}");
        drop(in_flight);
        assert!(!path.try_exists().unwrap());
    }
}
