// SPDX-License-Identifier: Apache-2.0
//! Takes the host's procfs and sysfs out of a mount namespace whose host's root stays below the container's
//! ([`Op::MoveRoot`](crate::plan::Op::MoveRoot)). With an unmasked one anywhere in it, the kernel lets processes in a user
//! namespace mount another unmasked one (`mount_too_revealing`, fs/namespace.c).

use crate::mount::{Result, attach_path, errno_context, new_mount};
use crate::plan::Attrs;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::fs;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Unmounts every procfs and sysfs that does not lie in `root`; what cannot be unmounted is covered.
pub(crate) fn remove_outside(root: BorrowedFd<'_>) -> Result {
    let place = fs::read_link(format!("/proc/self/fd/{}", root.as_raw_fd()));
    let table = fs::read_to_string("/proc/self/mountinfo");
    let failed = |err: &std::io::Error| {
        errno_context("read(/proc/self/mountinfo)")(Errno::from_io_error(err).unwrap_or(Errno::IO))
    };
    let place = place.map_err(|err| failed(&err))?.to_string_lossy().into_owned();
    let outside = outside(&table.map_err(|err| failed(&err))?, &place);
    // The latest first: they lie on the others.
    for at in outside.iter().rev() {
        if unmount(at.as_str(), UnmountFlags::DETACH).is_err() {
            let options = [("size".to_owned(), Some("0k".to_owned()))];
            let cover = new_mount("tmpfs", "tmpfs", &Attrs::default(), &options)?;
            attach_path(&cover, at)?;
        }
    }
    Ok(())
}

/// The places of procfs and sysfs mounts that are not below `root`, in the order of the table.
fn outside(table: &str, root: &str) -> Vec<String> {
    let is_below = |at: &str| at.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    let of_line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let kind = file_system.split(' ').next()?;
        let at = unescaped(mount.split(' ').nth(4)?);
        (matches!(kind, "proc" | "sysfs") && !is_below(&at)).then_some(at)
    };
    table.lines().filter_map(of_line).collect()
}

/// The text behind octal escapes, as `proc_pid_mountinfo(5)` has blanks and backslashes.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernel_file_systems_outside_of_the_root_are_found() {
        let table = "22 27 0:21 / /proc rw - proc proc rw\n\
            23 27 0:22 / /sys rw shared:1 - sysfs sysfs rw\n\
            24 23 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
            25 27 0:24 / /b/rootfs/proc rw - proc proc rw\n\
            26 27 0:24 / /b/rootfs-2/a\\040b rw - proc proc rw\n";
        assert_eq!(outside(table, "/b/rootfs"), ["/proc", "/sys", "/b/rootfs-2/a b"]);
    }
}
