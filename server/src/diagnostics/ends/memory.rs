// SPDX-License-Identifier: Apache-2.0
//! Out of memory (pure): whose limit, beside its peak.

use crate::container::state::{ExitDetails, OutOfMemory};
use hull_plan::{Certainty, Diagnosis, Layer};

/// Bytes in the unit in which they were most probably given: the one that needs the fewest digits. `256 KiB`,
/// `100 MB`; a size that is not a multiple of any unit has one decimal.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 6] = [
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
    ];
    let whole = UNITS.iter().filter(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    if let Some((name, unit)) = whole.min_by_key(|(_, unit)| bytes / unit) {
        return format!("{} {name}", bytes / unit);
    }
    match UNITS[..3].iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

/// The explanation of an end, or of a kill before, by the out-of-memory killer. `limit` is the container's own memory
/// limit in bytes; 0 is none.
pub(crate) fn diagnosis(details: &ExitDetails, limit: u64, ended: bool) -> Diagnosis {
    let peak =
        |bytes: Option<u64>| bytes.map_or(String::new(), |bytes| format!(", peak {}", size(bytes)));
    let (own_peak, above_peak) =
        (peak(details.memory_peak_bytes), peak(details.reached_peak_bytes));
    let above =
        details.reached_limit_bytes.map_or(String::new(), |bytes| format!(" {}", size(bytes)));
    let (kind, what, fix) = match &details.out_of_memory {
        Some(OutOfMemory::Pod) => (
            "oom-pod",
            format!(
                "out of memory: the pod reached its limit{above}{above_peak} (this container{})",
                own_peak.replacen(", ", " ", 1)
            ),
            "raise the pod's memory limit (the sum of its containers' limits, or pod-level `resources`); the limit of \
             this container was not reached",
        ),
        Some(OutOfMemory::Above { cgroup }) => (
            "oom-parent",
            format!(
                "out of memory: cgroup {cgroup}, above the pod, reached its limit{above}{above_peak}"
            ),
            "see what else runs in that cgroup, or raise its limit (kubepods: `kubeReserved` and `systemReserved` of the \
             kubelet)",
        ),
        Some(OutOfMemory::Node) => (
            "oom-node",
            format!("out of memory: the node had no memory left{own_peak}"),
            "request as much memory as the pod needs, so that it is scheduled where there is enough",
        ),
        Some(OutOfMemory::Container) | None if limit > 0 => (
            "oom-container",
            format!("out of memory: container limit {}{own_peak}", size(limit)),
            "raise the container's memory limit, or find out what grew",
        ),
        Some(OutOfMemory::Container) | None => (
            "oom-unknown",
            format!(
                "out of memory: the container has no limit of its own, so the pod or the node ran out{own_peak}"
            ),
            "raise the memory limit of the pod, or see the node's free memory",
        ),
    };
    let mut diagnosis = Diagnosis {
        kind: kind.into(),
        layer: Layer::Cgroup,
        what,
        cause: None,
        certainty: Certainty::Certain,
        evidence: Vec::new(),
        fix: Some(fix.into()),
    };
    if !ended {
        let killed = match details.oom_kills {
            1 => "1 of its processes was killed".to_owned(),
            kills => format!("{kills} of its processes were killed"),
        };
        diagnosis.evidence.push(format!("{killed} while its first process runs on"));
    }
    diagnosis
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_unit_that_they_were_given_in() {
        for (bytes, shown) in [
            (262_144, "256 KiB"),
            (268_435_456, "256 MiB"),
            (100_000_000, "100 MB"),
            (1 << 30, "1 GiB"),
            (1_500_000, "1500 kB"),
            (51_380_225, "49.0 MiB"),
            (999, "999 bytes"),
            (0, "0 bytes"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn the_limit_that_was_reached_is_named_beside_its_peak() {
        let details = |of, limit, peak| ExitDetails {
            oom_kills: 1,
            memory_peak_bytes: Some(49 << 20),
            out_of_memory: Some(of),
            reached_limit_bytes: limit,
            reached_peak_bytes: peak,
            ..ExitDetails::default()
        };
        let mib = |count: u64| Some(count << 20);
        let pod =
            diagnosis(&details(OutOfMemory::Pod, mib(48), mib(48)), 256 << 20, true).to_string();
        assert!(pod.contains("the pod reached its limit 48 MiB, peak 48 MiB"), "{pod}");
        assert!(!pod.contains("256") && pod.contains("raise the pod's memory limit"), "{pod}");
        let own =
            diagnosis(&details(OutOfMemory::Container, None, None), 256 << 20, true).to_string();
        assert!(
            own.contains("container limit 256 MiB, peak 49 MiB (hint: raise the container's"),
            "{own}"
        );
        let node = diagnosis(&details(OutOfMemory::Node, None, None), 0, true);
        assert_eq!(node.kind, "oom-node");
        let above = OutOfMemory::Above { cgroup: "/kubepods".into() };
        let above = diagnosis(&details(above, mib(900), None), 0, true).to_string();
        assert!(
            above.contains("cgroup /kubepods, above the pod, reached its limit 900 MiB"),
            "{above}"
        );
        let alive =
            diagnosis(&details(OutOfMemory::Container, None, None), 1 << 25, false).to_string();
        assert!(
            alive.contains("1 of its processes was killed while its first process runs on"),
            "{alive}"
        );
    }
}
