// SPDX-License-Identifier: Apache-2.0
//! Every metric that the daemon gives for pods and containers: name, what it says, what kind it is, and the labels
//! that it has beside the usual ones.
//!
//! Names and labels are cAdvisor's, because dashboards and alerts ask for those (KEP-2371). Values are
//! whole numbers, as the interface has them, in the unit that the name ends with.

use hull_proto::cri::MetricType;

/// Labels of every metric, in this order, before a metric's own.
pub(super) const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// A metric that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    pub(super) labels: &'static [&'static str],
}

macro_rules! table {
    ($($ident:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $ident: Known = Known {
            name: $name, help: $help, kind: MetricType::$kind, labels: &[$($label),*],
        };)*
        /// All of them.
        pub(super) const ALL: &[Known] = &[$($ident),*];
    };
}

table! {
    CPU_USAGE = Counter "container_cpu_usage_seconds_total" ["cpu"] "CPU time used, seconds";
    CPU_USER = Counter "container_cpu_user_seconds_total" [] "CPU time used in user mode, seconds";
    CPU_SYSTEM = Counter "container_cpu_system_seconds_total" [] "CPU time used in the kernel, seconds";
    CPU_PERIODS = Counter "container_cpu_cfs_periods_total" [] "Periods of the CPU quota that have passed";
    CPU_THROTTLED_PERIODS = Counter "container_cpu_cfs_throttled_periods_total" [] "Periods in which the CPU quota was used up";
    CPU_THROTTLED = Counter "container_cpu_cfs_throttled_seconds_total" [] "Time held back by the CPU quota, seconds";
    MEMORY_USAGE = Gauge "container_memory_usage_bytes" [] "Memory used, page cache included, bytes";
    MEMORY_WORKING_SET = Gauge "container_memory_working_set_bytes" [] "Memory used without what can be dropped at once, bytes";
    MEMORY_RSS = Gauge "container_memory_rss" [] "Anonymous memory, bytes";
    MEMORY_CACHE = Gauge "container_memory_cache" [] "Page cache, bytes";
    MEMORY_MAPPED = Gauge "container_memory_mapped_file" [] "Files mapped into memory, bytes";
    MEMORY_SWAP = Gauge "container_memory_swap" [] "Swap used, bytes";
    MEMORY_KERNEL = Gauge "container_memory_kernel_usage" [] "Memory that the kernel holds for it, bytes";
    MEMORY_PEAK = Gauge "container_memory_max_usage_bytes" [] "Most memory ever used, bytes";
    MEMORY_ACTIVE_FILE = Gauge "container_memory_total_active_file_bytes" [] "Page cache in use, bytes";
    MEMORY_INACTIVE_FILE = Gauge "container_memory_total_inactive_file_bytes" [] "Page cache that may be dropped, bytes";
    MEMORY_LIMIT_HITS = Counter "container_memory_failcnt" [] "Times that the memory limit was hit";
    MEMORY_FAULTS = Counter "container_memory_failures_total" ["failure_type", "scope"] "Page faults (pgfault) and those that needed the disk (pgmajfault)";
    OOM = Counter "container_oom_events_total" [] "Processes that the out-of-memory killer took";
    NETWORK_RX_BYTES = Counter "container_network_receive_bytes_total" ["interface"] "Bytes received";
    NETWORK_RX_PACKETS = Counter "container_network_receive_packets_total" ["interface"] "Packets received";
    NETWORK_RX_DROPPED = Counter "container_network_receive_packets_dropped_total" ["interface"] "Packets received and dropped";
    NETWORK_RX_ERRORS = Counter "container_network_receive_errors_total" ["interface"] "Packets received broken";
    NETWORK_TX_BYTES = Counter "container_network_transmit_bytes_total" ["interface"] "Bytes sent";
    NETWORK_TX_PACKETS = Counter "container_network_transmit_packets_total" ["interface"] "Packets sent";
    NETWORK_TX_DROPPED = Counter "container_network_transmit_packets_dropped_total" ["interface"] "Packets dropped before they were sent";
    NETWORK_TX_ERRORS = Counter "container_network_transmit_errors_total" ["interface"] "Packets that could not be sent";
    FS_USAGE = Gauge "container_fs_usage_bytes" ["device"] "What the writable layer holds, bytes";
    FS_INODES = Gauge "container_fs_inodes_total" ["device"] "Files of the writable layer";
    FS_LIMIT = Gauge "container_fs_limit_bytes" ["device"] "Size of the filesystem that the writable layer is on, bytes";
    FS_INODES_FREE = Gauge "container_fs_inodes_free" ["device"] "Files that the filesystem of the writable layer has room for";
    BLKIO_USAGE = Counter "container_blkio_device_usage_total" ["device", "major", "minor", "operation"] "Bytes read from (Read) and written to (Write) the device";
    FS_READ_BYTES = Counter "container_fs_reads_bytes_total" ["device"] "Bytes read from the device";
    FS_READS = Counter "container_fs_reads_total" ["device"] "Reads from the device";
    FS_WRITTEN_BYTES = Counter "container_fs_writes_bytes_total" ["device"] "Bytes written to the device";
    FS_WRITES = Counter "container_fs_writes_total" ["device"] "Writes to the device";
    PROCESSES = Gauge "container_processes" [] "Processes";
    THREADS = Gauge "container_threads" [] "Processes and threads";
    THREADS_MAX = Gauge "container_threads_max" [] "Most processes and threads allowed; 0 means unlimited";
    FILES = Gauge "container_file_descriptors" [] "Open files of all processes";
    SOCKETS = Gauge "container_sockets" [] "Open sockets of all processes";
    START_TIME = Gauge "container_start_time_seconds" [] "When it was started, seconds since the epoch";
    LAST_SEEN = Gauge "container_last_seen" [] "When these metrics were read, seconds since the epoch";
    SPEC_CPU_PERIOD = Gauge "container_spec_cpu_period" [] "Period of the CPU quota, microseconds";
    SPEC_CPU_QUOTA = Gauge "container_spec_cpu_quota" [] "CPU quota of a period, microseconds; absent without one";
    SPEC_CPU_SHARES = Gauge "container_spec_cpu_shares" [] "CPU shares";
    SPEC_MEMORY_LIMIT = Gauge "container_spec_memory_limit_bytes" [] "Memory limit, bytes; 0 is none";
    SPEC_MEMORY_RESERVATION = Gauge "container_spec_memory_reservation_limit_bytes" [] "Memory kept back for it as far as possible, bytes; 0 is none";
    SPEC_MEMORY_SWAP_LIMIT = Gauge "container_spec_memory_swap_limit_bytes" [] "Limit of memory and swap, bytes; 0 is none";
    HUGETLB_USAGE = Gauge "container_hugetlb_usage_bytes" ["pagesize"] "Huge pages used, bytes";
    HUGETLB_PEAK = Gauge "container_hugetlb_max_usage_bytes" ["pagesize"] "Most huge pages ever used, bytes; absent where the kernel does not keep it";
    ULIMITS = Gauge "container_ulimits_soft" ["ulimit"] "Soft limits of the first process; absent where it has none";
    PRESSURE_CPU_WAITING = Counter "container_pressure_cpu_waiting_seconds_total" [] "Time in which some task waited for the CPU, seconds";
    PRESSURE_CPU_STALLED = Counter "container_pressure_cpu_stalled_seconds_total" [] "Time in which all tasks waited for the CPU, seconds";
    PRESSURE_MEMORY_WAITING = Counter "container_pressure_memory_waiting_seconds_total" [] "Time in which some task waited for memory, seconds";
    PRESSURE_MEMORY_STALLED = Counter "container_pressure_memory_stalled_seconds_total" [] "Time in which all tasks waited for memory, seconds";
    PRESSURE_IO_WAITING = Counter "container_pressure_io_waiting_seconds_total" [] "Time in which some task waited for a device, seconds";
    PRESSURE_IO_STALLED = Counter "container_pressure_io_stalled_seconds_total" [] "Time in which all tasks waited for a device, seconds";
}
