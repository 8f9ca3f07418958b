// SPDX-License-Identifier: Apache-2.0
//! libFuzzer drives [`hull_fuzz::documents`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::documents::run(data));
