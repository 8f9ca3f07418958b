// SPDX-License-Identifier: Apache-2.0
//! Advice for values that a cgroup file refuses: which bounds it has, and what the node has.
//!
//! The rule: bounds that depend on this node, or on the parent cgroup, are read when the advice is given.

use crate::errno::{is, libc_errno};
use std::fs;
use std::io;
use std::path::Path;

/// The CPUs and NUMA nodes that are online, where no parent cgroup says which may be used.
const ONLINE: [(&str, &str); 2] =
    [("cpuset.cpus", "/sys/devices/system/cpu"), ("cpuset.mems", "/sys/devices/system/node")];

const READ_ONLY: &str =
    "the cgroup filesystem is read-only: run hull on the host or in a privileged container";

/// Advice for a value that could not be written to the file at `path`.
pub(crate) fn of_write(path: &Path, value: &str, error: &io::Error) -> Option<String> {
    let (dir, name) = (path.parent()?, path.file_name()?.to_str()?);
    let is_busy = is(error, libc_errno::EBUSY);
    let is_refused = is(error, libc_errno::EINVAL) || is(error, libc_errno::ERANGE);
    match name {
        "cpuset.cpus" | "cpuset.mems" if is_refused || is(error, libc_errno::EACCES) => {
            Some(cpuset(dir, name, is_refused))
        }
        "cpu.max" | "cpu.cfs_quota_us" | "cpu.cfs_period_us" if is_refused => Some(bandwidth(dir)),
        "cpu.max.burst" | "cpu.cfs_burst_us" if is_refused => {
            Some("choose a burst that is not larger than the CPU quota".into())
        }
        "memory.memsw.limit_in_bytes" if is_refused => {
            Some("choose a limit for memory with swap that is not below the memory limit".into())
        }
        "memory.limit_in_bytes" if is_refused => {
            Some("choose a memory limit that is not above the one for memory with swap".into())
        }
        "pids.max" if is_refused => {
            Some("choose a number of processes from 1 to 4194304, or -1 for no limit".into())
        }
        "cgroup.subtree_control" if is_busy => Some(format!(
            "choose another parent cgroup, or move the processes out of {}: cgroup v2 hands down controllers only from cgroups without processes of their own",
            dir.display()
        )),
        _ if name.starts_with("memory.") && is_busy => Some(memory_in_use(dir, value)),
        _ if name.starts_with("hugetlb.") && is_refused => {
            Some("choose a multiple of the page size, in bytes".into())
        }
        _ => of_any_file(dir, name, error),
    }
}

/// Advice that does not depend on the value.
fn of_any_file(dir: &Path, name: &str, error: &io::Error) -> Option<String> {
    if is(error, libc_errno::EINVAL) || is(error, libc_errno::ERANGE) {
        return Some(format!("correct the value: the kernel does not accept it for {name}"));
    }
    if is(error, libc_errno::EROFS) {
        return Some(READ_ONLY.into());
    }
    if is(error, libc_errno::EACCES) || is(error, libc_errno::EPERM) {
        return Some(format!(
            "let hull write {}: run it as root, and where a service manager owns the cgroup, with delegation (Delegate=yes)",
            dir.display()
        ));
    }
    if is(error, libc_errno::ENOENT) {
        return Some(format!("remove the limit, or use a kernel that has the file {name}"));
    }
    None
}

/// Advice for a cgroup that cannot be created.
pub(crate) fn of_make(path: &Path, error: &io::Error) -> Option<String> {
    if is(error, libc_errno::EROFS) {
        return Some(READ_ONLY.into());
    }
    if is(error, libc_errno::EAGAIN) {
        return Some(format!(
            "remove cgroups that nobody needs, or raise cgroup.max.descendants or cgroup.max.depth of the parents of {}",
            path.display()
        ));
    }
    if is(error, libc_errno::ENOMEM) || is(error, libc_errno::ENOSPC) {
        return Some("remove cgroups that nobody needs: the kernel has no room for another one (at most 65,535 with a memory controller)".into());
    }
    None
}

/// Names the CPUs or NUMA nodes that the parent lets its children have. A list that the kernel refuses as such
/// (`is_bad`) may be a manager's of the kubelet, from before the node's hardware changed.
fn cpuset(dir: &Path, name: &str, is_bad: bool) -> String {
    let what = if name == "cpuset.cpus" { "CPUs" } else { "NUMA nodes" };
    let of_parent = |file: &str| dir.parent().and_then(|parent| text(parent, file));
    let online = || {
        let (_, dir) = ONLINE.iter().find(|(of, _)| *of == name)?;
        text(Path::new(dir), "online")
    };
    let has = of_parent(&format!("{name}.effective")).or_else(|| of_parent(name)).or_else(online);
    let has = has.unwrap_or_else(|| "the online ones".into());
    let advice = format!("choose {what} that the node has, here {has}, as a list like 0-1,3");
    if !is_bad {
        return advice;
    }
    format!(
        "{advice}; if the kubelet's CPU or memory manager chose them: drain the node, stop the kubelet, delete the manager's state file (cpu_manager_state, memory_manager_state), and start the kubelet"
    )
}

