// SPDX-License-Identifier: Apache-2.0
//! Header blocks of SPDY alone: what inflates to a lot, what only looks like zlib, and that every
//! block which is written is read back.

use crate::input::Input;
use hull_streaming::spdy::headers::{BLOCK_BYTES_MAX, Reader, Writer};
use std::collections::HashMap;

/// Runs one case: blocks one after the other as they are, or as what they are made of.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    if input.byte() % 2 == 0 { noise(&mut input) } else { round(&mut input) }
}

fn noise(input: &mut Input<'_>) {
    let mut reader = Reader::default();
    while !input.is_empty() {
        let length = usize::from(input.byte()) << 8 | usize::from(input.byte());
        let Ok(headers) = reader.read(input.bytes(length)) else { return };
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        // The buffer doubles until it is past the limit.
        assert!(bytes <= 2 * BLOCK_BYTES_MAX, "{bytes} bytes in one block");
    }
}

fn round(input: &mut Input<'_>) {
    let (mut reader, Ok(mut writer)) = (Reader::default(), Writer::new()) else { return };
    while !input.is_empty() {
        let mut wanted = HashMap::new();
        for _ in 0..input.byte() % 5 {
            let name = String::from_utf8_lossy(input.run()).to_ascii_lowercase();
            wanted.insert(
                name,
                String::from_utf8_lossy(input.run()).repeat(usize::from(input.byte()) + 1),
            );
        }
        let pairs: Vec<_> = wanted.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let plain: usize = pairs.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
        let block = writer.write(&pairs);
        match block.map(|block| reader.read(&block)) {
            Ok(Ok(read)) => assert_eq!(read, wanted),
            // Too much for one block, and nothing behind it can be read.
            Ok(Err(_)) => {
                assert!(plain + 4 >= BLOCK_BYTES_MAX, "a block of {plain} bytes is refused");
                return;
            }
            Err(_) => panic!("a block of {plain} bytes is not written"),
        }
    }
}
