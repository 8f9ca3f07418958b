// SPDX-License-Identifier: Apache-2.0
//! A layer's archive, entry by entry, and the lines of an inventory.

use crate::input::Input;

/// Runs one case: the first byte says which of the two it is.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    if input.byte() % 8 == 0 {
        hull_image::fuzz::items(input.0);
    } else {
        hull_image::fuzz::archive(&summed(input.0));
    }
}

/// Puts the checksums of headers right, or hardly anything would get past them.
pub(crate) fn summed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while at + 512 <= bytes.len() {
        let header = &mut bytes[at..at + 512];
        if header.iter().any(|byte| *byte != 0) {
            let own = header[..148].iter().chain(&header[156..]);
            let sum = own.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        // Over the content, if the size can be read: what lies there is no header.
        let digits: String = header[124..135].iter().map(|byte| char::from(*byte)).collect();
        let size = usize::from_str_radix(digits.trim_matches(['\0', ' ']), 8).unwrap_or(0);
        at += 512 + size.min(bytes.len()).next_multiple_of(512);
    }
    bytes
}
