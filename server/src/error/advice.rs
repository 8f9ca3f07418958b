// SPDX-License-Identifier: Apache-2.0
//! Advice for failed calls on paths of the node, by errno.
//!
//! Pure. The rule: where the same call fails for several reasons, each has its own advice.

use rustix::io::Errno;

/// Advice that is the same for every path; `None` where it depends on what the path is for.
fn of_file_system(path: &str, errno: Errno) -> Option<String> {
    Some(match errno {
        Errno::NOSPC => {
            format!("free space or inodes on the node's file system of `{path}` (df -h, df -i)")
        }
        Errno::DQUOT => format!("raise the quota of the file system of `{path}`"),
        Errno::STALE | Errno::NOTCONN | Errno::HOSTDOWN | Errno::IO | Errno::REMOTEIO => format!(
            "the file system of `{path}` failed: see dmesg and its server, and mount it again on the node"
        ),
        Errno::LOOP => format!("correct the symbolic links on the path `{path}` on the node"),
        Errno::NAMETOOLONG => format!("shorten the path `{path}`"),
        Errno::MFILE | Errno::NFILE => {
            "raise the limit of open files: LimitNOFILE of hull's service, fs.file-max of the node"
                .to_owned()
        }
        Errno::NOMEM => "free memory on the node".to_owned(),
        _ => return None,
    })
}

/// For the source of a volume that could not be opened or made.
pub(super) fn volume_source(path: &str, errno: Errno) -> String {
    if let Some(advice) = of_file_system(path, errno) {
        return advice;
    }
    match errno {
        Errno::ROFS => format!(
            "create `{path}` on the node: it is missing, and hull cannot create it on a read-only file system; or correct the volume's `hostPath`"
        ),
        Errno::NOTDIR => format!(
            "a part of the path `{path}` is not a directory: remove what is in its way on the node, or correct the volume's `hostPath`"
        ),
        Errno::NOENT => format!(
            "a symbolic link on the path `{path}` leads nowhere: create its target on the node, or correct the volume's `hostPath`"
        ),
        Errno::ACCESS | Errno::PERM => format!(
            "let root on this node use `{path}`: FUSE needs the option allow_root or allow_other, NFS no_root_squash"
        ),
        _ => format!(
            "see what is wrong with `{path}` on the node, or correct the volume's `hostPath`"
        ),
    }
}

/// For the log of a container that could not be opened.
pub(super) fn log_file(path: &str, errno: Errno) -> String {
    if errno != Errno::LOOP
        && let Some(advice) = of_file_system(path, errno)
    {
        return advice;
    }
    match errno {
        Errno::ROFS => format!("let `{path}` be on a writable file system"),
        Errno::NOENT => format!(
            "create the directory of `{path}`, which the kubelet creates with the pod; or delete the pod, so that it is created again"
        ),
        _ => LOG_FILE.to_owned(),
    }
}

/// For a runtime handler that the node does not have.
pub(super) const HANDLER: &str = "remove `runtimeClassName` from the pod, configure the handler on this node (`[runtime.handlers.NAME]`), or choose a node that has it (the RuntimeClass's `scheduling.nodeSelector`)";

pub(super) const HOOK: &str = "the hook comes from the file of a CDI device, from an NRI plugin, or from a file in `runtime.hooks_dir`: correct on this node what its output names, or have the device's driver write its file again (such as `nvidia-ctk cdi generate`)";

/// For a container whose process was killed before its program ran, perhaps while a hook ran.
pub(super) fn cut_short(in_hook: bool, was_stopped: bool) -> Option<String> {
    let advice = match (was_stopped, in_hook) {
        (true, true) => {
            "the stop also ended the hook; if the hook should have ended before, see on this node what it waits for, and \
             give it a `timeout`"
        }
        (true, false) => "the stop came during the start: create or start the container again",
        (false, _) => {
            "something on the node killed the container's process: see the kernel's log (dmesg), and what sends signals \
             there"
        }
    };
    Some(advice.to_owned())
}

pub(super) const QUOTAS: &str = "leave out `size=` of `hull run --storage-opt` (of a pod, its annotation `hull.run/writable-layer-size`), or have project quotas on the node: xfs mounted with `prjquota`, or ext4 with `tune2fs -O project,quota -Q prjquota` while it is not mounted, and mounted with `prjquota`";

pub(super) const LOG_FILE: &str = "the log path must be a regular file of one name below the pod's log directory, without symbolic links; remove what is there";

/// For what a plugin asked for.
pub(super) fn of_plugin(plugins: &str) -> String {
    format!("see the configuration and the log of plugin `{plugins}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_errno_has_its_own_advice() {
        for (errno, wanted) in [
            (Errno::NOTDIR, "is not a directory: remove what is in its way"),
            (Errno::NOENT, "leads nowhere"),
            (Errno::ROFS, "on a read-only file system"),
            (Errno::ACCESS, "allow_root"),
            (Errno::NOSPC, "df -i"),
            (Errno::STALE, "mount it again"),
            (Errno::LOOP, "symbolic links"),
        ] {
            let advice = volume_source("/srv/x", errno);
            assert!(advice.contains(wanted), "{errno:?}: {advice}");
            assert_eq!(advice.contains("in its way"), errno == Errno::NOTDIR, "{advice}");
        }
        for (errno, wanted) in [
            (Errno::NOSPC, "df -h"),
            (Errno::NOENT, "create the directory"),
            (Errno::LOOP, "without symbolic links"),
            (Errno::ISDIR, "must be a regular file"),
        ] {
            let advice = log_file("/var/log/pods/x/0.log", errno);
            assert!(advice.contains(wanted), "{errno:?}: {advice}");
        }
    }
}
