// SPDX-License-Identifier: Apache-2.0
//! libFuzzer drives [`hull_fuzz::websocket`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::websocket::run(data));
