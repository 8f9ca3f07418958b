// SPDX-License-Identifier: Apache-2.0
//! Calls under way about a pod, such that a later daemon finds those of one that was killed: a plugin
//! that still attaches a pod while another takes it away would leave it half attached.
//!
//! ```text
//! <state_dir>/cni/<pod-id>.call   the stdin of the plugin that is being run for the pod; locked
//! ```
//!
//! The lock belongs to the open file, which the plugin shares as its stdin. So it is held for as long as
//! either the daemon or the plugin has it, however the daemon ends.

use super::error::Error;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgid, kill_process_group};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The stdin of a call under way. Gone from disk when the call has ended.
#[derive(Debug)]
pub(super) struct UnderWay {
    path: PathBuf,
}

impl UnderWay {
    /// The file that the plugin is to read, and what marks the call until it is dropped.
    pub(super) fn begin(path: PathBuf, input: &[u8]) -> Result<(Self, File), Error> {
        let made = || {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            file.write_all(input)?;
            file.rewind()?;
            Ok(file)
        };
        let file = made().map_err(|source| Error::Input { path: path.clone(), source })?;
        Ok((Self { path }, file))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // Gone, or found by the next call about the pod.
        drop(fs::remove_file(&self.path));
    }
}

/// Ends what an earlier daemon left under way at `path`, if there is anything.
pub(super) fn end_left(path: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Input { path: path.to_owned(), source };
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            tracing::warn!(call = %path.display(), "network plugin of an earlier daemon still runs; ended");
            kill_holders(path);
            // Killed processes close their files at once, unless they hang in the kernel.
            flock(&file, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    fs::remove_file(path).map_err(failed)
}

/// Kills every process group with a process whose stdin is this file.
fn kill_holders(path: &Path) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        let stdin = fs::read_link(entry.path().join("fd/0"));
        if stdin.is_ok_and(|stdin| stdin == path)
            && let Ok(group) = getpgid(Some(pid))
        {
            // It may have ended meanwhile.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    #[test]
    fn a_call_that_outlived_its_daemon_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("x.call");
        let (under_way, file) = UnderWay::begin(path.clone(), b"{}").unwrap();
        let mut plugin = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::from(file))
            .process_group(0)
            .spawn()
            .unwrap();
        // As if we had been killed: the file stays.
        std::mem::forget(under_way);
        end_left(&path).unwrap();
        assert!(!plugin.wait().unwrap().success());
        assert!(!path.try_exists().unwrap());
        end_left(&path).unwrap();
    }

    #[test]
    fn a_call_that_ended_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.call");
        let (under_way, file) = UnderWay::begin(path.clone(), b"{}").unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "{}");
        drop(under_way);
        assert!(!path.try_exists().unwrap());
    }
}
