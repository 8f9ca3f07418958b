// SPDX-License-Identifier: Apache-2.0
//! The hierarchies of cgroup v1 as a container sees them: its own part of each, in one directory.

use crate::mount::{MS_SLAVE, Result, attach_in, bits, clone_tree, errno_context};
use crate::plan::Attrs;
use hull_cgroup::CgroupFs;
use hull_sys::Attr;
use rustix::fs::Mode;
use std::os::fd::{AsFd as _, OwnedFd};

/// Binds the part of `cgroup` in every hierarchy into the tmpfs, which errors name by its place.
pub(crate) fn bind_all(
    host: &CgroupFs,
    cgroup: &str,
    attrs: &Attrs,
    (tmpfs, place): (&OwnedFd, &str),
) -> Result {
    let named = host.hierarchies().iter().map(|of| {
        let name = of.controllers.join(",");
        (name.trim_start_matches("name=").to_owned(), of.mountpoint.as_path())
    });
    for (name, mountpoint) in named {
        let own = format!("{}{cgroup}", mountpoint.display());
        let tree = clone_tree(&own, false)?;
        let attr = Attr { set: bits(attrs), propagation: MS_SLAVE, ..Attr::default() };
        hull_sys::mount_setattr(tree.as_fd(), false, &attr)?;
        // Names in a file system that is new and ours: nothing in it could lead elsewhere.
        rustix::fs::mkdirat(tmpfs, name.as_str(), Mode::from_raw_mode(0o755))
            .map_err(errno_context(format!("mkdirat({place}/{name})")))?;
        attach_in(&tree, tmpfs, &name)
            .map_err(errno_context(format!("move_mount({place}/{name})")))?;
        // Programs look each controller up by its own name.
        for alone in name.split(',').filter(|_| name.contains(',')) {
            rustix::fs::symlinkat(name.as_str(), tmpfs, alone)
                .map_err(errno_context(format!("symlinkat({name}, {place}/{alone})")))?;
        }
    }
    Ok(())
}
