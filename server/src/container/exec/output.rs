// SPDX-License-Identifier: Apache-2.0
//! The output of an ExecSync: kept up to what one answer can carry, and counted against what all calls
//! may hold.

use crate::limits::call_memory::{FREE_BYTES, Lease, UsedUp};
use tokio::net::unix::pipe::Receiver;

/// How much is read at a time, in bytes.
const CHUNK: usize = 16 << 10;
/// Longest answer, in bytes: the kubelet's and crictl's clients take no more.
const ANSWER_BYTES_MAX: usize = crate::limits::MESSAGE_BYTES.count();
/// Reserve for exit code, tags and lengths, and for the line at the end of each stream that reports the cut, in bytes.
const REST_BYTES: usize = 64 + 2 * NOTICE_BYTES_MAX;
const NOTICE_BYTES_MAX: usize = 128;
/// Most that is kept of both streams together, in bytes.
const BOTH_BYTES_MAX: usize = ANSWER_BYTES_MAX - REST_BYTES;
/// Share of each stream that the other one cannot take, in bytes: as much as a pipe holds.
const EACH_BYTES_MIN: usize = 64 << 10;

/// Both streams as far as they are kept.
#[derive(Debug)]
pub(super) struct OutputCollector {
    stdout: Stream,
    stderr: Stream,
    lease: Lease,
    /// Most of a stream, in bytes.
    most: usize,
}

impl OutputCollector {
    pub(super) fn new(stdout: Receiver, stderr: Receiver, lease: Lease, most: usize) -> Self {
        let most = most.min(BOTH_BYTES_MAX);
        Self { stdout: Stream::new(stdout), stderr: Stream::new(stderr), lease, most }
    }

    /// Nobody can write to either stream any more.
    pub(super) fn is_done(&self) -> bool {
        self.stdout.done && self.stderr.done
    }

    /// Waits until there is output, and takes some of it. To be asked while it is not done.
    pub(super) async fn fill(&mut self) -> Result<(), UsedUp> {
        let Self { stdout, stderr, lease, most } = self;
        tokio::select! {
            ready = stdout.pipe.readable(), if !stdout.done => {
                stdout.take(ready.is_ok(), *most, stderr, lease)
            }
            ready = stderr.pipe.readable(), if !stderr.done => {
                stderr.take(ready.is_ok(), *most, stdout, lease)
            }
            else => Ok(()),
        }
    }

    /// Reads until no process holds the streams open any more.
    pub(super) async fn fill_up(&mut self) -> Result<(), UsedUp> {
        while !self.is_done() {
            self.fill().await?;
        }
        Ok(())
    }

    /// Output and errors, each with a line at its end where it was cut, and what they hold of the budget.
    pub(super) fn finish(self) -> (Vec<u8>, Vec<u8>, Lease) {
        (self.stdout.finish("stdout"), self.stderr.finish("stderr"), self.lease)
    }
}

/// The split of new bytes between what is kept and what is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    /// So many of them are kept,
    kept: usize,
    /// and so many of the other stream's last ones make room for them.
    displaced: usize,
}

/// Shares the answer between a stream that has `length` bytes and brings `more`, and one that has `other`: first come,
/// but neither keeps the other from its first [`EACH_BYTES_MIN`].
fn share(most: usize, length: usize, more: usize, other: usize) -> Share {
    let free = BOTH_BYTES_MAX - length - other;
    let wanted = more.min(most.saturating_sub(length));
    let owed = EACH_BYTES_MIN.saturating_sub(length).min(wanted);
    let spare = other.saturating_sub(EACH_BYTES_MIN);
    let displaced = owed.saturating_sub(free).min(spare);
    Share { kept: wanted.min(free + displaced), displaced }
}

#[derive(Debug)]
struct Stream {
    pipe: Receiver,
    bytes: Vec<u8>,
    dropped: u64,
    done: bool,
}

impl Stream {
    fn new(pipe: Receiver) -> Self {
        Self { pipe, bytes: Vec::new(), dropped: 0, done: false }
    }

    /// Reads once and keeps what there is room for beside `other`.
    fn take(
        &mut self,
        is_readable: bool,
        most: usize,
        other: &mut Self,
        lease: &mut Lease,
    ) -> Result<(), UsedUp> {
        let mut chunk = [0; CHUNK];
        let read = if is_readable { self.pipe.try_read(&mut chunk) } else { Ok(0) };
        match read {
            Ok(0) => self.done = true,
            Ok(read) => {
                let Share { kept, displaced } =
                    share(most, self.bytes.len(), read, other.bytes.len());
                other.bytes.truncate(other.bytes.len() - displaced);
                other.dropped += displaced as u64;
                self.dropped += (read - kept) as u64;
                self.keep(&chunk[..kept], lease)?;
            }
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.done = true,
        }
        Ok(())
    }

    /// Counted before it is kept.
    fn keep(&mut self, chunk: &[u8], lease: &mut Lease) -> Result<(), UsedUp> {
        let (had, needed) = (self.bytes.capacity(), self.bytes.len() + chunk.len());
        if needed > had {
            let grown = needed.max(had + had / 2).max(FREE_BYTES);
            lease.grow(grown.saturating_sub(had.max(FREE_BYTES)))?;
            self.bytes.reserve_exact(grown - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn finish(mut self, name: &str) -> Vec<u8> {
        if self.dropped > 0 {
            let notice = format!(
                "\n[hull: {name} is cut here: {} bytes are kept, {} were dropped]\n",
                self.bytes.len(),
                self.dropped
            );
            self.bytes.extend_from_slice(notice.as_bytes());
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However the streams take turns.
        #[test]
        fn both_streams_fit_and_each_has_its_share(
            turns in proptest::collection::vec((any::<bool>(), 1..(8_usize << 20)), 1..32),
            most in 0..(32_usize << 20),
        ) {
            let most = most.min(BOTH_BYTES_MAX);
            let (mut out, mut err, mut brought) = (0, 0, [0, 0]);
            for (is_out, read) in turns {
                let (one, other) = if is_out { (&mut out, &mut err) } else { (&mut err, &mut out) };
                let Share { kept, displaced } = share(most, *one, read, *other);
                prop_assert!(kept <= read);
                *one += kept;
                *other -= displaced;
                brought[usize::from(is_out)] += read;
                prop_assert!(out + err + REST_BYTES <= ANSWER_BYTES_MAX);
                prop_assert!(out <= most && err <= most);
            }
            for (kept, brought) in [(err, brought[0]), (out, brought[1])] {
                prop_assert!(kept >= brought.min(most).min(EACH_BYTES_MIN), "{kept} of {brought}");
            }
            // Nothing is dropped for nothing.
            let is_cut = out < brought[1].min(most) || err < brought[0].min(most);
            prop_assert!(!is_cut || out + err == BOTH_BYTES_MAX);
        }
    }

    #[test]
    fn the_line_that_says_so_has_room() {
        let notice = "\n[hull: stderr is cut here: 16777216 bytes are kept, 18446744073709551615 were dropped]\n";
        assert!(notice.len() <= NOTICE_BYTES_MAX);
    }
}
