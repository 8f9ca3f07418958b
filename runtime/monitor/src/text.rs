// SPDX-License-Identifier: Apache-2.0
//! Room in which lines of a log are put together before they are written.
//!
//! Nearly all of a log is short lines, and a call per copy would cost more than the copying. So what
//! a line begins with has one length, known when this is built, and its content is copied by blocks
//! of one length too, past its end: what lies there is overwritten by the next line, or never used.

use std::ops::Deref;

/// Bytes of what a line begins with: a time, a stream and a tag, and a space behind each.
pub(crate) const HEAD: usize = 40;
/// What is copied at a time.
const BLOCK: usize = 32;

/// Lines put together. Reads as the bytes of them.
#[derive(Debug)]
pub struct Text {
    bytes: Box<[u8]>,
    len: usize,
}

impl Text {
    /// Room for so many bytes, of which none is touched yet.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes + BLOCK].into_boxed_slice(), len: 0 }
    }

    /// How many bytes still fit.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - BLOCK - self.len
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Adds a head, and then the first `length` bytes of `output`.
    pub(crate) fn line(&mut self, head: &[u8; HEAD], output: &[u8], length: usize) {
        self.bytes[self.len..][..HEAD].copy_from_slice(head);
        let to = &mut self.bytes[self.len + HEAD..];
        match output.as_chunks::<BLOCK>().0.get(..length.div_ceil(BLOCK)) {
            Some(blocks) => {
                for (to, from) in to.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
                    *to = *from;
                }
            }
            // So near to the end of the output that there is no whole block.
            None => to[..length].copy_from_slice(&output[..length]),
        }
        self.len += HEAD + length;
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_are_what_was_added(
            lines in proptest::collection::vec((any::<Vec<u8>>(), 0..200_usize), 0..20),
        ) {
            let (mut text, mut wanted) = (Text::with_room(20 * (HEAD + 400)), Vec::new());
            let head = [b'h'; HEAD];
            for (output, length) in lines {
                let length = length.min(output.len());
                text.line(&head, &output, length);
                text.push(&output[..length]);
                wanted.extend([&head[..], &output[..length], &output[..length]].concat());
            }
            prop_assert_eq!(&*text, &*wanted);
        }
    }
}
