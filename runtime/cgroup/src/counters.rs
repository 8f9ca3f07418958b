// SPDX-License-Identifier: Apache-2.0
//! Counters of a cgroup for monitoring, beyond [`crate::Stats`]: read only when metrics are
//! requested. `Documentation/admin-guide/cgroup-v2.rst`, `cgroup-v1/{cpuacct,memory,blkio-controller}.rst`.

use crate::cgroup::Cgroup;
use crate::error::Error;
use crate::files::{field, number, read_if_there};
use crate::stats::NO_LIMIT;
use std::collections::BTreeMap;
use std::path::Path;

/// Hundredths of a second, in which v1 counts user and system time: `USER_HZ` of every Linux ABI that we
/// run on.
const TICK_NS: u64 = 10_000_000;

/// Counters of a cgroup. What the kernel does not count is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// CPU time in user mode, nanoseconds.
    pub cpu_user_ns: Option<u64>,
    /// CPU time in the kernel, nanoseconds.
    pub cpu_system_ns: Option<u64>,
    /// Periods of the CPU quota that have passed.
    pub cpu_periods: Option<u64>,
    /// Those in which it was used up.
    pub cpu_throttled_periods: Option<u64>,
    /// How long its tasks were held back, nanoseconds.
    pub cpu_throttled_ns: Option<u64>,
    /// Page cache, bytes.
    pub memory_cache_bytes: Option<u64>,
    /// Files mapped into memory, bytes.
    pub memory_mapped_bytes: Option<u64>,
    /// Page cache in use, bytes.
    pub memory_active_file_bytes: Option<u64>,
    /// Page cache that may be dropped, bytes.
    pub memory_inactive_file_bytes: Option<u64>,
    /// The kernel's own, bytes.
    pub memory_kernel_bytes: Option<u64>,
    /// Most ever used, bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Times that the limit was hit.
    pub memory_limit_hits: Option<u64>,
    /// Processes that the out-of-memory killer took.
    pub oom_kills: Option<u64>,
    /// Most processes and threads allowed; `None` is without limit.
    pub pids_max: Option<u64>,
    /// Memory kept back for it as far as possible, bytes; `None` is none.
    pub memory_reserved_bytes: Option<u64>,
    /// By device, as `major:minor`.
    pub io: BTreeMap<String, Io>,
    /// By size, as `2MB`.
    pub huge_pages: BTreeMap<String, HugePages>,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HugePages {
    /// The number of used bytes.
    pub usage_bytes: u64,
    /// Most ever used; v2 does not keep it.
    pub peak_bytes: Option<u64>,
}

/// The input and output of a block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Io {
    /// The number of bytes that were read.
    pub read_bytes: u64,
    /// The number of bytes that were written.
    pub written_bytes: u64,
    /// The number of read operations.
    pub reads: u64,
    /// The number of write operations.
    pub writes: u64,
}

/// Counters that matter after the last process has exited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExitCounters {
    /// Processes that the out-of-memory killer took.
    pub oom_kills: u64,
    /// Most memory ever held, bytes, where the kernel tells.
    pub memory_peak_bytes: Option<u64>,
    /// Forks refused by the pids limit.
    pub pids_refused: u64,
}

pub(crate) fn v2(dir: &Path) -> Result<Counters, Error> {
    let file = |name| read_if_there(dir, name).map(Option::unwrap_or_default);
    let (cpu, memory, events) = (file("cpu.stat")?, file("memory.stat")?, file("memory.events")?);
    let us = |key| field(&cpu, key).map(|us| us * 1000);
    Ok(Counters {
        cpu_user_ns: us("user_usec"),
        cpu_system_ns: us("system_usec"),
        cpu_periods: field(&cpu, "nr_periods"),
        cpu_throttled_periods: field(&cpu, "nr_throttled"),
        cpu_throttled_ns: us("throttled_usec"),
        memory_cache_bytes: field(&memory, "file"),
        memory_mapped_bytes: field(&memory, "file_mapped"),
        memory_active_file_bytes: field(&memory, "active_file"),
        memory_inactive_file_bytes: field(&memory, "inactive_file"),
        memory_kernel_bytes: field(&memory, "kernel"),
        memory_peak_bytes: number(&file("memory.peak")?),
        memory_limit_hits: field(&events, "max"),
        oom_kills: field(&events, "oom_kill"),
        pids_max: number(&file("pids.max")?),
        memory_reserved_bytes: number(&file("memory.low")?),
        io: io_stat(&file("io.stat")?),
        huge_pages: huge_pages(dir, "current")?,
    })
}

