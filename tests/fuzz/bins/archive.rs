// SPDX-License-Identifier: Apache-2.0
//! libFuzzer drives [`hull_fuzz::archive`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::archive::run(data));
