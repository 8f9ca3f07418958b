// SPDX-License-Identifier: Apache-2.0
//! The memory of the monitors that run.

use super::end::monitors_of;
use hull_proto::id::PodId;
use std::collections::BTreeSet;
use std::fs;

/// The monitors of a daemon together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MonitorMemory {
    pub(crate) count: u64,
    /// Of pages that several processes share, each counts its part: PSS.
    pub(crate) bytes: u64,
}

/// Reads the memory of the monitors of these pods. One that ends meanwhile counts without its memory. Blocks.
pub(crate) fn memory(pods: &BTreeSet<PodId>) -> MonitorMemory {
    let mut all = MonitorMemory::default();
    for pid in monitors_of(pods) {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        all.count += 1;
        all.bytes = all.bytes.saturating_add(pss_bytes(&rollup).unwrap_or(0));
    }
    all
}

/// `Pss` of a `/proc/<pid>/smaps_rollup`, in bytes.
fn pss_bytes(rollup: &str) -> Option<u64> {
    let rest = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_read_as_the_kernel_writes_it() {
        let rollup = "00400000-7fff [rollup]\nRss:      200 kB\nPss:      52 kB\nPss_Anon: 9 kB\n";
        assert_eq!(pss_bytes(rollup), Some(52 << 10));
        for odd in ["", "Pss:\n", "Pss: 52\n", "Pss: 18446744073709551615 kB\n"] {
            assert_eq!(pss_bytes(odd), None, "{odd:?}");
        }
    }
}