pub(crate) fn v1(cgroup: &Cgroup) -> Result<Counters, Error> {
    let file = |controller: &str, name: &str| match cgroup.v1(controller) {
        Some(dir) => read_if_there(&dir, name).map(Option::unwrap_or_default),
        None => Ok(String::new()),
    };
    let ticks = file("cpuacct", "cpuacct.stat")?;
    let (cpu, memory) = (file("cpu", "cpu.stat")?, file("memory", "memory.stat")?);
    let mut io = BTreeMap::new();
    blkio(&file("blkio", "blkio.throttle.io_service_bytes")?, &mut io, |io, read, value| {
        *(if read { &mut io.read_bytes } else { &mut io.written_bytes }) = value;
    });
    blkio(&file("blkio", "blkio.throttle.io_serviced")?, &mut io, |io, read, value| {
        *(if read { &mut io.reads } else { &mut io.writes }) = value;
    });
    Ok(Counters {
        cpu_user_ns: field(&ticks, "user").map(|ticks| ticks * TICK_NS),
        cpu_system_ns: field(&ticks, "system").map(|ticks| ticks * TICK_NS),
        cpu_periods: field(&cpu, "nr_periods"),
        cpu_throttled_periods: field(&cpu, "nr_throttled"),
        cpu_throttled_ns: field(&cpu, "throttled_time"),
        memory_cache_bytes: field(&memory, "total_cache"),
        memory_mapped_bytes: field(&memory, "total_mapped_file"),
        memory_active_file_bytes: field(&memory, "total_active_file"),
        memory_inactive_file_bytes: field(&memory, "total_inactive_file"),
        memory_kernel_bytes: number(&file("memory", "memory.kmem.usage_in_bytes")?),
        memory_peak_bytes: number(&file("memory", "memory.max_usage_in_bytes")?),
        memory_limit_hits: number(&file("memory", "memory.failcnt")?),
        oom_kills: field(&file("memory", "memory.oom_control")?, "oom_kill"),
        pids_max: number(&file("pids", "pids.max")?),
        // Without a reservation it is the largest multiple of a page.
        memory_reserved_bytes: number(&file("memory", "memory.soft_limit_in_bytes")?)
            .filter(|bytes| *bytes < NO_LIMIT),
        io,
        huge_pages: match cgroup.v1("hugetlb") {
            Some(dir) => huge_pages(&dir, "usage_in_bytes")?,
            None => BTreeMap::new(),
        },
    })
}

/// Files such as `hugetlb.2MB.current`, for each size that the kernel has.
fn huge_pages(dir: &Path, usage: &str) -> Result<BTreeMap<String, HugePages>, Error> {
    let mut by_size = BTreeMap::new();
    // A cgroup that goes meanwhile has none.
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size = name
            .to_str()
            .and_then(|name| name.strip_prefix("hugetlb.")?.strip_suffix(usage)?.strip_suffix('.'));
        // Also `hugetlb.2MB.rsvd.current`: what is reserved.
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        let read = |file: &str| {
            let text = read_if_there(dir, &format!("hugetlb.{size}.{file}"))?;
            Ok::<_, Error>(text.as_deref().and_then(number))
        };
        let pages = HugePages {
            usage_bytes: read(usage)?.unwrap_or(0),
            peak_bytes: read("max_usage_in_bytes")?,
        };
        by_size.insert(size.to_owned(), pages);
    }
    Ok(by_size)
}

/// Lines such as `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn io_stat(text: &str) -> BTreeMap<String, Io> {
    let mut by_device = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(device) = words.next() else { continue };
        let mut io = Io::default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = number(value).unwrap_or(0);
            match key {
                "rbytes" => io.read_bytes = value,
                "wbytes" => io.written_bytes = value,
                "rios" => io.reads = value,
                "wios" => io.writes = value,
                _ => {}
            }
        }
        by_device.insert(device.to_owned(), io);
    }
    by_device
}

/// Lines such as `8:0 Read 4096`; `Total` lines and other kinds are passed over.
fn blkio(text: &str, by_device: &mut BTreeMap<String, Io>, put: impl Fn(&mut Io, bool, u64)) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(device), Some(kind), Some(value)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if let ("Read" | "Write", Some(value)) = (kind, number(value)) {
            put(by_device.entry(device.to_owned()).or_default(), kind == "Read", value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Io = Io { read_bytes: 4096, written_bytes: 8192, reads: 1, writes: 2 };

    #[test]
    fn both_versions_tell_of_devices_alike() {
        let text = "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n";
        assert_eq!(io_stat(text)["8:0"], WANTED);
        let mut by_device = BTreeMap::new();
        let bytes = "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 0\n8:0 Total 12288\nTotal 12288\n";
        blkio(bytes, &mut by_device, |io, read, value| {
            *(if read { &mut io.read_bytes } else { &mut io.written_bytes }) = value;
        });
        blkio("8:0 Read 1\n8:0 Write 2\n", &mut by_device, |io, read, value| {
            *(if read { &mut io.reads } else { &mut io.writes }) = value;
        });
        assert_eq!(by_device.len(), 1);
        assert_eq!(by_device["8:0"], WANTED);
    }

    #[test]
    fn huge_pages_are_told_by_their_size() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("hugetlb.2MB.usage_in_bytes", "4194304\n"),
            ("hugetlb.2MB.max_usage_in_bytes", "6291456\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "1\n"),
            ("hugetlb.1GB.usage_in_bytes", "0\n"),
            ("cgroup.procs", ""),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let found = huge_pages(dir.path(), "usage_in_bytes").unwrap();
        let two = HugePages { usage_bytes: 4 << 20, peak_bytes: Some(6 << 20) };
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found["2MB"], two);
        assert_eq!(found["1GB"], HugePages::default());
    }

    #[test]
    fn what_is_not_counted_is_nothing() {
        let empty = std::env::temp_dir().join("hull-no-such-cgroup");
        assert_eq!(v2(&empty).unwrap_or_default(), Counters::default());
    }
}
