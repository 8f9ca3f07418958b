// SPDX-License-Identifier: Apache-2.0
//! Pods of `hull run`: their log directories, and the removal of those with `--rm -d` by the daemon.
//!
//! ```text
//! <data_dir>/run-logs/<pod uid>/0.log
//! ```
//!
//! The rule: the directory is derived from the pod's uid, which `hull run` generates as 32 hex digits, and
//! never read from a label or annotation: clients that create pods could point those at any directory of
//! the host. Other pods, those of a kubelet included, are never removed: see [`run_pods`].

use super::record::PodRecord;
use super::run_pods;
use std::io;
use std::path::{Path, PathBuf};

/// The annotation of a pod that is removed with its logs once its containers have exited. Its value has no meaning.
pub(crate) const REMOVE: &str = "hull.run/remove";

/// The log directory of the pod with this uid; `None` if it is not a uid of `hull run`.
pub(crate) fn log_directory(data_dir: &Path, uid: &str) -> Option<PathBuf> {
    run_pods::is_uid(uid).then(|| data_dir.join("run-logs").join(uid))
}

/// The log directory of a pod that is to be removed once its containers have exited; `None` for every other pod.
pub(crate) fn logs_to_remove(record: &PodRecord, data_dir: &Path) -> Option<PathBuf> {
    let uid = record.config.metadata.as_ref().map(|metadata| metadata.uid.as_str())?;
    let goes =
        record.config.annotations.contains_key(REMOVE) && run_pods::is_of_run(&record.config);
    goes.then(|| log_directory(data_dir, uid)).flatten()
}

/// Removes a log directory, if it is still there.
///
/// # Errors
/// It, or something in it, cannot be removed.
pub(crate) fn remove_logs(directory: &Path) -> io::Result<()> {
    hull_sys::remove_tree(directory)
        .map_err(|err| io::Error::from_raw_os_error(err.errno().raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uids_of_our_own_making_name_a_directory_of_ours() {
        let of = |uid: &str| log_directory(Path::new("/var/lib/hull"), uid);
        let uid = "0123456789abcdef0123456789abcdef";
        assert_eq!(of(uid), Some(Path::new("/var/lib/hull/run-logs").join(uid)));
        for foreign in [
            "",
            "..",
            "3b0c8f6e-0000-4000-8000-1234567890ab",
            "../../../../../../../../../../etc",
            &"A".repeat(32),
        ] {
            assert_eq!(of(foreign), None, "{foreign}");
        }
    }
}
