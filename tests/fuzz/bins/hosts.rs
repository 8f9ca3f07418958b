// SPDX-License-Identifier: Apache-2.0
//! libFuzzer drives [`hull_fuzz::hosts`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::hosts::run(data));
