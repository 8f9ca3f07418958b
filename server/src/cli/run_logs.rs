// SPDX-License-Identifier: Apache-2.0
//! The log directories of `hull run`, and their removal with the pod; see [`auto_remove`].

use super::client::Client;
use super::error::{Error, Result};
use crate::config::Config;
use crate::pod::auto_remove;
use hull_proto::{admin, cri as api};
use std::path::PathBuf;

/// The file name of the log.
pub(crate) const FILE: &str = "0.log";

/// Generates a uid for a new pod.
pub(crate) fn new_uid() -> Result<String> {
    let mut bytes = [0_u8; auto_remove::UID_DIGITS / 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|source| Error::Kernel { operation: "generate a uid for the pod", source })?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// The log directory of the pod with this uid, from the configuration of the daemon; `None` if it is not a pod of
/// `hull run`.
pub(crate) async fn directory(client: &mut Client, uid: &str) -> Result<Option<PathBuf>> {
    // The data_dir of the running daemon, which may differ from the files.
    let answer = client.admin.config(admin::ConfigRequest {}).await?.into_inner();
    let config: Config = toml::from_str(&answer.toml).map_err(|_| Error::Response {
        operation: "find the log directory",
        missing: "configuration of this version",
    })?;
    Ok(auto_remove::log_directory(&config.data_dir, uid))
}

/// Removes the logs of a removed pod, if it was a pod of `hull run`.
pub(crate) async fn remove(client: &mut Client, pod: &api::PodSandbox) -> Result<()> {
    let uid = pod.metadata.as_ref().map_or("", |metadata| metadata.uid.as_str());
    let Some(directory) = directory(client, uid).await? else { return Ok(()) };
    auto_remove::remove_logs(&directory)
        .map_err(Error::io(format!("remove {}", directory.display())))
}
