// SPDX-License-Identifier: Apache-2.0
//! The mounts of a root that only this container has, and mount points for the kernel's file systems.
//!
//! The rule: procfs, sysfs and cgroup are mounted on ordinary directories only, which no symbolic link led
//! to. What is masked in them is found beneath the very mount that was made. Nothing is made in, or changed
//! on, a volume at /dev: another container with that volume could have prepared it, and the host would keep it. No
//! symbolic link leads a mount into a procfs: the rule about mounts in /proc goes by the text of their destinations.

use crate::mount::{CallError, Result, errno_context};
use crate::rootfs::{Astray, Make, PROC_MAGIC, Root, SYSFS_MAGIC, kind, mount_id};
use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags, StatxFlags, fstatfs, statx};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// The place of the cgroup file systems on every host.
const CGROUPS_OF_HOST: &str = "/sys/fs/cgroup";
/// Below these, no symbolic link leads to a mount point.
const STRICT: [&str; 3] = ["/dev", "/proc", "/sys"];

/// A procfs or sysfs of the container.
#[derive(Debug)]
struct KernelMount {
    target: String,
    mount: OwnedFd,
}

/// The mounts that were made for this container alone.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Mount ids of the root and of file systems that are new: nobody else can change what is in them.
    own: Vec<u64>,
    kernel: Vec<KernelMount>,
    /// Paths below /dev, /proc and /sys at which something else is mounted.
    volumes: Vec<String>,
    /// Paths of volumes whose mounts are peers of the host's: what is mounted there appears on the host, and stays.
    shared: Vec<String>,
}

/// Whether a mount point there must be reached without a link.
pub(crate) fn is_strict(target: &str) -> bool {
    STRICT.iter().any(|top| rest_below(target, top).is_some())
}

/// The part of `path` after `top`; empty for `top` itself.
fn rest_below<'a>(path: &'a str, top: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(top)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

impl Places {
    /// Notes a mount that is this container's alone.
    pub(crate) fn add(&mut self, mount: BorrowedFd<'_>) -> Result {
        self.own.push(mount_id(mount).map_err(errno_context("statx(mount id)"))?);
        Ok(())
    }

    /// Notes a procfs or sysfs, by a descriptor of its root.
    pub(crate) fn add_kernel(&mut self, target: &str, mount: OwnedFd) {
        self.kernel.push(KernelMount { target: target.to_owned(), mount });
    }

    /// Notes a bind mount: what it covers of the kernel's file systems is not what paths lead to any more.
    pub(crate) fn cover(&mut self, target: &str, is_shared: bool) {
        self.kernel.retain(|of| rest_below(&of.target, target).is_none());
        if is_strict(target) {
            self.volumes.push(target.to_owned());
        }
        if is_shared {
            self.shared.push(target.to_owned());
        }
    }

    /// Whether a mount at `path` would be made on the host, too: it lies in a volume with Bidirectional propagation.
    pub(crate) fn is_shared(&self, path: &str) -> bool {
        self.shared.iter().any(|volume| rest_below(path, volume).is_some())
    }

