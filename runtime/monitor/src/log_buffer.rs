// SPDX-License-Identifier: Apache-2.0
//! A buffer in which lines of a log are put together before they are written.
//!
//! Nearly all of a log is short lines, and a call per copy would cost more than the copying. So the
//! head of a line has a constant length, and its content is copied by blocks of a constant length too, past its
//! end: the bytes there are overwritten by the next line, or never used.

use std::ops::Deref;

/// Bytes of a line's head: a time, a stream and a tag, each followed by a space.
pub(crate) const HEAD: usize = 40;
/// Bytes that are copied at a time.
const BLOCK: usize = 32;

/// Complete lines. Dereferences to their bytes.
#[derive(Debug)]
pub struct LogBuffer {
    bytes: Box<[u8]>,
    len: usize,
}

impl LogBuffer {
    /// A buffer for so many bytes, none of which is touched yet.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes + BLOCK].into_boxed_slice(), len: 0 }
    }

    /// Number of bytes that still fit.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - BLOCK - self.len
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends bytes to the buffer.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends a head, and then the first `length` bytes of `output`.
    pub(crate) fn line(&mut self, head: &[u8; HEAD], output: &[u8], length: usize) {
        self.bytes[self.len..][..HEAD].copy_from_slice(head);
        let to = &mut self.bytes[self.len + HEAD..];
        match output.as_chunks::<BLOCK>().0.get(..length.div_ceil(BLOCK)) {
            Some(blocks) => {
                for (to, from) in to.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
                    *to = *from;
                }
            }
            // Too near to the end of the output for a whole block.
            None => to[..length].copy_from_slice(&output[..length]),
        }
        self.len += HEAD + length;
    }
}

impl Deref for LogBuffer {
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
            let (mut text, mut wanted) = (LogBuffer::with_capacity(20 * (HEAD + 400)), Vec::new());
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
