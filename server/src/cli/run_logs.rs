// SPDX-License-Identifier: Apache-2.0
//! The log directories of `hull run`, and their removal with the pod; see [`auto_remove`].

use super::client::Client;
use super::error::{Error, Result};
use crate::pod::{auto_remove, run_pods};
use hull_proto::cri as api;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
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
/// The name of an abstract socket, which the kernel releases with the process.
#[derive(Debug)]
pub(crate) struct Making(Option<UnixListener>);

impl Making {
    /// Begins to make the pod with this uid.
    ///
    /// # Errors
    /// The socket cannot be created.
    pub(crate) fn begin(uid: &str) -> Result<Self> {
        let bound = mark(uid).and_then(|of| UnixListener::bind_addr(&of));
        bound.map(|socket| Self(Some(socket))).map_err(Error::io("mark the pod as being made"))
    }

    /// The pod is complete.
    pub(crate) fn end(&mut self) {
        self.0 = None;
    }
}

fn mark(uid: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("hull.run/making/{uid}"))
}

/// Whether a command on this node is making the pod with this uid.
pub(crate) fn is_being_made(uid: &str) -> bool {
    let bound = mark(uid).and_then(|of| UnixListener::bind_addr(&of));
    bound.is_err_and(|err| err.kind() == io::ErrorKind::AddrInUse)
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
