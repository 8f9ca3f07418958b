// SPDX-License-Identifier: Apache-2.0
//! Causes in files and volumes (pure).

use super::clues::Clue;
use super::facts::{Facts, Full, Volume, is_below};
use super::inference::{Inference, likely};
use crate::diagnostics::rights::Right;
use hull_plan::Layer;

/// How a path is named in messages: as it is if the spec has it or it is a volume's, else not at all.
fn named(path: &str, facts: &Facts) -> String {
    let is_of_volume = facts.volumes.iter().any(|volume| volume.target == path);
    if is_of_volume || facts.shows(path) || path == "/" {
        return format!("`{}`", hull_sys::text::shown(path, 256));
    }
    match facts.volume_of(path) {
        Some(volume) => {
            format!("a file in volume `{}`", hull_sys::text::shown(&volume.target, 256))
        }
        None => "a file of the image".into(),
    }
}

/// The access to a path of the clue that modes and owners deny.
pub(super) fn denied_path(facts: &Facts) -> Option<Inference> {
    let identity = facts.identity();
    let walked = facts.walked.as_ref()?;
    if facts.executes
        && walked.complete
        && walked.parts.last().is_some_and(|(_, last)| last.is_directory)
    {
        return Some(likely(
            "command-is-directory",
            Layer::Process,
            format!("{} cannot be executed: it is a directory", named(&walked.path, facts)),
            "set the command to the path of the program inside it",
        ));
    }
    let (path, owner, right) = identity.denied(&walked.parts, walked.complete, facts.executes)?;
    let path = path.to_owned();
    let uid = facts.process.uid;
    let cause =
        format!("uid {uid} may not {} {} ({owner})", right.verb(&owner), named(&path, facts));
    let executes = right == Right::Enter && !owner.is_directory;
    Some(match facts.volume_of(&path) {
        Some(_) if executes && owner.mode & 0o111 == 0 => likely(
            "file-not-executable",
            Layer::Filesystem,
            cause,
            "chmod +x it in the volume (`defaultMode: 0755` of a ConfigMap), or start it by its interpreter",
        ),
        Some(_) if executes => likely(
            "file-permission",
            Layer::Filesystem,
            cause,
            "chmod o+rx it in the volume on the node, or start it by its interpreter",
        ),
        Some(volume) => volume_denied(volume, cause, right, facts),
        None if owner.mode & 0o111 == 0 && right == Right::Enter => likely(
            "file-not-executable",
            Layer::Filesystem,
            cause,
            "chmod +x it in the image, or start it by its interpreter",
        ),
        None if uid == 0 => likely(
            "file-permission",
            Layer::Security,
            format!("{cause}, because CAP_DAC_OVERRIDE was dropped"),
            "add DAC_OVERRIDE to `capabilities.add`, or correct owner or mode in the image (chown, chmod)",
        ),
        None => likely(
            "file-permission",
            Layer::Filesystem,
            cause,
            match owner.uid {
                0 => "correct owner or mode in the image (COPY --chown, chmod)".to_owned(),
                uid => format!(
                    "correct owner or mode in the image (COPY --chown, chmod), or set `runAsUser: {uid}`"
                ),
            },
        ),
    })
}

fn volume_denied(volume: &Volume, cause: String, right: Right, facts: &Facts) -> Inference {
    let target = hull_sys::text::shown(&volume.target, 256);
    let what = if right == Right::Write { "writable" } else { "readable" };
    let uid = facts.process.uid;
    likely(
        "volume-permission",
        Layer::Filesystem,
        cause,
        format!(
            "make volume `{target}` {what} for uid {uid}: set `fsGroup` (hostPath volumes ignore it: chown or chmod the \
             directory on the node)"
        ),
    )
}

/// A device that the container's rules for devices refuse.
pub(super) fn device(clue: &Clue) -> Option<Inference> {
    let is_own = |path: &&str| is_below(path, "/dev/shm") || is_below(path, "/dev/mqueue");
    let device = clue.subject().filter(|path| is_below(path, "/dev") && !is_own(path));
    device.map(|_| likely(
        "device-refused",
        Layer::Cgroup,
        "the container may not use this device of /dev: its cgroup allows only devices of its spec",
        "request the device from its device plugin, or add it to the container (a privileged container has all)",
    ))
}

