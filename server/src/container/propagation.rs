// SPDX-License-Identifier: Apache-2.0
//! Mount propagation of volumes: it needs a mount of the host that propagates.
//!
//! The rule: a volume with Bidirectional or HostToContainer propagation on a private mount is refused, as other
//! runtimes do: its mounts would stay on their side without a word.

use crate::error::Error;
use crate::node::Node;
use hull_proto::cri::{self, MountPropagation};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::fs;

/// The mounts of this process: proc_pid_mountinfo(5).
const MOUNTS: &str = "/proc/self/mountinfo";

/// How a mount propagates: mount_namespaces(7).
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostMount {
    /// Its mount point.
    at: String,
    is_shared: bool,
    is_slave: bool,
}

impl HostMount {
    fn kind(&self) -> &'static str {
        match (self.is_shared, self.is_slave) {
            (true, _) => "a shared mount",
            (false, true) => "a slave mount",
            (false, false) => "a private mount",
        }
    }

    fn can(&self, wanted: MountPropagation) -> bool {
        match wanted {
            MountPropagation::PropagationPrivate => true,
            MountPropagation::PropagationHostToContainer => self.is_shared || self.is_slave,
            MountPropagation::PropagationBidirectional => self.is_shared,
        }
    }
}

/// Refuses volumes whose propagation the mounts of their sources do not have.
pub(crate) async fn check(node: &Node, config: &cri::ContainerConfig) -> Result<(), Error> {
    for mount in config.mounts.iter().filter(|mount| mount.image.is_none()) {
        let (wanted, name) = match mount.propagation() {
            MountPropagation::PropagationPrivate => continue,
            wanted @ MountPropagation::PropagationHostToContainer => (wanted, "HostToContainer"),
            wanted @ MountPropagation::PropagationBidirectional => (wanted, "Bidirectional"),
        };
        let path = mount.host_path.clone();
        let found = node.storage.within("look for a volume", &mount.host_path, move || of(&path));
        if let Some(found) = found.await?.filter(|found| !found.can(wanted)) {
            return Err(Error::Propagation {
                path: mount.host_path.clone(),
                wanted: name,
                is: found.kind(),
                mount: found.at,
            });
        }
    }
    Ok(())
}

/// The mount that a path of the host lies on; `None` if the kernel does not say (before Linux 5.8).
fn of(path: &str) -> Option<HostMount> {
    let found = statx(CWD, path, AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID).ok()?;
    if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return None;
    }
    find(&fs::read_to_string(MOUNTS).ok()?, found.stx_mnt_id)
}

/// The mount with this number.
fn find(mounts: &str, id: u64) -> Option<HostMount> {
    let id = id.to_string();
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&id))?;
    let at = line.split(' ').nth(4)?.to_owned();
    // The optional fields end with a single hyphen.
    let optional: Vec<&str> = line.split(' ').skip(6).take_while(|field| *field != "-").collect();
    let has = |tag: &str| optional.iter().any(|field| field.starts_with(tag));
    Some(HostMount { at, is_shared: has("shared:"), is_slave: has("master:") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_of_mounts_are_told_apart() {
        let mounts = "22 1 0:21 / / rw,relatime - ext4 /dev/vda rw\n\
                      30 22 0:5 / /shared rw,relatime shared:7 - tmpfs shared:9 rw\n\
                      31 22 0:6 / /slave rw master:7 propagate_from:2 - tmpfs none rw\n\
                      32 22 0:7 / /both rw shared:8 master:7 - tmpfs none rw\n";
        let both = [
            MountPropagation::PropagationHostToContainer,
            MountPropagation::PropagationBidirectional,
        ];
        for (id, kind, can) in [
            (22, "a private mount", [false, false]),
            (30, "a shared mount", [true, true]),
            (31, "a slave mount", [true, false]),
            (32, "a shared mount", [true, true]),
        ] {
            let found = find(mounts, id).unwrap();
            assert_eq!(found.kind(), kind, "{found:?}");
            assert_eq!(both.map(|wanted| found.can(wanted)), can, "{found:?}");
        }
        assert_eq!(find(mounts, 2), None);
        assert_eq!(find("22 1\n22", 22), None, "a line that is cut");
    }

    #[test]
    fn the_mount_of_a_path_is_found() {
        let found = of("/proc/self").unwrap();
        assert_eq!(found.at, "/proc");
        assert_eq!(of("/not/there"), None);
    }
}
