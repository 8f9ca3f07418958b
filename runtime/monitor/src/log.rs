// SPDX-License-Identifier: Apache-2.0
//! A container's log: the CRI format, written in batches.
//!
//! ```text
//! 2016-10-06T00:17:09.669794202Z stdout F a whole line
//! 2016-10-06T00:17:09.669794202Z stderr P a piece of a line that goes on, or that never ended
//! ```
//!
//! Each stream keeps its order. What cannot be written (disk full) is dropped and counted, which is reported when it
//! begins and when it is over: the container never blocks on its log, unless its rules have it wait for the rate.

use crate::limits;
use crate::log_buffer::{HEAD, LogBuffer};
use crate::log_file::LogFile;
pub use crate::log_file::Lost;
use crate::log_rules::{NEWS_EVERY, Rules};
pub use crate::log_stream::Stream;
use hull_proto::monitor::LogDropped;
use hull_sys::time::{RFC3339_BYTES, now_ns, rfc3339};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// Longest piece of a line, in bytes, as in containerd and CRI-O.
pub const PIECE_BYTES_MAX: usize = limits::LOG_PIECE_BYTES.count();
/// Most text that is written at once: a pipe's content, in lines of medium length.
const TEXT_BYTES_MAX: usize = 124 << 10;
/// Longest line of a log, with its end.
const LINE_BYTES_MAX: usize = HEAD + PIECE_BYTES_MAX + 1;
/// Bytes of a time.
const TIME: usize = RFC3339_BYTES;

/// A buffer for [`Log::take`], large enough never to grow. All logs can share one.
#[must_use]
pub fn buffer() -> LogBuffer {
    LogBuffer::with_capacity(TEXT_BYTES_MAX)
}

/// One container's log.
#[derive(Debug, Default)]
pub struct Log {
    file: LogFile,
    /// The beginning of a line whose end has not come yet, per stream.
    rest: [Vec<u8>; 2],
    /// Bytes of the last report of a loss, and its time.
    reported: Option<(u64, Instant)>,
    /// The rules beyond writing all to one file.
    rules: Option<Box<Rules>>,
}

impl Log {
    /// Writes to `file`; without one everything is dropped.
    #[must_use]
    pub fn new(file: Option<OwnedFd>) -> Self {
        Self { file: LogFile::new(file), ..Self::default() }
    }

    /// Writes by rules.
    pub(crate) fn with_rules(file: Option<OwnedFd>, mut rules: Option<Box<Rules>>) -> Self {
        let file = LogFile::new(file);
        if let Some(rules) = &mut rules {
            rules.begin_file(file.size());
        }
        Self { file, rules, ..Self::default() }
    }

    /// Goes on in another file. Whole lines are never split between the two.
    pub fn reopen(&mut self, file: OwnedFd) {
        self.file.open(file);
        if let Some(rules) = &mut self.rules {
            rules.begin_file(self.file.size());
        }
    }

