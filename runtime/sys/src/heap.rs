// SPDX-License-Identifier: Apache-2.0
//! How this process's allocator gives memory back to the kernel. Of glibc; elsewhere nothing is done.

/// From this size on, in bytes, an allocation has a mapping of its own, which ends with it.
#[cfg(target_env = "gnu")]
const OWN_MAPPING_BYTES: libc::c_int = 256 << 10;

/// How many heaps threads share.
#[cfg(target_env = "gnu")]
const HEAPS_MAX: libc::c_int = 2;

/// Makes the allocator give memory back to the kernel; false when it refuses.
///
/// Large allocations go back as soon as they are freed.
/// By itself glibc raises the size from which it does so, up to 32 MiB, to that of the largest allocation
/// that was freed: from then on messages of megabytes come out of its heaps, and stay there (mallopt(3),
/// `M_MMAP_THRESHOLD`). Naming a size ends that.
///
/// Threads share two heaps. By itself glibc makes up to eight for each processor (`M_ARENA_MAX`), and each keeps
/// its own pages that are free only in part: after a thousand requests those were 2 MiB, of 1.5 MiB in use.
///
/// To be called once, before there are threads.
pub fn return_freed_memory() -> bool {
    #[cfg(target_env = "gnu")]
    {
        let set = |setting, value| {
            // SAFETY: it takes two numbers and changes a setting of the allocator, which locks itself.
            unsafe { libc::mallopt(setting, value) == 1 }
        };
        set(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES) && set(libc::M_ARENA_MAX, HEAPS_MAX)
    }
    #[cfg(not(target_env = "gnu"))]
    true
}

/// Gives free pages in the midst of all heaps back to the kernel; true when there were any. It takes
/// milliseconds, and others who allocate meanwhile wait. malloc_trim(3).
pub fn trim() -> bool {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes a number, and nothing that is allocated changes; the allocator locks itself.
        unsafe { libc::malloc_trim(0) == 1 }
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

/// Bytes that are allocated now, in all heaps and in mappings of their own; `None` where the allocator does not
/// count them. It locks one heap after the other, and takes microseconds. mallinfo2(3).
#[must_use]
pub fn allocated() -> Option<usize> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes nothing and returns numbers; the allocator locks itself.
        let counts = unsafe { libc::mallinfo2() };
        Some(counts.uordblks.saturating_add(counts.hblkhd))
    }
    #[cfg(not(target_env = "gnu"))]
    None
}