/// A write to what is mounted read-only.
pub(super) fn read_only(clue: &Clue, facts: &Facts) -> Inference {
    let volume =
        clue.paths().find_map(|path| facts.volume_of(path)).filter(|volume| volume.read_only);
    if let Some(volume) = volume {
        let target = hull_sys::text::shown(&volume.target, 256);
        return likely(
            "volume-read-only",
            Layer::Filesystem,
            format!("volume `{target}` is mounted read-only"),
            "remove `readOnly: true` from its volumeMount, or write elsewhere",
        );
    }
    let kernel = clue.paths().any(|path| is_below(path, "/proc") || is_below(path, "/sys"));
    if kernel || clue.has_word("sysctl") {
        return likely(
            "kernel-files-read-only",
            Layer::Security,
            "/proc/sys and /sys are read-only in containers that are not privileged",
            "set sysctls with `securityContext.sysctls` of the pod, or on the node",
        );
    }
    if facts.root_read_only {
        let at = clue
            .paths()
            .next()
            .and_then(|path| path.rsplit_once('/'))
            .map(|(directory, _)| directory);
        let at = at.filter(|directory| facts.shows(directory));
        let at = at.map_or("the directory that it writes to".to_owned(), |directory| {
            format!("`{}`", hull_sys::text::shown(directory, 256))
        });
        return likely(
            "root-read-only",
            Layer::Filesystem,
            "its root filesystem is read-only (`readOnlyRootFilesystem`)",
            format!("mount an emptyDir at {at}, or set `readOnlyRootFilesystem: false`"),
        );
    }
    likely(
        "read-only",
        Layer::Filesystem,
        "a file system that it writes to is read-only; the kernel makes one read-only after errors of its disk",
        "see the node's kernel log (dmesg) for errors of the disk, and which volume the program's log names",
    )
}

/// A file system without space or inodes.
pub(super) fn no_space(clue: &Clue, facts: &Facts) -> Inference {
    let path = clue.paths().next();
    if facts.shm_full.is_some() || path.is_some_and(|path| is_below(path, "/dev/shm")) {
        return shared_memory(facts);
    }
    let by_path = path.and_then(|path| facts.volume_of(path));
    let full = by_path.or_else(|| facts.volumes.iter().find(|volume| volume.full.is_some()));
    if let Some(volume) = full {
        let target = hull_sys::text::shown(&volume.target, 256);
        return match volume.full {
            Some(Full::Inodes) => likely(
                "volume-inodes",
                Layer::Filesystem,
                format!("volume `{target}` has no inode left, although it has space"),
                "delete files in it, or use a volume with more inodes",
            ),
            Some(Full::Space) | None => likely(
                "volume-full",
                Layer::Filesystem,
                format!("volume `{target}` is full"),
                "free space in it, enlarge the volume, or raise `sizeLimit` of an emptyDir",
            ),
        };
    }
    match facts.layer_full {
        Some(Full::Inodes) => likely(
            "disk-inodes",
            Layer::Filesystem,
            "the node's disk for containers has no inode left, although it has space",
            "delete files that containers wrote, unused images and old containers on the node",
        ),
        Some(Full::Space) | None => likely(
            "disk-full",
            Layer::Filesystem,
            "the file system that it writes to is full: the node's disk for containers, or a volume",
            "free space on the node (unused images, old containers, logs), or write to a larger volume",
        ),
    }
}

/// A full /dev/shm, also the usual cause of SIGBUS.
pub(super) fn shared_memory(facts: &Facts) -> Inference {
    let size =
        facts.shm_full.map_or(String::new(), |bytes| format!(" ({})", super::memory::size(bytes)));
    likely(
        "shm-full",
        Layer::Filesystem,
        format!("the pod's shared memory /dev/shm{size} is full"),
        "mount an emptyDir with `medium: Memory` and a larger `sizeLimit` at /dev/shm",
    )
}

/// A file of the spec that is missing.
pub(super) fn missing(clue: &Clue, facts: &Facts) -> Option<Inference> {
    let path = clue.subject().filter(|path| facts.shows(path))?;
    let name = format!("`{}`", hull_sys::text::shown(path, 256));
    Some(match facts.volume_of(path) {
        Some(volume) => likely(
            "file-missing",
            Layer::Filesystem,
            format!("{name} is not in volume `{}`", hull_sys::text::shown(&volume.target, 256)),
            "check the volume's content, the keys of its ConfigMap or Secret, and `subPath`",
        ),
        None => likely(
            "file-missing",
            Layer::Filesystem,
            format!("{name} is not in the image"),
            "correct the path, add the file to the image, or mount a volume there",
        ),
    })
}