    /// Bytes that could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.file.lost().map_or(0, |lost| lost.bytes)
    }

    /// The loss, if it is to be reported: it has begun, or is over for now. `last` if no more output comes.
    pub fn news(&mut self, last: bool) -> Option<Lost> {
        let lost = self.file.lost()?;
        let now = Instant::now();
        let is_news = match self.reported {
            None => true,
            // A disk may be full by turns.
            Some((bytes, at)) => {
                bytes < lost.bytes && (last || (!self.file.is_failing() && now >= at + NEWS_EVERY))
            }
        };
        is_news.then(|| {
            self.reported = Some((lost.bytes, now));
            lost
        })
    }

    /// The output that its rules kept out, if that is to be reported. `last` if no more output comes.
    pub(crate) fn news_of_rules(&mut self, last: bool) -> Option<LogDropped> {
        self.rules.as_mut()?.news(last)
    }

    /// When [`Log::news_of_rules`] has something to report; `None` if it has nothing.
    pub(crate) fn news_at(&self) -> Option<Instant> {
        self.rules.as_ref()?.news_at()
    }

    /// How much output of a stream may be read now; or until when none is, as the rate of the log is reached.
    pub(crate) fn room(&self, stream: Stream) -> Result<usize, Instant> {
        let Some(rules) = &self.rules else { return Ok(usize::MAX) };
        rules.room(self.rest[stream as usize].len(), Instant::now())
    }

    /// Nothing waits for the rate of the log any more; see [`Rules::stop_waiting`].
    pub(crate) fn stop_waiting(&mut self) {
        if let Some(rules) = &mut self.rules {
            rules.stop_waiting();
        }
    }

    /// Has losses reported again, to a new daemon.
    pub fn reset_reported(&mut self) {
        self.reported = None;
        if let Some(rules) = &mut self.rules {
            rules.reset_reported();
        }
    }

    /// Says in the log what is missing at its end: both streams have ended.
    pub(crate) fn finish(&mut self) {
        if let Some(rules) = &mut self.rules {
            rules.finish(&mut self.file);
        }
    }

    /// Whether nothing takes its lines.
    fn is_nowhere(&self) -> bool {
        self.file.is_none() && self.rules.is_none()
    }

    /// Takes output of one stream, as it was read. `text` is a buffer of [`buffer`].
    pub fn take(&mut self, stream: Stream, output: &[u8], text: &mut LogBuffer) {
        if self.is_nowhere() {
            return;
        }
        text.clear();
        let head = head(stream, now_ns());
        let mut rest = std::mem::take(&mut self.rest[stream as usize]);
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', output) {
            if rest.is_empty() && end - begin <= PIECE_BYTES_MAX {
                // Nearly every line; its end comes along.
                text.line(&head, &output[begin..], end + 1 - begin);
            } else {
                let last = self.pieces(&head, &mut rest, &output[begin..end], text);
                line(&head, b'F', &[&rest, last], text);
                rest.clear();
            }
            begin = end + 1;
            self.write_if_full(text);
        }
        let last = self.pieces(&head, &mut rest, &output[begin..], text);
        rest.extend_from_slice(last);
        // No memory between lines.
        self.rest[stream as usize] = if rest.is_empty() { Vec::new() } else { rest };
        self.write(text);
    }

    /// Writes all but the last piece of `rest` and `new` together, and gives what is left of `new`;
    /// what is left of `rest` stays there. The last piece is never empty unless the line is.
    fn pieces<'a>(
        &mut self,
        head: &[u8; HEAD],
        rest: &mut Vec<u8>,
        mut new: &'a [u8],
        text: &mut LogBuffer,
    ) -> &'a [u8] {
        while rest.len() + new.len() > PIECE_BYTES_MAX {
            let (piece, left) = new.split_at(PIECE_BYTES_MAX - rest.len());
            line(head, b'P', &[rest, piece], text);
            rest.clear();
            new = left;
            self.write_if_full(text);
        }
        new
    }

    /// Leaves room for one more line of any length.
    fn write_if_full(&mut self, text: &mut LogBuffer) {
        if text.remaining() < LINE_BYTES_MAX {
            self.write(text);
            text.clear();
        }
    }

    /// The stream has ended: what it left without a line end is written as a piece.
    pub fn end(&mut self, stream: Stream) {
        let rest = std::mem::take(&mut self.rest[stream as usize]);
        if rest.is_empty() || self.is_nowhere() {
            return;
        }
        let mut text = LogBuffer::with_capacity(LINE_BYTES_MAX);
        line(&head(stream, now_ns()), b'P', &[&rest], &mut text);
        self.write(&text);
    }

    fn write(&mut self, text: &[u8]) {
        match &mut self.rules {
            Some(rules) => rules.write(&mut self.file, text),
            None => {
                self.file.write(text);
            }
        }
    }
}

fn line(head: &[u8; HEAD], tag: u8, parts: &[&[u8]], text: &mut LogBuffer) {
    text.push(&head[..HEAD - 2]);
    text.push(&[tag, b' ']);
    for part in parts {
        text.push(part);
    }
    text.push(b"\n");
}

