// SPDX-License-Identifier: Apache-2.0
//! An allocator that leaves nothing behind.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

/// Wipes every block that is freed, also the old one of a block that grows, before `Inner` has it back.
///
/// For a process whose copies (`clone(2)`) somebody may read that must not see all it ever handled.
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
        // SAFETY: the block is of this size, and the caller's until it is freed below.
        unsafe { block.write_bytes(0, layout.size()) };
        // Somebody might look at it, as far as the compiler knows: the writes cannot be left out.
        black_box(block);
        // SAFETY: it came from `Inner`, with this layout.
        unsafe { self.0.dealloc(block, layout) };
    }
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
}
