// SPDX-License-Identifier: Apache-2.0
//! The log directories of `hull run`, and their removal with the pod; see [`auto_remove`].

use super::client::Client;
use super::error::{Error, Result};
use crate::pod::{auto_remove, run_pods};
use hull_proto::cri as api;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The file name of the log.
pub(crate) const FILE: &str = "0.log";

/// Generates a uid for a new pod.
pub(crate) fn new_uid() -> Result<String> {
    let mut bytes = [0_u8; run_pods::UID_DIGITS / 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|source| Error::Kernel { operation: "generate a uid for the pod", source })?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// A pod that this command is making: until it is dropped, or the process ends, `hull prune` leaves the pod alone.
///
/// A lock on the log directory of the pod, which is in a directory for root alone. The kernel releases it with the
/// process.
#[derive(Debug)]
#[must_use]
pub(crate) struct Making {
    /// `None` for a client that cannot write to the node's files, such as one in a container.
    _lock: Option<File>,
}

impl Making {
    /// Begins to make the pod with this log directory, and creates the directory. Before the pod is requested.
    ///
    /// # Errors
    /// The directory cannot be created or locked.
    pub(crate) fn begin(directory: &Path) -> Result<Self> {
        match lock(directory) {
            Ok(lock) => Ok(Self { _lock: Some(lock) }),
            Err(err) if is_out_of_reach(&err) => Ok(Self { _lock: None }),
            Err(err) => Err(Error::io(format!("lock {}", directory.display()))(err)),
        }
    }
}

fn is_out_of_reach(err: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(err.kind(), NotFound | PermissionDenied | ReadOnlyFilesystem)
}

/// Creates the directory and the one above it, and locks it.
fn lock(directory: &Path) -> io::Result<File> {
    for path in directory.parent().into_iter().chain([directory]) {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    let file = File::open(directory)?;
    // A `hull prune` has it for a moment.
    file.lock()?;
    Ok(file)
}

/// Whether a command on this node is making the pod with this log directory.
///
/// # Errors
/// The lock cannot be tried.
pub(crate) fn is_being_made(directory: &Path) -> Result<bool> {
    let failed = |err| Error::io(format!("try the lock of {}", directory.display()))(err);
    let file = match File::open(directory) {
        // A pod whose logs are elsewhere, or whose client does not have the files of the node.
        Err(err) if is_out_of_reach(&err) => return Ok(false),
        opened => opened.map_err(failed)?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(err)) => Err(failed(err)),
    }
}

/// The log directory of the pod with this uid, from the configuration of the daemon; `None` if it is not a pod of
/// `hull run`.
pub(crate) async fn directory(client: &mut Client, uid: &str) -> Result<Option<PathBuf>> {
    Ok(auto_remove::log_directory(&client.config().await?.data_dir, uid))
}

/// Removes the logs of a removed pod, if it was a pod of `hull run`.
pub(crate) async fn remove(client: &mut Client, pod: &api::PodSandbox) -> Result<()> {
    let uid = pod.metadata.as_ref().map_or("", |metadata| metadata.uid.as_str());
    let Some(directory) = directory(client, uid).await? else { return Ok(()) };
    removed(&directory, auto_remove::remove_logs(&directory))
}

/// Removes the directory of a pod that could not be made. Users who may not see it have left nothing there.
pub(crate) async fn remove_without_pod(client: &mut Client, uid: &str) -> Result<()> {
    let Some(directory) = directory(client, uid).await? else { return Ok(()) };
    match auto_remove::remove_logs(&directory) {
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => removed(&directory, result),
    }
}

fn removed(directory: &Path, result: io::Result<()>) -> Result<()> {
    result.map_err(Error::io(format!("remove {}", directory.display())))
}
