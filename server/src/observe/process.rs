// SPDX-License-Identifier: Apache-2.0
//! The resources of the daemon's own process, from /proc. `proc_pid_status(5)`, `proc_pid_stat(5)`, `proc_pid_limits(5)`.

use std::fs;
use std::time::Duration;

/// The process of the daemon. What cannot be read is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Own {
    pub(super) open_files: Option<u64>,
    pub(super) open_files_max: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) cpu: Option<Duration>,
}

/// Reads it. Blocks.
pub(super) fn own() -> Own {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let status = read("status");
    // The listing has a descriptor of its own.
    let listed = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
    Own {
        open_files: listed.map(|count| count.saturating_sub(1)),
        open_files_max: open_files_limit(&read("limits")),
        resident_bytes: field(&status, "VmRSS:").and_then(|kib| kib.checked_mul(1024)),
        threads: field(&status, "Threads:"),
        cpu: cpu(&read("stat"), rustix::param::clock_ticks_per_second()),
    }
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

fn open_files_limit(text: &str) -> Option<u64> {
    field(text, "Max open files")
}

/// The time in user mode and in the kernel: the fields 14 and 15. The name in the second one may have blanks.
fn cpu(stat: &str, ticks_per_s: u64) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let (user, kernel): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let ms = user.checked_add(kernel)?.checked_mul(1000)?.checked_div(ticks_per_s)?;
    Some(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_the_kernel_writes_them() {
        let status = "Name:\thull\nVmRSS:\t   30000 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(30_000));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(field(status, "VmSwap:"), None);
        let limits = "Max open files            1024                 524288               files\n";
        assert_eq!(open_files_limit(limits), Some(1024));
        assert_eq!(open_files_limit("Max open files            unlimited\n"), None);
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 7 0 100 0 0";
        assert_eq!(cpu(stat, 100), Some(Duration::from_secs(3)));
        assert_eq!(cpu(stat, 0), None);
        assert_eq!(cpu("42 (a", 100), None);
    }

    #[test]
    fn this_process_uses_something() {
        let own = own();
        assert!(own.open_files.unwrap() >= 3 && own.resident_bytes.unwrap() > 1 << 20, "{own:?}");
        assert!(own.threads.unwrap() >= 1 && own.cpu.is_some(), "{own:?}");
    }
}
