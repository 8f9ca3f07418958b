// SPDX-License-Identifier: Apache-2.0
//! Returns free memory of the daemon's heaps to the kernel, some time after it was freed.
//!
//! ```text
//! Never ─trim─▶ Once ─trim, as much is left─▶ Confirmed ─ more is free, or something was freed ─▶ trim
//!                └──── trim, another amount ───┘◀──────────── trim, another amount ──────────────┘
//! ```
//!
//! The rule: what a trim leaves behind counts as what cannot be given back only when a second one, a while later, has
//! left as much. Others free memory while a trim goes on, behind it: taken at its word, that would stay for good.

use crate::node::Node;
use crate::storage::blocking;
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

/// How often the daemon looks for free memory in its heaps.
const LOOK: Duration = Duration::from_secs(20);
/// Free memory that is not worth giving back, in bytes.
const WASTE_MAX: u64 = 256 << 10;

/// The memory of the daemon at a moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heap {
    /// Memory that no file backs and that is not allocated. What is in use grows and shrinks without being waste, so the size of the
    /// process alone says nothing.
    wasted: u64,
    allocated: u64,
}

impl Heap {
    fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let anonymous = anonymous_bytes(&status)?;
        let allocated = hull_sys::heap::allocated()? as u64;
        Some(Self { wasted: anonymous.saturating_sub(allocated), allocated })
    }
}

/// The rest that the last trim left behind: pages that are in use only in part, stacks of threads, and what the allocator needs
/// for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trimmed {
    Never,
    /// So much was left; others may have freed it meanwhile.
    Once {
        left: u64,
    },
    /// Two in a row left so much. `allocated` was the most around the last one.
    Confirmed {
        left: u64,
        allocated: u64,
    },
}

impl Trimmed {
    /// Whether a trim may give something back.
    fn is_due(self, now: Heap) -> bool {
        match self {
            Self::Never | Self::Once { .. } => now.wasted > WASTE_MAX,
            Self::Confirmed { left, allocated } => {
                now.wasted > left + WASTE_MAX || now.allocated + WASTE_MAX < allocated
            }
        }
    }

    /// The state after a trim, with the memory before and after it.
    fn after(self, before: Heap, after: Heap) -> Self {
        let left = after.wasted;
        match self {
            Self::Once { left: last } | Self::Confirmed { left: last, .. }
                if left.abs_diff(last) <= WASTE_MAX =>
            {
                Self::Confirmed { left, allocated: before.allocated.max(after.allocated) }
            }
            Self::Never | Self::Once { .. } | Self::Confirmed { .. } => Self::Once { left },
        }
    }

    /// The state after a look that found nothing to do.
    fn unchanged(self, now: Heap) -> Self {
        match self {
            Self::Confirmed { left, allocated } => {
                Self::Confirmed { left: left.min(now.wasted), allocated }
            }
            Self::Never | Self::Once { .. } => self,
        }
    }
}

/// Drops events that had no reader for long, and returns free memory to the kernel.
pub(super) async fn release(node: Arc<Node>) {
    let mut trimmed = Trimmed::Never;
    loop {
        tokio::time::sleep(LOOK).await;
        node.events.expire();
        let Some(before) = Heap::now() else { return };
        if !trimmed.is_due(before) {
            trimmed = trimmed.unchanged(before);
            continue;
        }
        let any = blocking(hull_sys::heap::trim).await;
        let after = Heap::now().unwrap_or(before);
        trimmed = trimmed.after(before, after);
        debug!(?before, ?after, ?trimmed, any, "free memory given back");
    }
}

/// `RssAnon` of a `/proc/<pid>/status`, in bytes (proc_pid_status(5)).
fn anonymous_bytes(status: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn heap(wasted_mib: u64, allocated_mib: u64) -> Heap {
        Heap { wasted: wasted_mib * MIB, allocated: allocated_mib * MIB }
    }

    #[test]
    fn memory_without_a_file_is_read_from_a_status_as_the_kernel_writes_it() {
        let status = "VmRSS:\t    4000 kB\nRssAnon:\t     132 kB\nRssFile:\t    3868 kB\n";
        assert_eq!(anonymous_bytes(status), Some(132 << 10));
        for odd in ["", "RssAnon:\n", "RssAnon:\t132\n", "RssAnon:\t18446744073709551615 kB\n"] {
            assert_eq!(anonymous_bytes(odd), None, "{odd:?}");
        }
        assert!(Heap::now().is_some());
    }

    /// A daemon that has settled at 2 MiB of waste, and 5 MiB in use.
    fn settled() -> Trimmed {
        let quiet = heap(2, 5);
        Trimmed::Never.after(quiet, quiet).after(quiet, quiet)
    }

    #[test]
    fn a_quiet_daemon_is_left_alone_once_two_trims_have_left_as_much() {
        let quiet = heap(2, 5);
        assert!(!Trimmed::Never.is_due(heap(0, 5)) && Trimmed::Never.is_due(quiet));
        let once = Trimmed::Never.after(quiet, quiet);
        assert!(once.is_due(quiet), "it is confirmed");
        assert!(matches!(settled(), Trimmed::Confirmed { .. }));
        assert!(!settled().is_due(quiet));
        let less = settled().unchanged(heap(1, 5));
        assert!(!less.is_due(heap(1, 5)) && less.is_due(quiet), "it is more than was needed");
    }

    #[test]
    fn what_is_freed_while_a_trim_goes_on_is_given_back_by_a_later_one() {
        // In the midst of many large calls: 16 MiB are freed behind the trim.
        let in_burst = settled().after(heap(40, 90), heap(16, 60));
        let over = heap(16, 5);
        assert!(in_burst.is_due(over), "{in_burst:?}");
        let later = in_burst.after(over, heap(2, 5));
        assert!(later.is_due(heap(2, 5)), "once more, to be sure");
        let last = later.after(heap(2, 5), heap(2, 5));
        assert!(!last.is_due(heap(2, 5)));
        // Though two trims in a burst left as much.
        let twice = in_burst.after(heap(40, 90), heap(16, 60));
        assert!(matches!(twice, Trimmed::Confirmed { .. }));
        assert!(twice.is_due(over), "what was allocated then is free now: {twice:?}");
    }
}
