// SPDX-License-Identifier: Apache-2.0
//! Sizes of a terminal: whatever comes, however it is cut, the last whole size is the same.

use crate::input::Input;
use hull_streaming::terminal::{SIZE_BYTES_MAX, SizeDecoder};

/// Runs one case: the first byte says where it is cut.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let cut = usize::from(input.byte()) + 1;
    let (mut whole, mut pieces) = (SizeDecoder::default(), SizeDecoder::default());
    let wanted = whole.feed(input.0);
    let mut last = None;
    let mut gave_up = false;
    for piece in input.0.chunks(cut) {
        match pieces.feed(piece) {
            Ok(found) => last = found.or(last),
            Err(_) => {
                gave_up = true;
                break;
            }
        }
    }
    if input.0.len() <= SIZE_BYTES_MAX {
        assert!(!gave_up, "gave up on {} bytes", input.0.len());
        assert_eq!(wanted, Ok(last), "cut into pieces of {cut}");
    }
}
