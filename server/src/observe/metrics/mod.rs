// SPDX-License-Identifier: Apache-2.0
//! Metrics of pods and containers, which kubelets pass on at `/metrics/cadvisor`: read on request only.
//!
//! The rule: a metric that is given is in [`table`], with one value for each of its labels. What the
//! kernel does not count here is left out, never given as 0.

mod table;

use crate::container::{ContainerSnapshot, State};
use crate::error::Error;
use crate::node::{Node, now_ns};
use crate::observe::stats;
use crate::pod::PodSnapshot;
use hull_cgroup::{Cgroup, Counters, Psi, Stats};
use hull_proto::cri as api;
use table::{Known, LABELS};

const SECOND_NS: u64 = 1_000_000_000;
const SECOND_US: u64 = 1_000_000;

/// The descriptors of all metrics that [`pod`] may return.
pub(crate) fn descriptors() -> Vec<api::MetricDescriptor> {
    let keys = |known: &Known| LABELS.iter().chain(known.labels).map(|key| (*key).into()).collect();
    let descriptor = |known: &Known| api::MetricDescriptor {
        name: known.name.into(),
        help: known.help.into(),
        label_keys: keys(known),
    };
    table::ALL.iter().map(descriptor).collect()
}

/// The metrics of a pod and of its running containers.
///
/// # Errors
/// A cgroup that is there but cannot be read.
pub(crate) fn pod(node: &Node, view: &PodSnapshot) -> Result<api::PodSandboxMetrics, Error> {
    let record = &view.record;
    let mut given = Given::of_pod(view);
    given.cgroup(node, &record.cgroup)?;
    if record.state.is_ready() && !record.host_network() {
        given.network(view);
    }
    given.one(table::START_TIME, seconds(record.created_ns));
    let mut containers = Vec::new();
    for of in view.containers.values() {
        if let State::Running { since_ns, .. } = of.record.state {
            containers.push(container(node, view, of, since_ns)?);
        }
    }
    Ok(api::PodSandboxMetrics {
        pod_sandbox_id: record.id.clone(),
        metrics: given.metrics,
        container_metrics: containers,
    })
}

fn container(
    node: &Node,
    pod: &PodSnapshot,
    of: &ContainerSnapshot,
    since_ns: i64,
) -> Result<api::ContainerMetrics, Error> {
    let record = &of.record;
    let mut given = Given::of_container(pod, of);
    given.cgroup(node, &record.cgroup)?;
    given.one(table::START_TIME, seconds(since_ns));
    if let Some(layer) = stats::writable_layer(node, &record.id) {
        let number = |value: Option<api::UInt64Value>| value.map_or(0, |value| value.value);
        let device = layer.fs_id.map(|id| id.mountpoint).unwrap_or_default();
        given.add(table::FS_USAGE, number(layer.used_bytes), &[&device]);
        given.add(table::FS_INODES, number(layer.inodes_used), &[&device]);
        // The store is there as long as we are; if it cannot be asked, its two numbers are left out.
        if let Ok(capacity) = node.images.capacity() {
            given.add(table::FS_LIMIT, capacity.bytes, &[&device]);
            given.add(table::FS_INODES_FREE, capacity.inodes_free, &[&device]);
        }
    }
    if let Some(resources) = record.resources() {
        given.spec(&resources);
    }
    Ok(api::ContainerMetrics { container_id: record.id.clone(), metrics: given.metrics })
}

/// Metrics of one thing, with the labels that all of them have.
struct Given {
    at_ns: i64,
    labels: [String; LABELS.len()],
    metrics: Vec<api::Metric>,
}

impl Given {
    fn of_pod(view: &PodSnapshot) -> Self {
        Self::new(view, String::new(), &view.record.id, String::new(), &view.record.cgroup)
    }

    fn of_container(pod: &PodSnapshot, of: &ContainerSnapshot) -> Self {
        let record = &of.record;
        let (name, image) = (record.metadata().0.into(), record.image_name().into());
        Self::new(pod, name, &record.id, image, &record.cgroup)
    }

    fn new(pod: &PodSnapshot, container: String, name: &str, image: String, cgroup: &str) -> Self {
        let of = pod.record.config.metadata.clone().unwrap_or_default();
        let labels = [container, cgroup.into(), image, name.into(), of.namespace, of.name];
        Self { at_ns: now_ns(), labels, metrics: Vec::new() }
    }