    /// A second view of a procfs that is mounted already.
    pub(crate) fn first_of(&self, fstype: &str) -> Option<BorrowedFd<'_>> {
        let top = if fstype == "proc" { "/proc" } else { "/sys" };
        self.kernel.iter().find(|of| of.target == top).map(|of| of.mount.as_fd())
    }

    /// Whether what `fd` names lies on a mount that is this container's alone.
    pub(crate) fn owns(&self, fd: BorrowedFd<'_>) -> Result<bool> {
        Ok(self.own.contains(&mount_id(fd).map_err(errno_context("statx(mount id)"))?))
    }

    /// The directory at which `fstype` is mounted: an ordinary one, made where missing.
    pub(crate) fn directory(&self, root: &Root, target: &str, fstype: &str) -> Result<OwnedFd> {
        let found = self.place(root, target, Make::Directory, false)?;
        let (of_kind, ..) =
            kind(found.as_fd()).map_err(errno_context(format!("statx({target})")))?;
        if of_kind != FileType::Directory {
            return Err(errno_context(format!("mount({fstype}): {target} is not a directory"))(
                Errno::NOTDIR,
            ));
        }
        let in_sysfs = || fstatfs(&found).is_ok_and(|stat| stat.f_type == SYSFS_MAGIC);
        // As in a tree that was bound from the host's /sys, with all that is mounted there. The host's root is still ours.
        let is_hosts = || {
            let of_host = rustix::fs::stat(CGROUPS_OF_HOST);
            let own = rustix::fs::fstat(&found);
            // What is mounted in a shared one would be mounted on the host, too.
            !self.is_shared(target)
                && of_host.is_ok_and(|of| own.is_ok_and(|own| of.st_dev == own.st_dev))
        };
        let allowed = match fstype {
            "proc" | "sysfs" => self.owns(found.as_fd())?,
            // Under a sysfs of the host, where nobody can prepare anything.
            "cgroup" | "cgroup2" => self.owns(found.as_fd())? || in_sysfs() || is_hosts(),
            _ => true,
        };
        if allowed {
            return Ok(found);
        }
        Err(errno_context(format!("mount({fstype}): {target} lies in a volume"))(Errno::XDEV))
    }

    /// A mount point below /dev, /proc or /sys, made where missing if its directory is the container's own;
    /// with `anywhere` also in a volume.
    pub(crate) fn place(
        &self,
        root: &Root,
        target: &str,
        make: Make,
        anywhere: bool,
    ) -> Result<OwnedFd> {
        let mut may_make = |parent: BorrowedFd<'_>| match self.owns(parent) {
            Ok(own) if own || anywhere => Ok(()),
            Ok(_) => Err(Errno::XDEV),
            Err(CallError { errno, .. }) => Err(errno),
        };
        root.find_or_make_plain(target, make, &mut may_make).map_err(|errno| {
            let why = match errno {
                Errno::LOOP => " is, or lies behind, a symbolic link",
                Errno::XDEV => " is missing in the volume that is mounted there",
                _ => "",
            };
            errno_context(format!("open({target}){why}"))(errno)
        })
    }

    /// The file to mask or to make read-only at `path`: resolved in the very procfs or sysfs that was mounted, if it
    /// lies in one and no volume covers it; else in what is seen there. `None` if it does not exist.
    pub(crate) fn find(&self, root: &Root, path: &str) -> Result<Option<OwnedFd>> {
        let in_volume = self.volumes.iter().any(|volume| rest_below(path, volume).is_some());
        let inside = self.kernel.iter().rev().filter(|_| !in_volume).find_map(|of| {
            rest_below(path, &of.target).filter(|rest| !rest.is_empty()).map(|rest| (of, rest))
        });
        let found = match inside {
            Some((of, rest)) => {
                let only_here = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                rustix::fs::openat2(&of.mount, rest, flags, rustix::fs::Mode::empty(), only_here)
            }
            // Others may write to a volume: a link there could lead a mask elsewhere.
            None if in_volume => root.find_plain(path),
            None => root.find(path),
        };
        match found {
            Ok(_) if self.is_shared(path) => {
                let why = "it lies in a volume with Bidirectional propagation, and the host's would be covered too";
                Err(errno_context(format!("move_mount({path}): {why}"))(Errno::PERM))
            }
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno_context(format!("openat2({path})"))(errno)),
        }
    }
}

/// Refuses a mount point in a procfs to which a symbolic link led, such as one of an image into the container's own
/// /proc: what is there would be hidden or replaced, though the destination does not name it.
pub(crate) fn check_outside_procfs(root: &Root, at: BorrowedFd<'_>, target: &str) -> Result {
    let stat = fstatfs(at).map_err(errno_context(format!("fstatfs({target})")))?;
    if stat.f_type != PROC_MAGIC {
        return Ok(());
    }
    // The very same file, not what a volume shows there a moment later.
    let plain = root.find_plain(target).ok().and_then(|plain| identity(plain.as_fd()));
    if plain.is_some() && plain == identity(at) {
        return Ok(());
    }
    let call = format!("move_mount({target}): {}", Astray::Procfs.text());
    Err(errno_context(call)(Errno::LOOP))
}

/// The mount and the inode that a descriptor names; `None` if the kernel does not say.
fn identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let wanted = StatxFlags::MNT_ID | StatxFlags::INO;
    let stat = statx(fd, c"", AtFlags::EMPTY_PATH, wanted).ok()?;
    (stat.stx_mask & wanted.bits() == wanted.bits()).then_some((stat.stx_mnt_id, stat.stx_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_is_strict() {
        assert!(is_strict("/dev") && is_strict("/dev/pts") && is_strict("/sys/fs/cgroup"));
        assert!(!is_strict("/device") && !is_strict("/data/dev") && !is_strict("/"));
    }
}
