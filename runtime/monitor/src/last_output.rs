// SPDX-License-Identifier: Apache-2.0
//! The last output of a container, kept for the explanation of its end.
//!
//! The rule: it is not in this process's memory. A newborn process of another container is a copy of that until its
//! exec, and a process that may trace it reads the copy.

use crate::limits;
use crate::log::Stream;
use hull_proto::monitor::LastOutput;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Most bytes that are kept of one stream.
const STREAM_BYTES_MAX: usize = limits::LAST_OUTPUT_BYTES.count();

/// The end of each output stream. A container that writes nothing costs nothing here.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    /// A ring of [`STREAM_BYTES_MAX`] bytes for each stream, one after the other, in a file without a name.
    rings: Option<File>,
    /// The number of bytes that each stream had so far.
    written: [usize; 2],
}

impl Tails {
    /// Adds output as it was read. Only the last [`STREAM_BYTES_MAX`] bytes of the stream stay; none if the system has
    /// no file for them: an explanation with less evidence is better than a log that waits.
    pub(crate) fn add(&mut self, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.rings.is_none() {
            self.rings = memfd_create(c"last-output", MemfdFlags::CLOEXEC).ok().map(File::from);
        }
        let Some(rings) = &self.rings else { return };
        let written = &mut self.written[stream as usize];
        let skipped = bytes.len().saturating_sub(STREAM_BYTES_MAX);
        let at = written.wrapping_add(skipped) % STREAM_BYTES_MAX;
        let kept = bytes.get(skipped..).unwrap_or_default();
        let (first, second) = kept.split_at(kept.len().min(STREAM_BYTES_MAX - at));
        let start = start(stream);
        let done = rings
            .write_all_at(first, start + at as u64)
            .and_then(|()| rings.write_all_at(second, start));
        if done.is_ok() {
            // Once around at least, it stays so: only the place in the ring counts then.
            let all = written.saturating_add(bytes.len());
            *written = if all < 2 * STREAM_BYTES_MAX {
                all
            } else {
                STREAM_BYTES_MAX + (at + kept.len()) % STREAM_BYTES_MAX
            };
        }
    }

    /// A copy for the daemon.
    pub(crate) fn copy(&self) -> LastOutput {
        LastOutput { stdout: self.tail(Stream::Stdout), stderr: self.tail(Stream::Stderr) }
    }

    /// The end of one stream; what cannot be read is left out.
    fn tail(&self, stream: Stream) -> Vec<u8> {
        let written = self.written[stream as usize];
        let Some(rings) = self.rings.as_ref().filter(|_| written > 0) else { return Vec::new() };
        let mut ring = vec![0; written.min(STREAM_BYTES_MAX)];
        if rings.read_exact_at(&mut ring, start(stream)).is_err() {
            return Vec::new();
        }
        if written > STREAM_BYTES_MAX {
            ring.rotate_left(written % STREAM_BYTES_MAX);
        }
        ring
    }

    /// Whether nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.written == [0; 2]
    }
}

/// Where the ring of a stream begins in the file.
fn start(stream: Stream) -> u64 {
    stream as u64 * STREAM_BYTES_MAX as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_stream_stays() {
        let mut tails = Tails::default();
        assert!(tails.is_empty());
        assert_eq!(tails.copy().stdout, b"");
        tails.add(Stream::Stdout, b"first ");
        tails.add(Stream::Stderr, b"cannot bind\n");
        tails.add(Stream::Stdout, &vec![b'x'; STREAM_BYTES_MAX - 2]);
        let kept = tails.copy();
        assert_eq!(kept.stderr, b"cannot bind\n");
        assert_eq!(kept.stdout.len(), STREAM_BYTES_MAX);
        assert!(kept.stdout.starts_with(b"t xx"), "{:?}", &kept.stdout[..8]);
        tails.add(Stream::Stderr, &vec![b'y'; 3 * STREAM_BYTES_MAX]);
        assert_eq!(tails.copy().stderr, vec![b'y'; STREAM_BYTES_MAX]);
        tails.add(Stream::Stderr, b"end\n");
        assert!(tails.copy().stderr.ends_with(b"yyend\n"));
    }

    #[test]
    fn every_division_of_the_output_keeps_the_same_end() {
        let all = (0..=u8::MAX).cycle().take(5 * STREAM_BYTES_MAX + 77).collect::<Vec<_>>();
        for step in [1, 7, 100, STREAM_BYTES_MAX - 1, STREAM_BYTES_MAX, STREAM_BYTES_MAX + 1, 9000]
        {
            let mut tails = Tails::default();
            let mut fed = 0;
            for part in all.chunks(step) {
                tails.add(Stream::Stderr, part);
                fed += part.len();
                if step > 1 || fed % 97 == 0 || fed == all.len() {
                    let end = &all[fed.saturating_sub(STREAM_BYTES_MAX)..fed];
                    assert_eq!(tails.copy().stderr, end, "{step}, {fed}");
                }
            }
        }
    }
}
