// SPDX-License-Identifier: Apache-2.0
//! Which mounts of a container show a path of the host, and which path. Pure: compares filesystem and directory
//! with the host's own mount table.

use super::facts::DaemonFacts;
use super::mounts::{Mount, MountTable, is_within, moved};

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The container itself: its root, kernel filesystems of its namespaces, masks, tmpfs.
    Own,
    /// The pod: a volume or file that the kubelet or the daemon created for it.
    Pod,
    /// A device node of the host. It is judged with the nodes.
    Device,
    /// A path of the host.
    Host(String),
}

/// Filesystems that exist per namespace, and their usual mount points in a container.
const OF_NAMESPACES: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("cgroup", "/sys/fs/cgroup"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("devpts", "/dev/pts"),
    ("mqueue", "/dev/mqueue"),
];
/// The entries of the kubelet's directory of a pod.
const OF_KUBELET: [&str; 5] =
    ["volumes", "volume-subpaths", "volumeDevices", "containers", "etc-hosts"];

/// The files in the daemon's directory of a pod.
const OF_DAEMON: [&str; 3] = ["/hosts", "/hostname", "/resolv.conf"];

/// Finds where a mount in a container comes from.
pub(crate) fn find(
    mount: &Mount,
    host: &MountTable,
    given: &DaemonFacts,
    host_ipc: bool,
) -> Origin {
    let at_home = OF_NAMESPACES
        .iter()
        .any(|(fstype, home)| mount.fstype == *fstype && is_within(&mount.point, home));
    if at_home || mount.point == "/" && mount.fstype == "overlay" {
        return Origin::Own;
    }
    let paths = on_host(mount, host);
    let Some(shortest) = paths.iter().min_by_key(|path| path.len()) else { return Origin::Own };
    if paths.iter().any(|path| is_of_pod(path, given)) {
        return Origin::Pod;
    }
    let is_mask = shortest == "/dev/null"
        && (is_within(&mount.point, "/proc") || is_within(&mount.point, "/sys"));
    if is_mask || host_ipc && shortest == "/dev/shm" && mount.point == "/dev/shm" {
        return Origin::Own;
    }
    if shortest.starts_with("/dev/") && mount.point.starts_with("/dev/") {
        return Origin::Device;
    }
    Origin::Host(shortest.clone())
}

/// The paths on the host of a mounted directory or file.
fn on_host(mount: &Mount, host: &MountTable) -> Vec<String> {
    // A directory that was removed on the host after it was mounted is still visible in the container.
    let root = mount.root.strip_suffix("//deleted").unwrap_or(&mount.root);
    let same = host.visible().filter(|of| of.device == mount.device);
    same.filter_map(|of| moved(root, &of.root, &of.point)).collect()
}

