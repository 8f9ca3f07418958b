// SPDX-License-Identifier: Apache-2.0
//! What a cgroup uses now. Read on demand; nothing is polled or kept.

use crate::files::{field, number, read, read_if_there};
use crate::{Cgroup, Error};
use std::path::Path;

/// Above this a v1 limit means "none": the kernel shows the largest multiple of a page.
pub(crate) const NO_LIMIT: u64 = 1 << 60;

/// What a cgroup uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// CPU time ever used, nanoseconds.
    pub cpu_usage_ns: u64,
    /// Memory, bytes, with page cache.
    pub memory_usage_bytes: u64,
    /// Without what could be dropped at once (inactive page cache): what eviction looks at.
    pub working_set_bytes: u64,
    /// Anonymous memory, bytes.
    pub rss_bytes: u64,
    /// Limit, bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Page faults ever.
    pub page_faults: u64,
    /// Those that needed the disk.
    pub major_page_faults: u64,
    /// Swap, bytes, where it is counted.
    pub swap_usage_bytes: Option<u64>,
    /// Limit of swap, bytes.
    pub swap_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Pressure, where the kernel counts it.
    pub psi_cpu: Option<Psi>,
    /// Likewise.
    pub psi_memory: Option<Psi>,
    /// Likewise.
    pub psi_io: Option<Psi>,
}

/// Pressure stall information, `Documentation/accounting/psi.rst`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Psi {
    /// Some task waited.
    pub some: PsiLine,
    /// All waited.
    pub full: PsiLine,
}

/// One line of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PsiLine {
    /// Per cent of the last 10 seconds.
    pub avg10: f64,
    /// Per cent of the last minute.
    pub avg60: f64,
    /// Per cent of the last five minutes.
    pub avg300: f64,
    /// Microseconds ever.
    pub total_us: u64,
}

pub(crate) fn v2(dir: &Path) -> Result<Stats, Error> {
    let cpu = read(dir, "cpu.stat")?;
    let memory = read_if_there(dir, "memory.stat")?.unwrap_or_default();
    let one = |file| Ok::<_, Error>(read_if_there(dir, file)?.as_deref().and_then(number));
    let usage = one("memory.current")?.unwrap_or(0);
    let inactive = field(&memory, "inactive_file").unwrap_or(0);
    Ok(Stats {
        cpu_usage_ns: field(&cpu, "usage_usec").unwrap_or(0) * 1000,
        memory_usage_bytes: usage,
        working_set_bytes: usage.saturating_sub(inactive),
        rss_bytes: field(&memory, "anon").unwrap_or(0),
        memory_limit_bytes: one("memory.max")?,
        page_faults: field(&memory, "pgfault").unwrap_or(0),
        major_page_faults: field(&memory, "pgmajfault").unwrap_or(0),
        swap_usage_bytes: one("memory.swap.current")?,
        swap_limit_bytes: one("memory.swap.max")?,
        pids: one("pids.current")?.unwrap_or(0),
        psi_cpu: pressure(dir, "cpu.pressure")?,
        psi_memory: pressure(dir, "memory.pressure")?,
        psi_io: pressure(dir, "io.pressure")?,
    })
}

pub(crate) fn v1(cgroup: &Cgroup) -> Result<Stats, Error> {
    let one = |controller: &str, file: &str| match cgroup.v1(controller) {
        Some(dir) => Ok::<_, Error>(read_if_there(&dir, file)?.as_deref().and_then(number)),
        None => Ok(None),
    };
    let memory = match cgroup.v1("memory") {
        Some(dir) => read(&dir, "memory.stat")?,
        None => String::new(),
    };
    let usage = one("memory", "memory.usage_in_bytes")?.unwrap_or(0);
    let inactive = field(&memory, "total_inactive_file").unwrap_or(0);
    let limit = one("memory", "memory.limit_in_bytes")?.filter(|limit| *limit < NO_LIMIT);
    let both = one("memory", "memory.memsw.usage_in_bytes")?;
    let both_limit =
        one("memory", "memory.memsw.limit_in_bytes")?.filter(|limit| *limit < NO_LIMIT);
    let psi = |file| match cgroup.unified() {
        Some(dir) => pressure(&dir, file),
        None => Ok(None),
    };
    Ok(Stats {
        cpu_usage_ns: one("cpuacct", "cpuacct.usage")?.unwrap_or(0),
        memory_usage_bytes: usage,
        working_set_bytes: usage.saturating_sub(inactive),
        rss_bytes: field(&memory, "total_rss").unwrap_or(0),
        memory_limit_bytes: limit,
        page_faults: field(&memory, "total_pgfault").unwrap_or(0),
        major_page_faults: field(&memory, "total_pgmajfault").unwrap_or(0),
        swap_usage_bytes: both.map(|both| both.saturating_sub(usage)),
        swap_limit_bytes: both_limit.zip(limit).map(|(both, memory)| both.saturating_sub(memory)),
        pids: one("pids", "pids.current")?.unwrap_or(0),
        psi_cpu: psi("cpu.pressure")?,
        psi_memory: psi("memory.pressure")?,
        psi_io: psi("io.pressure")?,
    })
}

fn pressure(dir: &Path, file: &str) -> Result<Option<Psi>, Error> {
    Ok(read_if_there(dir, file)?.map(|text| parse_pressure(&text)))
}

fn parse_pressure(text: &str) -> Psi {
    let line = |kind: &str| {
        let words = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_default();
        let value =
            |key: &str| words.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let average = |key: &str| value(key).and_then(|text| text.parse().ok()).unwrap_or(0.0);
        PsiLine {
            avg10: average("avg10"),
            avg60: average("avg60"),
            avg300: average("avg300"),
            total_us: value("total").and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    };
    Psi { some: line("some "), full: line("full ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read() {
        let psi = parse_pressure(
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
        );
        assert_eq!((psi.some.avg10, psi.some.avg60, psi.some.total_us), (1.5, 0.25, 42));
        assert_eq!(psi.full.total_us, 7);
    }
}
