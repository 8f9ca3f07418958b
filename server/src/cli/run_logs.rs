// SPDX-License-Identifier: Apache-2.0
//! The log directories of `hull run`, and their removal with the pod.
//!
//! ```text
//! <data_dir>/run-logs/<pod uid>/0.log
//! ```
//!
//! The rule: the directory is derived from the pod's uid, which `hull run` generates as 32 hex digits, and
//! never read from a label or annotation: clients that create pods could point those at any directory of
//! the host. The uids of a kubelet have dashes, so the logs of its pods are never touched.

use super::client::Client;
use super::error::{Error, Result};
use crate::config::Config;
use hull_proto::{admin, cri as api};
use std::io;
use std::path::{Path, PathBuf};

/// Number of hex digits of a uid of `hull run`.
const UID_DIGITS: usize = 32;

/// The file name of the log.
pub(crate) const FILE: &str = "0.log";

/// Generates a uid for a new pod.
pub(crate) fn new_uid() -> Result<String> {
    let mut bytes = [0_u8; UID_DIGITS / 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|source| Error::Kernel { operation: "generate a uid for the pod", source })?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// The log directory of the pod with this uid, from the configuration of the daemon.
pub(crate) async fn directory(client: &mut Client, uid: &str) -> Result<PathBuf> {
    // The data_dir of the running daemon, which may differ from the files.
    let answer = client.admin.config(admin::ConfigRequest {}).await?.into_inner();
    let config: Config = toml::from_str(&answer.toml).map_err(|_| Error::Response {
        operation: "find the log directory",
        missing: "configuration of this version",
    })?;
    Ok(below(&config.data_dir, uid))
}

fn below(data_dir: &Path, uid: &str) -> PathBuf {
    data_dir.join("run-logs").join(uid)
}

fn is_ours(uid: &str) -> bool {
    uid.len() == UID_DIGITS && uid.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Removes the logs of a removed pod, if it was a pod of `hull run`.
pub(crate) async fn remove(client: &mut Client, pod: &api::PodSandbox) -> Result<()> {
    let uid = pod.metadata.as_ref().map_or("", |metadata| metadata.uid.as_str());
    if !is_ours(uid) {
        return Ok(());
    }
    let directory = directory(client, uid).await?;
    match std::fs::remove_dir_all(&directory) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", directory.display()))(err))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uids_of_our_own_making_name_a_directory_of_ours() {
        assert!(is_ours(&new_uid().unwrap()));
        for foreign in [
            "",
            "..",
            "3b0c8f6e-0000-4000-8000-1234567890ab",
            "../../../../../../../../../../etc",
            &"A".repeat(32),
        ] {
            assert!(!is_ours(foreign), "{foreign}");
        }
        assert_eq!(below(Path::new("/var/lib/hull"), "ab"), Path::new("/var/lib/hull/run-logs/ab"));
    }
}
