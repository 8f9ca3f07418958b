// SPDX-License-Identifier: Apache-2.0
//! Bind mounts: one form of the operations that make them, and their attributes.

use crate::kernel_mounts;
use crate::mount::{MS_SLAVE, Result, bits, clone_fd, errno_context, propagation_bits};
use crate::plan::{Attrs, BindAttributes, IdMaps, Op, Propagation, Source};
use crate::rootfs::Root;
use hull_sys::Attr;
use rustix::fs::fstatfs;
use rustix::io::Errno;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// Magic numbers of the kernel's own file systems: proc, sysfs, cgroup, cgroup2. `statfs(2)`.
const KERNELS: [u64; 4] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270];

/// A bind mount of a plan, of whichever operation.
#[derive(Debug)]
pub(crate) struct Bind<'a> {
    pub(crate) source: &'a Source,
    pub(crate) target: &'a str,
    pub(crate) recursive: bool,
    /// Maps of its ids, and whether the mounts below are mapped too.
    pub(crate) id_maps: Option<(&'a IdMaps, bool)>,
    attributes: BindAttributes,
}

impl<'a> Bind<'a> {
    /// The bind mount that `op` makes; `None` if it makes none.
    pub(crate) fn of(op: &'a Op) -> Option<Self> {
        if let Op::Bind {
            source,
            target,
            recursive,
            attrs,
            recursive_attrs,
            clear,
            propagation,
            id_maps,
        } = op
        {
            let cleared = bits(clear) | times(attrs);
            let attributes = BindAttributes {
                set: bits(attrs),
                clear: cleared,
                set_all: bits(recursive_attrs),
                clear_all: times(recursive_attrs),
                propagation: propagation.iter().map(|of| (*of, *recursive)).collect(),
            };
            let id_maps = id_maps.as_ref().map(|maps| (maps, *recursive));
            return Some(Self { source, target, recursive: *recursive, id_maps, attributes });
        }
        if let Op::BindWith { source, target, recursive, attributes, id_maps } = op {
            let id_maps = id_maps.as_ref().map(|of| (&of.maps, of.recursive));
            let attributes = attributes.clone();
            return Some(Self { source, target, recursive: *recursive, id_maps, attributes });
        }
        None
    }

    /// Whether mounts in it appear on the host.
    pub(crate) fn is_shared(&self) -> bool {
        self.attributes.propagation.iter().any(|(of, _)| *of == Propagation::Shared)
    }

    /// Sets the attributes of the detached `tree`.
    pub(crate) fn set_attributes(&self, tree: &OwnedFd) -> Result {
        let BindAttributes { set, clear, set_all, clear_all, propagation } = &self.attributes;
        for (set, clear, recursive) in [(*set, *clear, false), (*set_all, *clear_all, true)] {
            if set != 0 || clear != 0 {
                let attr = Attr { set, clear, ..Attr::default() };
                hull_sys::mount_setattr(tree.as_fd(), recursive, &attr)?;
            }
        }
        let keeps_peers = propagation.contains(&(Propagation::Shared, true));
        if self.recursive && self.is_shared() && !keeps_peers {
            // Else the mounts below stay peers of the host's.
            let attr = Attr { propagation: MS_SLAVE, ..Attr::default() };
            hull_sys::mount_setattr(tree.as_fd(), true, &attr)?;
        }
        for (of, recursive) in propagation {
            let attr = Attr { propagation: propagation_bits(*of), ..Attr::default() };
            hull_sys::mount_setattr(tree.as_fd(), *recursive, &attr)?;
        }
        Ok(())
    }
}

/// The three ways of access times are one number: to set one, all its bits are cleared.
fn times(attrs: &Attrs) -> u64 {
    if bits(attrs) & Attr::ATIME != 0 || attrs.relatime { Attr::ATIME } else { 0 }
}

/// A clone of what is at `path` of the container now; no link is followed. Nothing of the kernel's file systems may be in
/// it, at its top or below: their masked paths would be visible in the copy.
pub(crate) fn inside(root: &Root, path: &str, recursive: bool) -> Result<OwnedFd> {
    let found = root.find_plain(path).map_err(errno_context(format!("openat2({path})")))?;
    let below = kernel_mounts::beneath(found.as_fd())?;
    if let Some(at) = below.first().filter(|_| recursive) {
        let call = format!("open_tree({path}, CLONE): a kernel file system is below, at {at}");
        return Err(errno_context(call)(Errno::XDEV));
    }
    let stat = fstatfs(&found).map_err(errno_context(format!("fstatfs({path})")))?;
    let magic = u64::try_from(stat.f_type).unwrap_or(0);
    if KERNELS.contains(&magic) {
        let call = format!("open_tree({path}, CLONE): it is in one of the kernel's file systems");
        return Err(errno_context(call)(Errno::XDEV));
    }
    clone_fd(found.as_fd(), recursive)
}

/// Maps the ids of a detached tree by the maps of a user namespace.
pub(crate) fn map_ids(tree: &OwnedFd, recursive: bool, user: BorrowedFd<'_>) -> Result {
    let userns_fd = u64::try_from(user.as_raw_fd()).unwrap_or(u64::MAX);
    let attr = Attr { set: Attr::IDMAP, userns_fd, ..Attr::default() };
    Ok(hull_sys::mount_setattr(tree.as_fd(), recursive, &attr)?)
}
