// SPDX-License-Identifier: Apache-2.0
//! Memory that goes back to the kernel. The figures are those of the whole process and the settings are made
//! before it has threads, so this program has one test.
#![cfg(target_env = "gnu")]
#![expect(clippy::unwrap_used, reason = "a test ends with what it did not expect")]

use hull_sys::heap::{allocated, return_freed_memory, trim};

/// Of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn memory_of_large_and_of_many_small_allocations_goes_back() {
    assert!(return_freed_memory());
    let before = resident();
    for bytes in [1 << 20, 15 << 20, 15 << 20] {
        let large: Vec<Vec<u8>> = (0..8_u8).map(|fill| vec![fill | 1; bytes]).collect();
        assert!(resident() > before + 7 * bytes);
        drop(large);
        assert!(resident() < before + (4 << 20), "{} {before}", resident());
    }
    // Every other one is kept, behind what is freed: only trimming gives pages in the midst back.
    let mut small: Vec<Vec<u8>> = (0..2048_u16).map(|_| vec![1; 16 << 10]).collect();
    let last = small.pop();
    let held = allocated().unwrap();
    drop(small);
    let freed = held - allocated().unwrap();
    assert!(freed > 30 << 20, "{freed} of 32 MiB");
    trim();
    assert!(resident() < before + (8 << 20), "{} {before}", resident());
    assert_eq!(last.unwrap().len(), 16 << 10);
}
