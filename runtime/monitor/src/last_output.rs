// SPDX-License-Identifier: Apache-2.0
//! The last output of a container, kept for the explanation of its end.

use crate::limits;
use crate::log::Stream;
use hull_proto::monitor::LastOutput;

/// Most bytes that are kept of one stream.
const STREAM_BYTES_MAX: usize = limits::LAST_OUTPUT_BYTES.count();

/// The end of each output stream. A container that writes nothing costs no memory here.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    streams: [Vec<u8>; 2],
}

impl Tails {
    /// Adds output as it was read. Only the last [`STREAM_BYTES_MAX`] bytes of the stream stay.
    pub(crate) fn add(&mut self, stream: Stream, bytes: &[u8]) {
        let kept = &mut self.streams[stream as usize];
        let bytes = bytes.get(bytes.len().saturating_sub(STREAM_BYTES_MAX)..).unwrap_or_default();
        let over = (kept.len() + bytes.len()).saturating_sub(STREAM_BYTES_MAX);
        kept.drain(..over);
        if kept.capacity() < STREAM_BYTES_MAX {
            kept.reserve_exact((kept.len() + bytes.len()).next_power_of_two() - kept.len());
        }
        kept.extend_from_slice(bytes);
    }

    /// A copy for the daemon.
    pub(crate) fn copy(&self) -> LastOutput {
        let [stdout, stderr] = self.streams.clone();
        LastOutput { stdout, stderr }
    }

    /// Whether nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.iter().all(Vec::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_stream_stays() {
        let mut tails = Tails::default();
        assert!(tails.is_empty());
        tails.add(Stream::Stdout, b"first ");
        tails.add(Stream::Stderr, b"cannot bind\n");
        tails.add(Stream::Stdout, &vec![b'x'; STREAM_BYTES_MAX - 2]);
        let kept = tails.copy();
        assert_eq!(kept.stderr, b"cannot bind\n");
        assert_eq!(kept.stdout.len(), STREAM_BYTES_MAX);
        assert!(kept.stdout.starts_with(b"t xx"), "{:?}", &kept.stdout[..8]);
        tails.add(Stream::Stderr, &vec![b'y'; 3 * STREAM_BYTES_MAX]);
        assert_eq!(tails.copy().stderr, vec![b'y'; STREAM_BYTES_MAX]);
        assert!(tails.streams.iter().all(|of| of.capacity() <= STREAM_BYTES_MAX));
    }
}
