// SPDX-License-Identifier: Apache-2.0
//! Which mounts of a container are its own, so that CRIU stores them, and which come from elsewhere: volumes, files of
//! the pod, its /dev/shm. CRIU notes those by their mount points, as runc does. Pure.

use oci_spec::runtime::Spec;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// File systems of the kernel that CRIU makes again.
const KERNELS: [&str; 6] = ["proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// A line of mountinfo, proc_pid_mountinfo(5).
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    device: &'a str,
    root: &'a str,
    at: PathBuf,
    fstype: &'a str,
}

/// CRIU's names for the mounts that are not the container's own, by its spec and its mountinfo.
pub(super) fn external(mountinfo: &str, spec: &Spec) -> Vec<String> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(parse).collect();
    // A part of one, such as a container's own cgroup of version 1, CRIU knows only beside the whole.
    let own = |mount: &&Mount<'_>| {
        let is_own_tmpfs = || mount.fstype == "tmpfs" && is_own_tmpfs(spec, &mount.at);
        mount.root == "/" && (KERNELS.contains(&mount.fstype) || is_own_tmpfs())
    };
    let devices: HashSet<&str> = mounts.iter().filter(own).map(|mount| mount.device).collect();
    let others =
        mounts.iter().filter(|mount| mount.at != Path::new("/") && !devices.contains(mount.device));
    let mut names: Vec<String> = others
        .map(|mount| {
            let at = mount.at.display();
            format!("mnt[{at}]:{at}")
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Whether a tmpfs at `path` was made for the container alone: by its spec, with the cgroup mounts of version 1, or to
/// mask a directory.
fn is_own_tmpfs(spec: &Spec, path: &Path) -> bool {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let of_spec = mounts.iter().any(|mount| {
        mount.destination() == path
            && mount.typ().as_deref().is_some_and(|kind| kind == "tmpfs" || kind == "cgroup")
    });
    let masked = spec.linux().as_ref().and_then(|linux| linux.masked_paths().as_ref());
    of_spec || masked.is_some_and(|paths| paths.iter().any(|masked| Path::new(masked) == path))
}

fn parse(line: &str) -> Option<Mount<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(2);
    let (device, root, at) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Mount { device, root, at: unescaped(at), fstype: after.split(' ').next()? })
}

/// A path of mountinfo, in which some bytes are octal numbers.
fn unescaped(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = text.as_bytes();
    let (mut path, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 4).filter(|_| byte == b'\\');
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                at += 4;
            }
            None => {
                path.push(byte);
                at += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_and_files_of_the_pod_are_external_and_what_hull_made_is_not() {
        let spec = serde_json::json!({
            "ociVersion": "1.2.1",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/dev/shm", "type": "bind", "source": "hull:shm"},
                {"destination": "/secret", "type": "bind", "source": "/var/lib/kubelet/x"},
            ],
            "linux": {"maskedPaths": ["/proc/acpi", "/proc/kcore"]},
        });
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let mountinfo = "\
100 99 0:50 / / rw,relatime master:1 - overlay overlay rw,lowerdir=x
101 100 0:51 / /proc rw - proc proc rw
102 100 0:52 / /dev rw - tmpfs tmpfs rw
103 102 0:53 / /dev/pts rw - devpts devpts rw
104 102 0:54 / /dev/shm rw - tmpfs shm rw
105 100 8:1 /pods/p/hosts /etc/hosts rw - ext4 /dev/sda1 rw
106 100 0:55 / /secret ro - tmpfs tmpfs ro
107 101 0:56 / /proc/acpi ro - tmpfs tmpfs ro
108 101 0:52 /null /proc/kcore rw - tmpfs tmpfs rw
109 101 0:51 /bus /proc/bus ro - proc proc rw
111 84 0:30 /pod/c /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
110 100 8:1 /a /with\\040space rw - ext4 /dev/sda1 rw
";
        assert_eq!(
            external(mountinfo, &spec),
            [
                "mnt[/dev/shm]:/dev/shm",
                "mnt[/etc/hosts]:/etc/hosts",
                "mnt[/secret]:/secret",
                "mnt[/sys/fs/cgroup/memory]:/sys/fs/cgroup/memory",
                "mnt[/with space]:/with space",
            ]
        );
    }

    #[test]
    fn a_line_that_is_cut_short_is_no_mount() {
        assert_eq!(parse("100 99 0:50 /"), None);
        assert_eq!(unescaped("/a\\04"), PathBuf::from("/a\\04"));
    }
}
