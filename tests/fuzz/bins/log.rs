// SPDX-License-Identifier: Apache-2.0
//! libFuzzer drives [`hull_fuzz::log`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::log::run(data));
