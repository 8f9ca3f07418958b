// SPDX-License-Identifier: Apache-2.0
//! The limits of a cgroup. `None` and empty mean: leave as it is.

use borsh::{BorshDeserialize, BorshSerialize};

/// Limits of one cgroup, in the OCI runtime spec's (and cgroup v1's) units.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Limits {
    /// CPU shares, 2..=262144, of 1024 by default. On v2 turned into `cpu.weight`.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU per period; -1 lifts the limit.
    pub cpu_quota_us: Option<i64>,
    /// Length of the period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Burst above the quota in microseconds.
    pub cpu_burst_us: Option<u64>,
    /// `SCHED_IDLE` for the whole group.
    pub cpu_idle: Option<bool>,
    /// CPUs, as in cpuset(7) list format.
    pub cpuset_cpus: Option<String>,
    /// NUMA nodes, in the same form.
    pub cpuset_mems: Option<String>,
    /// Bytes; -1 lifts the limit.
    pub memory_bytes: Option<i64>,
    /// Memory plus swap in bytes (v1's and OCI's meaning); -1 lifts the limit.
    pub memory_swap_bytes: Option<i64>,
    /// Soft limit in bytes (`memory.low` on v2).
    pub memory_reservation_bytes: Option<i64>,
    /// Do not kill when out of memory (v1 only).
    pub oom_kill_disable: Option<bool>,
    /// Processes and threads; -1 or 0 lifts the limit.
    pub pids: Option<i64>,
    /// Per page size.
    pub hugepages: Vec<HugepageLimit>,
    /// I/O weight, 10..=1000 (v1's range).
    pub io_weight: Option<u16>,
    /// Device access, in order, the last that matches wins. Empty: no device control is set up.
    pub devices: Vec<DeviceRule>,
    /// v2 files and what to write in them, last.
    pub unified: Vec<(String, String)>,
}

impl Limits {
    /// Takes over what `newer` says; the rules for devices stay when it has none.
    pub fn overlay(&mut self, newer: Self) {
        fn take<T>(have: &mut Option<T>, newer: Option<T>) {
            if newer.is_some() {
                *have = newer;
            }
        }
        take(&mut self.cpu_shares, newer.cpu_shares);
        take(&mut self.cpu_quota_us, newer.cpu_quota_us);
        take(&mut self.cpu_period_us, newer.cpu_period_us);
        take(&mut self.cpu_burst_us, newer.cpu_burst_us);
        take(&mut self.cpu_idle, newer.cpu_idle);
        take(&mut self.cpuset_cpus, newer.cpuset_cpus);
        take(&mut self.cpuset_mems, newer.cpuset_mems);
        take(&mut self.memory_bytes, newer.memory_bytes);
        take(&mut self.memory_swap_bytes, newer.memory_swap_bytes);
        take(&mut self.memory_reservation_bytes, newer.memory_reservation_bytes);
        take(&mut self.oom_kill_disable, newer.oom_kill_disable);
        take(&mut self.pids, newer.pids);
        take(&mut self.io_weight, newer.io_weight);
        for page in newer.hugepages {
            self.hugepages.retain(|have| have.page_size != page.page_size);
            self.hugepages.push(page);
        }
        if !newer.devices.is_empty() {
            self.devices = newer.devices;
        }
        for (key, value) in newer.unified {
            self.unified.retain(|(have, _)| *have != key);
            self.unified.push((key, value));
        }
    }
}

/// A limit of one huge page size.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HugepageLimit {
    /// `2MB`, `1GB`: as in the names of the hugetlb controller's files.
    pub page_size: String,
    /// The limit in bytes.
    pub bytes: u64,
}

/// Lets or denies access to devices.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DeviceRule {
    /// Lets, or denies.
    pub allow: bool,
    /// The kind of device that the rule is for.
    pub kind: DeviceKind,
    /// Major number; `None` is any.
    pub major: Option<u32>,
    /// Minor number; `None` is any.
    pub minor: Option<u32>,
    /// Whether the rule is for reading.
    pub read: bool,
    /// Whether the rule is for writing.
    pub write: bool,
    /// Whether the rule is for creating nodes.
    pub mknod: bool,
}

/// Character, block, or either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum DeviceKind {
    /// Block and character devices.
    All,
    /// A block device.
    Block,
    /// A character device.
    Char,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_limits_win_and_what_they_leave_out_stays() {
        let page = |bytes| HugepageLimit { page_size: "2MB".into(), bytes };
        let rule = DeviceRule {
            allow: false,
            kind: DeviceKind::All,
            major: None,
            minor: None,
            read: true,
            write: true,
            mknod: true,
        };
        let mut limits = Limits {
            cpu_shares: Some(2),
            memory_bytes: Some(1),
            hugepages: vec![page(1)],
            devices: vec![rule],
            unified: vec![("a".into(), "1".into()), ("b".into(), "1".into())],
            ..Limits::default()
        };
        let kept = limits.devices.clone();
        limits.overlay(Limits {
            memory_bytes: Some(-1),
            pids: Some(5),
            hugepages: vec![page(2)],
            unified: vec![("a".into(), "2".into())],
            ..Limits::default()
        });
        assert_eq!(
            (limits.cpu_shares, limits.memory_bytes, limits.pids),
            (Some(2), Some(-1), Some(5))
        );
        assert_eq!((limits.hugepages, limits.devices), (vec![page(2)], kept));
        assert_eq!(limits.unified, [("b".into(), "1".into()), ("a".into(), "2".into())]);
    }
}
