// SPDX-License-Identifier: Apache-2.0
//! Takes the host's procfs and sysfs out of a mount namespace whose host's root stays below the container's
//! ([`Op::MoveRoot`](crate::plan::Op::MoveRoot)). With an unmasked one anywhere in it, the kernel lets processes in a user
//! namespace mount another unmasked one (`mount_too_revealing`, fs/namespace.c).

use crate::mount::{CallError, Result, errno_context};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::fs;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Unmounts every procfs and sysfs that does not lie in `root`.
///
/// # Errors
/// One cannot be unmounted.
pub(crate) fn remove_outside(root: BorrowedFd<'_>) -> Result {
    let place = place_of(root)?;
    // Opened once: it can be read when its procfs is not mounted any more.
    let mut file = fs::File::open("/proc/self/mountinfo").map_err(|err| failed(&err))?;
    let mut before = usize::MAX;
    loop {
        let mut table = String::new();
        file.rewind().map_err(|err| failed(&err))?;
        file.read_to_string(&mut table).map_err(|err| failed(&err))?;
        let outside = of_kinds(&table, &["proc", "sysfs"], |at| !is_below(at, &place));
        let Some(last) = outside.last() else { return Ok(()) };
        if outside.len() >= before {
            let call = format!("umount2({last}, DETACH): the host's stays visible");
            return Err(errno_context(call)(Errno::BUSY));
        }
        before = outside.len();
        // The latest first: they lie on the others. The table says afterwards what was unmounted.
        for at in outside.iter().rev() {
            let _seen_above = unmount(at.as_str(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

/// The kernel's file systems that are mounted below what `fd` names.
pub(crate) fn beneath(fd: BorrowedFd<'_>) -> Result<Vec<String>> {
    let place = place_of(fd)?;
    let kinds = ["proc", "sysfs", "cgroup", "cgroup2"];
    Ok(of_kinds(&table()?, &kinds, |at| is_below(at, &place)))
}

fn failed(err: &std::io::Error) -> CallError {
    errno_context("read(/proc/self/mountinfo)")(Errno::from_io_error(err).unwrap_or(Errno::IO))
}

fn table() -> Result<String> {
    fs::read_to_string("/proc/self/mountinfo").map_err(|err| failed(&err))
}

/// The path of what a descriptor names, as the table has it.
fn place_of(fd: BorrowedFd<'_>) -> Result<String> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let place = fs::read_link(&link).map_err(|err| failed(&err))?.to_string_lossy().into_owned();
    // proc_pid_fd(5): the table does not have the mounts below what is not there any more.
    if place.ends_with(" (deleted)") {
        return Err(errno_context(format!("readlink({link})"))(Errno::STALE));
    }
    Ok(place)
}

fn is_below(at: &str, place: &str) -> bool {
    at.strip_prefix(place.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
}

/// The places of mounts of these kinds that are wanted, in the order of the table.
fn of_kinds(table: &str, kinds: &[&str], wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let of_line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let kind = file_system.split(' ').next()?;
        let at = unescaped(mount.split(' ').nth(4)?);
        (kinds.contains(&kind) && wanted(&at)).then_some(at)
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
        let outside = |at: &str| !is_below(at, "/b/rootfs");
        let found = of_kinds(table, &["proc", "sysfs"], outside);
        assert_eq!(found, ["/proc", "/sys", "/b/rootfs-2/a b"]);
        assert_eq!(of_kinds(table, &["proc"], |at| is_below(at, "/b")).len(), 2);
        assert_eq!(of_kinds(table, &["proc"], |at| is_below(at, "/")).len(), 3);
    }
}