    fn add(&mut self, known: Known, value: u64, own: &[&str]) {
        debug_assert_eq!(known.labels.len(), own.len(), "labels of {}", known.name);
        let own = own.iter().map(|&value| value.to_owned());
        self.metrics.push(api::Metric {
            name: known.name.into(),
            timestamp: self.at_ns,
            metric_type: known.kind as i32,
            label_values: self.labels.iter().cloned().chain(own).collect(),
            value: Some(api::UInt64Value { value }),
        });
    }

    fn one(&mut self, known: Known, value: u64) {
        self.add(known, value, &[]);
    }

    fn some(&mut self, known: Known, value: Option<u64>) {
        if let Some(value) = value {
            self.one(known, value);
        }
    }

    /// The counters of its cgroup; nothing if that is gone meanwhile.
    fn cgroup(&mut self, node: &Node, path: &str) -> Result<(), Error> {
        let Some(read) = stats::read(node, path)? else { return Ok(()) };
        let failed = |source| Error::Stats { source };
        let cgroup = Cgroup::at(&node.cgroups, path).map_err(failed)?;
        let counters = cgroup.counters().map_err(failed)?;
        self.cpu(&read, &counters);
        self.memory(&read, &counters);
        for (device, io) in &counters.io {
            self.add(table::FS_READ_BYTES, io.read_bytes, &[device]);
            self.add(table::FS_READS, io.reads, &[device]);
            self.add(table::FS_WRITTEN_BYTES, io.written_bytes, &[device]);
            self.add(table::FS_WRITES, io.writes, &[device]);
            let (major, minor) = device.split_once(':').unwrap_or((device, ""));
            for (operation, bytes) in [("Read", io.read_bytes), ("Write", io.written_bytes)] {
                self.add(table::BLKIO_USAGE, bytes, &[device, major, minor, operation]);
            }
        }
        for (size, pages) in &counters.huge_pages {
            self.add(table::HUGETLB_USAGE, pages.usage_bytes, &[size]);
            if let Some(peak) = pages.peak_bytes {
                self.add(table::HUGETLB_PEAK, peak, &[size]);
            }
        }
        self.processes(&cgroup.procs().map_err(failed)?);
        self.one(table::THREADS, read.pids);
        self.one(table::THREADS_MAX, counters.pids_max.unwrap_or(0));
        self.one(table::SPEC_MEMORY_RESERVATION, counters.memory_reserved_bytes.unwrap_or(0));
        self.one(table::LAST_SEEN, seconds(self.at_ns));
        for (psi, waiting, stalled) in [
            (read.psi_cpu, table::PRESSURE_CPU_WAITING, table::PRESSURE_CPU_STALLED),
            (read.psi_memory, table::PRESSURE_MEMORY_WAITING, table::PRESSURE_MEMORY_STALLED),
            (read.psi_io, table::PRESSURE_IO_WAITING, table::PRESSURE_IO_STALLED),
        ] {
            self.pressure(psi, waiting, stalled);
        }
        Ok(())
    }

    fn cpu(&mut self, read: &Stats, counters: &Counters) {
        let seconds = |ns: Option<u64>| ns.map(|ns| ns / SECOND_NS);
        self.add(table::CPU_USAGE, read.cpu_usage_ns / SECOND_NS, &["total"]);
        self.some(table::CPU_USER, seconds(counters.cpu_user_ns));
        self.some(table::CPU_SYSTEM, seconds(counters.cpu_system_ns));
        self.some(table::CPU_PERIODS, counters.cpu_periods);
        self.some(table::CPU_THROTTLED_PERIODS, counters.cpu_throttled_periods);
        self.some(table::CPU_THROTTLED, seconds(counters.cpu_throttled_ns));
    }

