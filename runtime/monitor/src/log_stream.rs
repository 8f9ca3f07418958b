// SPDX-License-Identifier: Apache-2.0
//! The output streams of a container, and how a line of its log names them.

use hull_sys::time::RFC3339_BYTES;

/// A container's output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, descriptor 1.
    Stdout,
    /// Standard error, descriptor 2.
    Stderr,
}

impl Stream {
    /// The stream that a line of a log names.
    pub(crate) fn of_line(line: &[u8]) -> Self {
        match line.get(RFC3339_BYTES + 1..RFC3339_BYTES + 7) {
            Some(b"stderr") => Self::Stderr,
            Some(_) | None => Self::Stdout,
        }
    }
}
