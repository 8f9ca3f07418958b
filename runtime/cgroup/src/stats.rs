// SPDX-License-Identifier: Apache-2.0
//! The resource usage of a cgroup, read on demand; nothing is polled or cached.

use crate::cgroup::Cgroup;
use crate::error::Error;
use crate::files::{Dir, field, number, read_if_there};
use std::path::PathBuf;

/// A v1 limit above this means unlimited: the kernel reports the largest multiple of a page.
pub(crate) const NO_LIMIT: u64 = 1 << 60;

/// The resource usage of a cgroup.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Total CPU time, nanoseconds.
    pub cpu_usage_ns: u64,
    /// Memory with page cache, bytes.
    pub memory_usage_bytes: u64,
    /// Memory without inactive page cache, bytes: the value that eviction decides by.
    pub working_set_bytes: u64,
    /// Anonymous memory, bytes.
    pub rss_bytes: u64,
    /// Memory limit, bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Total page faults.
    pub page_faults: u64,
    /// Page faults that needed I/O.
    pub major_page_faults: u64,
    /// Swap usage, bytes, where the kernel counts it.
    pub swap_usage_bytes: Option<u64>,
    /// Swap limit, bytes.
    pub swap_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// CPU pressure, where the kernel counts it.
    pub psi_cpu: Option<Psi>,
    /// Memory pressure, where the kernel counts it.
    pub psi_memory: Option<Psi>,
    /// I/O pressure, where the kernel counts it.
    pub psi_io: Option<Psi>,
}

/// Pressure stall information, `Documentation/accounting/psi.rst`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Psi {
    /// Time in which at least one task was stalled.
    pub some: PsiLine,
    /// Time in which all tasks were stalled.
    pub full: PsiLine,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PsiLine {
    /// Per cent of the last 10 seconds.
    pub avg10: f64,
    /// Per cent of the last minute.
    pub avg60: f64,
    /// Per cent of the last five minutes.
    pub avg300: f64,
    /// Total stall time, microseconds.
    pub total_us: u64,
}

pub(crate) fn v2(dir: PathBuf) -> Result<Stats, Error> {
    let dir = Dir::open(dir)?;
    let cpu = dir.read("cpu.stat")?;
    let memory = dir.read_if_there("memory.stat")?.unwrap_or_default();
    let usage = dir.number("memory.current")?.unwrap_or(0);
    let inactive = field(&memory, "inactive_file").unwrap_or(0);
    Ok(Stats {
        cpu_usage_ns: field(&cpu, "usage_usec").unwrap_or(0) * 1000,
        memory_usage_bytes: usage,
        working_set_bytes: usage.saturating_sub(inactive),
        rss_bytes: field(&memory, "anon").unwrap_or(0),
        memory_limit_bytes: dir.number("memory.max")?,
        page_faults: field(&memory, "pgfault").unwrap_or(0),
        major_page_faults: field(&memory, "pgmajfault").unwrap_or(0),
        swap_usage_bytes: dir.number("memory.swap.current")?,
        swap_limit_bytes: dir.number("memory.swap.max")?,
        pids: dir.number("pids.current")?.unwrap_or(0),
        psi_cpu: pressure(Some(&dir), "cpu.pressure")?,
        psi_memory: pressure(Some(&dir), "memory.pressure")?,
        psi_io: pressure(Some(&dir), "io.pressure")?,
    })
}

pub(crate) fn v1(cgroup: &Cgroup) -> Result<Stats, Error> {
    let one = |controller: &str, file: &str| match cgroup.v1(controller) {
        Some(dir) => Ok::<_, Error>(read_if_there(&dir, file)?.as_deref().and_then(number)),
        None => Ok(None),
    };
    let dir = cgroup.v1("memory").map(Dir::open).transpose()?;
    let of_memory = |file| dir.as_ref().map_or(Ok(None), |dir| dir.number(file));
    let memory = dir.as_ref().map_or(Ok(String::new()), |dir| dir.read("memory.stat"))?;
    let usage = of_memory("memory.usage_in_bytes")?.unwrap_or(0);
    let inactive = field(&memory, "total_inactive_file").unwrap_or(0);
    let limit = of_memory("memory.limit_in_bytes")?.filter(|limit| *limit < NO_LIMIT);
    let both = of_memory("memory.memsw.usage_in_bytes")?;
    let both_limit = of_memory("memory.memsw.limit_in_bytes")?.filter(|limit| *limit < NO_LIMIT);
    let unified = cgroup.unified().map(Dir::open_if_there).transpose()?.flatten();
    let psi = |file| pressure(unified.as_ref(), file);
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

fn pressure(dir: Option<&Dir>, file: &str) -> Result<Option<Psi>, Error> {
    let text = dir.map_or(Ok(None), |dir| dir.read_if_there(file))?;
    Ok(text.as_deref().map(parse_pressure))
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