/// The head of every complete line of a batch: time, stream and tag.
fn head(stream: Stream, at_ns: i64) -> [u8; HEAD] {
    let mut head = *b"YYYY-mm-ddTHH:MM:SS.nnnnnnnnnZ stdout F ";
    if stream == Stream::Stderr {
        head[TIME..].copy_from_slice(b" stderr F ");
    }
    head[..TIME].copy_from_slice(&rfc3339(at_ns));
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::{Read as _, Seek as _};

    /// Puts chunks through a real file and gives the log back.
    fn logged(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        let copy: File = file.try_clone().unwrap();
        let mut log = Log::new(Some(copy.into()));
        let mut text = buffer();
        for chunk in chunks {
            log.take(Stream::Stdout, chunk, &mut text);
        }
        log.end(Stream::Stdout);
        assert_eq!(log.dropped(), 0);
        file.rewind().unwrap();
        let mut written = Vec::new();
        file.read_to_end(&mut written).unwrap();
        written
    }

    /// The program's output, from its log.
    fn read_back(log: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        for line in log.split_inclusive(|byte| *byte == b'\n') {
            let body = line.strip_suffix(b"\n").unwrap();
            let mut words = body.splitn(4, |byte| *byte == b' ');
            let time = words.next().unwrap();
            assert_eq!((time.len(), time[time.len() - 1]), (30, b'Z'));
            assert_eq!(words.next().unwrap(), b"stdout");
            let tag = words.next().unwrap();
            let content = words.next().unwrap();
            assert!(content.len() <= PIECE_BYTES_MAX);
            output.extend_from_slice(content);
            match tag {
                b"F" => output.push(b'\n'),
                b"P" => assert!(!content.is_empty()),
                other => panic!("tag {other:?}"),
            }
        }
        output
    }

    proptest! {
        /// However the output was cut up on its way, its log gives it back byte by byte.
        #[test]
        fn the_log_gives_the_output_back(
            lines in proptest::collection::vec((any::<u8>(), 0..40_000usize), 0..6),
            last in 0..20_000usize,
            cut in 1..70_000usize,
        ) {
            let mut output = Vec::new();
            for (byte, length) in lines {
                let byte = if byte == b'\n' { b'x' } else { byte };
                output.extend(std::iter::repeat_n(byte, length));
                output.push(b'\n');
            }
            output.extend(std::iter::repeat_n(b'e', last));
            let chunks: Vec<_> = output.chunks(cut).map(<[u8]>::to_vec).collect();
            let log = logged(&chunks);
            prop_assert_eq!(read_back(&log), output.clone());
            let whole = logged(&[output]);
            let tags = |log: &[u8]| log.split(|b| *b == b'\n').map(|l| l.get(38).copied()).collect::<Vec<_>>();
            prop_assert_eq!(tags(&log), tags(&whole), "cutting changes no line");
        }
    }

    /// A pipe that nobody reads stands for a disk that is full for a while.
    #[test]
    fn after_an_error_only_the_line_that_was_cut_is_bad() {
        let (disk, file) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let mut log = Log::new(Some(file));
        let line = [b'x'; 60];
        let output: Vec<u8> = (0..2000).flat_map(|_| line.iter().copied().chain([b'\n'])).collect();
        let mut text = buffer();
        log.take(Stream::Stdout, &output, &mut text);
        assert!(log.dropped() > 0, "it did not fit");
        log.take(Stream::Stdout, b"lost as well\n", &mut text);
        let mut found = vec![0; 1 << 20];
        let before = rustix::io::read(&disk, &mut found).unwrap();
        assert_ne!(found[before - 1], b'\n', "a line was cut");
        log.take(Stream::Stdout, b"whole again\n", &mut text);
        let after = rustix::io::read(&disk, &mut found).unwrap();
        let after = found[..after].strip_prefix(b"\n").unwrap();
        assert_eq!(read_back(after), b"whole again\n");
    }

    /// The worst case: forty bytes of log for each of output.
    #[test]
    fn empty_lines_are_lines() {
        let output = vec![b'\n'; 100_000];
        assert_eq!(read_back(&logged(std::slice::from_ref(&output))), output);
    }
}