    fn memory(&mut self, read: &Stats, counters: &Counters) {
        self.one(table::MEMORY_USAGE, read.memory_usage_bytes);
        self.one(table::MEMORY_WORKING_SET, read.working_set_bytes);
        self.one(table::MEMORY_RSS, read.rss_bytes);
        self.some(table::MEMORY_CACHE, counters.memory_cache_bytes);
        self.some(table::MEMORY_MAPPED, counters.memory_mapped_bytes);
        self.some(table::MEMORY_SWAP, read.swap_usage_bytes);
        self.some(table::MEMORY_KERNEL, counters.memory_kernel_bytes);
        self.some(table::MEMORY_PEAK, counters.memory_peak_bytes);
        self.some(table::MEMORY_ACTIVE_FILE, counters.memory_active_file_bytes);
        self.some(table::MEMORY_INACTIVE_FILE, counters.memory_inactive_file_bytes);
        self.some(table::MEMORY_LIMIT_HITS, counters.memory_limit_hits);
        self.some(table::OOM, counters.oom_kills);
        // Both counters are of the whole tree below the cgroup.
        self.add(table::MEMORY_FAULTS, read.page_faults, &["pgfault", "hierarchy"]);
        self.add(table::MEMORY_FAULTS, read.major_page_faults, &["pgmajfault", "hierarchy"]);
    }

    /// Processes and their open files. One that ends meanwhile counts as far as it could be read.
    fn processes(&mut self, pids: &[i32]) {
        let (mut files, mut sockets) = (0, 0);
        for pid in pids {
            let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            for entry in entries.flatten() {
                files += 1;
                let target = std::fs::read_link(entry.path()).unwrap_or_default();
                sockets += u64::from(target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
            }
        }
        if let Some(limit) = pids.first().and_then(|pid| open_files_limit(*pid)) {
            self.add(table::ULIMITS, limit, &["max_open_files"]);
        }
        self.one(table::PROCESSES, u64::try_from(pids.len()).unwrap_or(u64::MAX));
        self.one(table::FILES, files);
        self.one(table::SOCKETS, sockets);
    }

    fn pressure(&mut self, psi: Option<Psi>, waiting: Known, stalled: Known) {
        self.some(waiting, psi.map(|psi| psi.some.total_us / SECOND_US));
        self.some(stalled, psi.map(|psi| psi.full.total_us / SECOND_US));
    }

    fn network(&mut self, view: &PodSnapshot) {
        for link in stats::interfaces(view).unwrap_or_default() {
            let of = [link.name.as_str()];
            self.add(table::NETWORK_RX_BYTES, link.rx_bytes, &of);
            self.add(table::NETWORK_RX_PACKETS, link.rx_packets, &of);
            self.add(table::NETWORK_RX_DROPPED, link.rx_dropped, &of);
            self.add(table::NETWORK_RX_ERRORS, link.rx_errors, &of);
            self.add(table::NETWORK_TX_BYTES, link.tx_bytes, &of);
            self.add(table::NETWORK_TX_PACKETS, link.tx_packets, &of);
            self.add(table::NETWORK_TX_DROPPED, link.tx_dropped, &of);
            self.add(table::NETWORK_TX_ERRORS, link.tx_errors, &of);
        }
    }

    /// The requested resources. Negative numbers mean "none" there.
    fn spec(&mut self, resources: &api::LinuxContainerResources) {
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        let set = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
        self.some(table::SPEC_CPU_PERIOD, set(resources.cpu_period));
        self.some(table::SPEC_CPU_QUOTA, set(resources.cpu_quota));
        self.some(table::SPEC_CPU_SHARES, set(resources.cpu_shares));
        self.one(table::SPEC_MEMORY_LIMIT, number(resources.memory_limit_in_bytes));
        self.one(table::SPEC_MEMORY_SWAP_LIMIT, number(resources.memory_swap_limit_in_bytes));
    }
}

/// The soft limit of open files, `proc_pid_limits(5)`; `None` when there is none, or no such process.
fn open_files_limit(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn seconds(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0) / SECOND_NS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_those_that_monitoring_knows_each_once() {
        let names: BTreeSet<_> = table::ALL.iter().map(|known| known.name).collect();
        assert_eq!(names.len(), table::ALL.len(), "a name is given twice");
        for known in table::ALL {
            assert!(known.name.starts_with("container_"), "{}", known.name);
            let counts =
                known.name.ends_with("_total") && known.name != "container_fs_inodes_total";
            let counts = counts || known.name == "container_memory_failcnt";
            assert_eq!(counts, known.kind == api::MetricType::Counter, "{}", known.name);
        }
    }
}
