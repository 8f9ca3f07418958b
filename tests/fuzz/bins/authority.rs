// SPDX-License-Identifier: Apache-2.0
//! libFuzzer drives [`hull_fuzz::authority`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::authority::run(data));
