// SPDX-License-Identifier: Apache-2.0
//! libFuzzer drives [`hull_fuzz::frames`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::frames::run(data));
