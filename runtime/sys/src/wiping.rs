// SPDX-License-Identifier: Apache-2.0
//! An allocator that leaves nothing behind.

use rustix::mm::{Advice, madvise};
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pages in a block for which it is worth a call that gives them back to the kernel.
const PAGES_MIN: usize = 2;

/// Whether whole pages go back to the kernel: see [`give_back_pages`].
static GIVES_BACK: AtomicBool = AtomicBool::new(false);

/// Sets whether whole pages of large blocks that are freed go back to the kernel, which is a system call. A process says
/// no before it installs a filter that may kill it for that call; at first it is no.
pub fn give_back_pages(yes: bool) {
    GIVES_BACK.store(yes, Ordering::Relaxed);
}

/// Bytes of stack that one request may have used, and more.
const STACK_BYTES: usize = 128 << 10;

/// Gives the pages of the main thread's stack below its caller's frames back to the kernel, `madvise(2)` with
/// MADV_DONTNEED. Nothing is there any more once deep calls have returned, but it stays resident. Another thread that
/// calls it must have more than [`STACK_BYTES`] of its stack left.
#[inline(never)]
pub fn give_back_stack() {
    let page = rustix::param::page_size();
    let here = 0_u8;
    let here = black_box(&raw const here).addr();
    // The page of this frame stays, and the one below it, for the frame of the call.
    let end = (here & !(page - 1)).saturating_sub(page);
    let start = std::ptr::without_provenance_mut(end.saturating_sub(STACK_BYTES));
    // SAFETY: stacks grow down, so nothing is in use below this frame and those that it calls; the kernel keeps a gap
    // of a mebibyte below a stack free of other mappings, and skips what is not mapped.
    let _unmapped = unsafe { madvise(start, STACK_BYTES, Advice::LinuxDontNeed) };
}

/// Wipes every block that is freed, also the old one of a block that grows, before `Inner` has it back. Whole pages of a
/// large block go back to the kernel meanwhile, which hands out empty ones: a request leaves no memory resident. That
/// is for processes that ask for it ([`give_back_pages`]).
///
/// For a process whose copies (`clone(2)`) somebody may read that must not see all it ever handled. `Inner`'s memory
/// must be private and anonymous, `mmap(2)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wiping<Inner>(pub Inner);

// SAFETY: blocks are `Inner`'s, which keeps the contract; a block is written to only while it is being
// freed, within its own size. `realloc` is the trait's own: a new block, a copy, and `dealloc` from here.
unsafe impl<Inner: GlobalAlloc> GlobalAlloc for Wiping<Inner> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (head, pages) = whole_pages(block.addr(), layout.size());
        let tail = head.saturating_add(pages);
        // SAFETY: within the block, which is the caller's until it is freed below.
        let middle = unsafe { block.add(head) };
        // SAFETY: within the same block, or just behind it.
        let last = unsafe { block.add(tail) };
        // SAFETY: whole pages within the block; nothing in them is used any more.
        let is_given_back = pages > 0
            && GIVES_BACK.load(Ordering::Relaxed)
            && unsafe { madvise(middle.cast(), pages, Advice::LinuxDontNeed) }.is_ok();
        // SAFETY: the part of the block before these pages.
        unsafe { block.write_bytes(0, head) };
        // SAFETY: these pages, or nothing, within the block.
        unsafe { middle.write_bytes(0, if is_given_back { 0 } else { pages }) };
        // SAFETY: the rest of the block behind these pages.
        unsafe { last.write_bytes(0, layout.size().saturating_sub(tail)) };
        // Somebody might look at it, as far as the compiler knows: the writes cannot be left out.
        black_box(block);
        // SAFETY: it came from `Inner`, with this layout.
        unsafe { self.0.dealloc(block, layout) };
    }
}

/// The whole pages in `size` bytes at `address`: how many bytes are before them, and their size in bytes. No pages where
/// there are fewer than [`PAGES_MIN`]: all bytes are before them then.
fn whole_pages(address: usize, size: usize) -> (usize, usize) {
    let page = rustix::param::page_size();
    let head = address.next_multiple_of(page).saturating_sub(address);
    let pages = size.saturating_sub(head) / page;
    if pages < PAGES_MIN { (size, 0) } else { (head, pages.saturating_mul(page)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;
    use std::cell::Cell;

    /// Notes what is in a block when it comes back.
    #[derive(Default)]
    struct Noting(Cell<Option<Vec<u8>>>);

    // SAFETY: hands everything on to the system's allocator; reads a block that is still the caller's.
    unsafe impl GlobalAlloc for Noting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the same contract.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: not freed yet, and all of it was written by `Wiping`.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            self.0.set(Some(bytes.to_vec()));
            // SAFETY: the same contract.
            unsafe { System.dealloc(block, layout) };
        }
    }

    #[test]
    fn what_is_freed_or_moved_is_wiped() {
        let wiping = Wiping(Noting::default());
        let layout = Layout::array::<u8>(100).unwrap();
        // SAFETY: the layout is not empty.
        let block = unsafe { wiping.alloc(layout) };
        // SAFETY: within the block's size.
        unsafe { block.write_bytes(7, 100) };
        // SAFETY: the block is of that layout, and not used after this.
        let grown = unsafe { wiping.realloc(block, layout, 200) };
        assert_eq!(wiping.0.0.take(), Some(vec![0; 100]), "the block that it had before");
        // SAFETY: the first 100 of its 200 bytes came along.
        let kept = unsafe { std::slice::from_raw_parts(grown, 100) };
        assert_eq!(kept, [7; 100]);
        // SAFETY: within the block's size.
        unsafe { grown.write_bytes(7, 200) };
        // SAFETY: the block is of that layout, and not used after this.
        unsafe { wiping.dealloc(grown, Layout::array::<u8>(200).unwrap()) };
        assert_eq!(wiping.0.0.take(), Some(vec![0; 200]));
    }
    #[test]
    fn whole_pages_of_a_large_block_are_given_back() {
        let page = rustix::param::page_size();
        assert_eq!(whole_pages(page, 3 * page), (0, 3 * page));
        assert_eq!(whole_pages(page + 16, 3 * page), (page - 16, 2 * page));
        assert_eq!(whole_pages(page + 16, 2 * page), (2 * page, 0));
        assert_eq!(whole_pages(page, 100), (100, 0));
        let wiping = Wiping(Noting::default());
        let size = 5 * page + 40;
        let layout = Layout::from_size_align(size, 16).unwrap();
        for yes in [true, false] {
            give_back_pages(yes);
            // SAFETY: the layout is not empty.
            let block = unsafe { wiping.alloc(layout) };
            // SAFETY: within the block's size.
            unsafe { block.write_bytes(7, size) };
            // SAFETY: the block is of that layout, and not used after this.
            unsafe { wiping.dealloc(block, layout) };
            assert_eq!(wiping.0.0.take(), Some(vec![0; size]));
        }
    }
    /// Uses much stack, and returns a sum of it.
    #[inline(never)]
    fn deep(seed: u8) -> usize {
        let bytes = black_box([seed; 100 << 10]);
        bytes.iter().map(|byte| usize::from(*byte)).sum()
    }

    #[test]
    fn frames_in_use_stay_when_the_stack_is_given_back() {
        let mine = black_box([5_u8; 3000]);
        for seed in 1..20 {
            assert_eq!(deep(seed), usize::from(seed) * (100 << 10));
            give_back_stack();
            assert_eq!(mine, [5; 3000]);
        }
    }
}