/// Whether the path is one where the daemon or the kubelet keeps files of this pod.
fn is_of_pod(path: &str, given: &DaemonFacts) -> bool {
    // Not the whole directory: the monitor's socket is there, too, and it gives the power of root.
    let dirs = given.pod_dirs.iter().filter(|dir| dir.starts_with('/'));
    let mut files = dirs.filter_map(|dir| moved(path, dir, "/"));
    if files.any(|file| OF_DAEMON.contains(&file.as_str())) {
        return true;
    }
    let uid = &given.pod_uid;
    if uid.is_empty() || uid.contains('/') {
        return false;
    }
    let below = path.split_once(&format!("/pods/{uid}/")).map(|(_, below)| below);
    below.is_some_and(|below| OF_KUBELET.contains(&below.split('/').next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "\
20 1 254:0 / / rw - ext4 /dev/vda rw
21 20 0:30 / /dev rw - devtmpfs dev rw
22 20 0:31 / /run rw - tmpfs tmpfs rw
23 20 0:32 / /proc rw - proc proc rw
24 20 0:33 / /sys rw - sysfs sysfs rw
25 20 254:0 /mnt/disk /var/lib/kubelet/pods/u1/volumes/kubernetes.io~local-volume/pv rw - ext4 /dev/vda rw
26 21 0:34 / /dev/shm rw - tmpfs tmpfs rw
27 20 254:1 /sub /data rw - ext4 /dev/vdb rw
";

    fn origin(line: &str) -> Origin {
        let given = DaemonFacts {
            pod_uid: "u1".into(),
            pod_dirs: vec!["/run/hull/run/abc".into()],
            ..DaemonFacts::default()
        };
        let table = MountTable::parse(&format!("{line}\n"));
        find(table.by_id(1).unwrap(), &MountTable::parse(HOST), &given, false)
    }

    #[test]
    fn a_path_of_the_host_is_found_by_filesystem_and_directory() {
        for (line, path) in [
            ("1 9 254:0 / /host rw - ext4 /dev/vda rw", "/"),
            ("1 9 254:0 /etc /x rw - ext4 /dev/vda rw", "/etc"),
            ("1 9 0:31 /docker.sock /y rw - tmpfs tmpfs rw", "/run/docker.sock"),
            ("1 9 254:1 /sub/a /z rw - ext4 /dev/vdb rw", "/data/a"),
            ("1 9 0:32 / /host/proc rw - proc proc rw", "/proc"),
            ("1 9 0:33 / /host/sys ro - sysfs sysfs rw", "/sys"),
            ("1 9 0:30 / /dev rw - devtmpfs dev rw", "/dev"),
            ("1 9 254:0 /old//deleted /x rw - ext4 /dev/vda rw", "/old"),
            // Another pod's.
            (
                "1 9 254:0 /var/lib/kubelet/pods/u2/volumes/a /v rw - ext4 /dev/vda rw",
                "/var/lib/kubelet/pods/u2/volumes/a",
            ),
            ("1 9 0:31 /hull/run/abc /m ro - tmpfs tmpfs rw", "/run/hull/run/abc"),
            (
                "1 9 0:31 /hull/run/abc/monitor.sock /m ro - tmpfs tmpfs rw",
                "/run/hull/run/abc/monitor.sock",
            ),
            // A name of the pod's own does not make anything the pod's.
            ("1 9 254:0 /srv/pods/u1/secret /v rw - ext4 /dev/vda rw", "/srv/pods/u1/secret"),
        ] {
            assert_eq!(origin(line), Origin::Host(path.into()), "{line}");
        }
    }

    #[test]
    fn what_is_the_containers_or_the_pods_is_not_the_hosts() {
        for line in [
            "1 9 0:50 / / rw - overlay overlay rw",
            "1 9 0:60 / /proc rw - proc proc rw",
            "1 9 0:33 / /sys ro - sysfs sysfs rw",
            "1 9 0:61 / /dev/shm rw - tmpfs tmpfs rw",
            "1 9 0:30 /null /proc/kcore rw - devtmpfs dev rw",
            "1 9 254:2 / /unknown rw - ext4 /dev/vdc rw",
            "1 9 254:1 /other /unknown rw - ext4 /dev/vdb rw",
        ] {
            assert_eq!(origin(line), Origin::Own, "{line}");
        }
        for line in [
            "1 9 0:31 /hull/run/abc/hosts /etc/hosts rw - tmpfs tmpfs rw",
            "1 9 254:0 /var/lib/kubelet/pods/u1/volumes/kubernetes.io~empty-dir/c /c rw - ext4 /dev/vda rw",
            "1 9 254:0 /var/lib/kubelet/pods/u1/etc-hosts /etc/hosts rw - ext4 /dev/vda rw",
            "1 9 254:0 /mnt/disk /pv rw - ext4 /dev/vda rw",
        ] {
            assert_eq!(origin(line), Origin::Pod, "{line}");
        }
        assert_eq!(origin("1 9 0:30 /kvm /dev/kvm rw - devtmpfs dev rw"), Origin::Device);
    }
}