fn bandwidth(dir: &Path) -> String {
    let of_parent = |file| dir.parent().and_then(|parent| text(parent, file));
    let mut advice =
        "choose a CPU quota of at least 1000 us, and a period from 1000 to 1000000 us".to_owned();
    // Only version 1 compares with the parent.
    if let (Some(quota), Some(period)) =
        (of_parent("cpu.cfs_quota_us"), of_parent("cpu.cfs_period_us"))
        && !quota.starts_with('-')
    {
        advice.push_str(&format!(
            ", with a share that is not above the parent cgroup's {quota}/{period}"
        ));
    }
    advice
}

fn memory_in_use(dir: &Path, value: &str) -> String {
    let used =
        ["memory.current", "memory.usage_in_bytes"].into_iter().find_map(|file| text(dir, file));
    let used = used.and_then(|used| used.parse::<u64>().ok()).map_or_else(String::new, |used| {
        // Rounded up, so that a limit of this size is enough.
        format!(" ({} MiB in use now)", used.div_ceil(1 << 20))
    });
    format!(
        "the container uses more than {value} bytes{used}: choose a higher limit, or let it free memory first"
    )
}

/// The first line of a file of the kernel's, if it has one.
fn text(dir: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    let line = text.lines().next().unwrap_or_default().trim().to_owned();
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of a pod's cgroup, and the advice for one of its container's.
    fn advice(files: &[(&str, &str)], name: &str, value: &str, errno: i32) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let container = dir.path().join("container");
        fs::create_dir(&container).unwrap();
        for (file, text) in files {
            fs::write(dir.path().join(file), text).unwrap();
        }
        of_write(&container.join(name), value, &io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn each_file_has_its_bounds_and_what_the_node_has() {
        let parent = [
            ("cpuset.cpus", "0-3\n"),
            ("cpu.cfs_quota_us", "50000\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("container/memory.usage_in_bytes", "53477377\n"),
        ];
        for (name, value, errno, wanted) in [
            ("cpuset.cpus", "64-65", libc_errno::ERANGE, "CPUs that the node has, here 0-3"),
            ("cpuset.cpus", "2", libc_errno::EACCES, "here 0-3"),
            ("cpuset.mems", "7", libc_errno::EINVAL, "NUMA nodes that the node has"),
            ("cpu.max", "10 100000", libc_errno::EINVAL, "1000 to 1000000"),
            ("cpu.cfs_quota_us", "90000", libc_errno::EINVAL, "the parent cgroup's 50000/100000"),
            ("cpu.max.burst", "9", libc_errno::EINVAL, "not larger than the CPU quota"),
            ("pids.max", "x", libc_errno::EINVAL, "number of processes"),
            ("memory.limit_in_bytes", "16777216", libc_errno::EBUSY, "(52 MiB in use now)"),
            ("memory.memsw.limit_in_bytes", "1", libc_errno::EINVAL, "not below the memory limit"),
            ("cgroup.subtree_control", "+cpu", libc_errno::EBUSY, "without processes of their own"),
            ("hugetlb.2MB.max", "1", libc_errno::EINVAL, "multiple of the page size"),
            ("memory.high", "x", libc_errno::ENOENT, "kernel that has the file memory.high"),
            ("io.weight", "x", libc_errno::EINVAL, "does not accept it for io.weight"),
            ("cpu.weight", "1", libc_errno::EROFS, "read-only"),
            ("cpu.weight", "1", libc_errno::EACCES, "run it as root"),
        ] {
            let advice = advice(&parent, name, value, errno).unwrap();
            assert!(advice.contains(wanted), "{name}: {advice}");
        }
        for (errno, is_of_manager) in [(libc_errno::ERANGE, true), (libc_errno::EACCES, false)] {
            let advice = advice(&parent, "cpuset.cpus", "64", errno).unwrap();
            assert_eq!(advice.contains("drain the node"), is_of_manager, "{advice}");
        }
        assert_eq!(advice(&parent, "cpu.weight", "1", 5), None);
        let alone = advice(&[], "cpu.cfs_quota_us", "1", libc_errno::EINVAL).unwrap();
        assert!(!alone.contains("parent"), "{alone}");
    }

    #[test]
    fn a_cgroup_too_many_has_advice() {
        for (errno, wanted) in [
            (libc_errno::EAGAIN, "cgroup.max.descendants"),
            (libc_errno::ENOSPC, "65,535"),
            (libc_errno::EROFS, "read-only"),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert!(of_make(Path::new("/x"), &error).unwrap().contains(wanted));
        }
    }
}
