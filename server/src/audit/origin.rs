// SPDX-License-Identifier: Apache-2.0
//! Which mounts of a container show something of the host, and what. Pure: by filesystem and directory,
//! compared with the host's own table.

use super::facts::Given;
use super::mounts::{Mount, Table, is_within, moved};

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The container's own: its root, filesystems of the kernel made for it, masks, memory.
    Own,
    /// A volume or file of the pod: made by the kubelet or by the daemon for it.
    Pod,
    /// Somebody gave it a device of the host by its node. Judged with the nodes.
    Device,
    /// This path of the host.
    Host(String),
}

/// Filesystems that are made per namespace, and where they belong in a container.
const OF_NAMESPACES: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("cgroup", "/sys/fs/cgroup"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("devpts", "/dev/pts"),
    ("mqueue", "/dev/mqueue"),
];
/// What a kubelet puts below a pod's directory.
const OF_KUBELET: [&str; 5] =
    ["volumes", "volume-subpaths", "volumeDevices", "containers", "etc-hosts"];

/// What the daemon makes for a pod in its directory.
const OF_DAEMON: [&str; 3] = ["/hosts", "/hostname", "/resolv.conf"];

/// Where `mount`, seen in a container, comes from.
pub(crate) fn of(mount: &Mount, host: &Table, given: &Given, host_ipc: bool) -> Origin {
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

/// Paths of the host by which what is mounted is found there too.
fn on_host(mount: &Mount, host: &Table) -> Vec<String> {
    // What was removed on the host after it was mounted is still there for the container.
    let root = mount.root.strip_suffix("//deleted").unwrap_or(&mount.root);
    let same = host.visible().filter(|of| of.device == mount.device);
    same.filter_map(|of| moved(root, &of.root, &of.point)).collect()
}

/// Whether it lies where the daemon or the kubelet keeps what is this pod's.
fn is_of_pod(path: &str, given: &Given) -> bool {
    // Not all of it: the monitor's socket, which does all that root can, lies there too.
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
        let given = Given {
            pod_uid: "u1".into(),
            pod_dirs: vec!["/run/hull/run/abc".into()],
            ..Given::default()
        };
        let table = Table::parse(&format!("{line}\n"));
        of(table.by_id(1).unwrap(), &Table::parse(HOST), &given, false)
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
