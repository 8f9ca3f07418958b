// SPDX-License-Identifier: Apache-2.0
//! The rules of a container's log, beyond one file that takes everything: limits, rotation, journald. A log without
//! rules has none of this in memory.
//!
//! ```text
//! lines ─▶ gate (what is over a limit is dropped) ─▶ rotation, if the file is full ─▶ file
//!                                                └─▶ journald
//! ```

use crate::journal::Journal;
use crate::log_buffer::HEAD;
use crate::log_file::LogFile;
use crate::log_gate::{Excess, Gate, Verdict};
use crate::log_rate::Rate;
use crate::log_rotation::Rotation;
use hull_proto::monitor::{Failure, LogDropped, LogPolicy, Logging};
use hull_sys::time::now_ns;
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How often a loss is reported at most: there may be one with every line.
pub(crate) const NEWS_EVERY: Duration = Duration::from_secs(10);
/// A stream that waits for its rate waits until so much of it may be read.
const READ_BYTES_MIN: usize = 64;

/// The rules of one log, and what they did so far.
#[derive(Debug)]
pub(crate) struct Rules {
    gate: Option<Gate>,
    /// A rate for which the container waits.
    pace: Option<Rate>,
    rotation: Option<Rotation>,
    journal: Option<Journal>,
    /// Bytes of the file.
    size: u64,
    rotation_error: Option<Errno>,
    /// The last report, and its time.
    reported: Option<(LogDropped, Instant)>,
}

impl Rules {
    /// The rules that a request names. Its descriptors are the directory of the log and journald's socket.
    pub(crate) fn new(
        logging: Logging,
        dir: Option<OwnedFd>,
        journal: Option<OwnedFd>,
    ) -> Result<Box<Self>, Failure> {
        let Logging { rate, size_max, rotate, journal: fields } = logging;
        let now = Instant::now();
        let (excess, pace) = match rate {
            Some(of) if of.policy == LogPolicy::Wait => (None, Some(Rate::new(of, now))),
            Some(of) => {
                (Some(Excess { rate: Rate::new(of, now), bytes_per_s: of.bytes_per_s }), None)
            }
            None => (None, None),
        };
        let rotation = match rotate.zip(dir) {
            Some((rule, dir)) => Some(Rotation::new(rule, dir).ok_or_else(|| {
                Failure::BadRequest("the name of the log is not a name of a file".into())
            })?),
            None => None,
        };
        let journal = journal.zip(fields).map(|(socket, fields)| Journal::new(socket, fields));
        let gate = Gate::new(excess, size_max);
        Ok(Box::new(Self {
            gate,
            pace,
            rotation,
            journal,
            size: 0,
            rotation_error: None,
            reported: None,
        }))
    }

    /// The log is written to another file, of so many bytes.
    pub(crate) fn begin_file(&mut self, size: u64) {
        self.size = size;
    }

    /// Writes lines, each with its end: those that the rules let through.
    pub(crate) fn write(&mut self, file: &mut LogFile, text: &[u8]) {
        let now = Instant::now();
        if let Some(pace) = &mut self.pace {
            pace.charge(text.len(), now);
        }
        let Some(mut gate) = self.gate.take() else { return self.put(file, text) };
        // The lines since `begin` are kept, and not written yet.
        let (mut begin, mut at) = (0, 0);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let end = at + line.len();
            let size = self.size.saturating_add(length(&text[begin..at]));
            match gate.decide(line, size, now) {
                Verdict::Keep => {}
                Verdict::KeepAfter(ours) => {
                    self.put(file, &text[begin..at]);
                    self.put(file, &ours);
                    begin = at;
                }
                Verdict::Drop => {
                    self.put(file, &text[begin..at]);
                    begin = end;
                }
                Verdict::Replace(ours) => {
                    self.put(file, &text[begin..at]);
                    self.put(file, &ours);
                    begin = end;
                }
            }
            at = end;
        }
        self.put(file, &text[begin..]);
        self.gate = Some(gate);
    }

    /// Says in the log what is missing at its end: no more output comes.
    pub(crate) fn finish(&mut self, file: &mut LogFile) {
        if let Some(mut gate) = self.gate.take() {
            let ours = gate.finish(now_ns());
            self.put(file, &ours);
            self.gate = Some(gate);
        }
    }

    /// Writes lines that are kept.
    fn put(&mut self, file: &mut LogFile, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if let Some(rotation) = &mut self.rotation
            && rotation.is_due(self.size, length(lines))
        {
            let rotated = rotation.rotate(self.size);
            self.rotation_error = rotated.as_ref().err().copied();
            if let Ok(next) = rotated {
                file.open(next);
                self.size = 0;
            }
        }
        self.size = self.size.saturating_add(file.write(lines));
        if let Some(journal) = &mut self.journal {
            journal.send(lines);
        }
    }

    /// How much output may be read of a stream that has `rest` bytes of a line already, so that its log stays within
    /// the rate whatever the output is; or until when none is read.
    pub(crate) fn room(&self, rest: usize, now: Instant) -> Result<usize, Instant> {
        let Some(pace) = &self.pace else { return Ok(usize::MAX) };
        // The rest of a line may end with the next byte, and every byte may be an empty line.
        let first = rest + HEAD + 1;
        let room = pace.room(first + READ_BYTES_MIN * (HEAD + 1), now)?;
        Ok((room.saturating_sub(first) / (HEAD + 1)).max(1))
    }

    /// The processes are gone, so nobody can wait: what they left passes as far as a burst, and the rest is dropped.
    pub(crate) fn stop_waiting(&mut self) {
        let Some(mut rate) = self.pace.take() else { return };
        rate.refill(Instant::now());
        let excess = Excess { bytes_per_s: rate.bytes_per_s(), rate };
        match &mut self.gate {
            Some(gate) => gate.set_excess(excess),
            None => self.gate = Gate::new(Some(excess), None),
        }
    }

    fn dropped(&self) -> LogDropped {
        let by_limits = self.gate.as_ref().map(Gate::total).unwrap_or_default();
        LogDropped {
            bytes: by_limits.bytes,
            lines: by_limits.lines,
            journal_lines: self.journal.as_ref().map_or(0, |of| of.dropped),
            rotation_errno: self.rotation_error.map(Errno::raw_os_error),
        }
    }

    /// When what is not reported yet is to be reported; `None` if all is.
    pub(crate) fn news_at(&self) -> Option<Instant> {
        let dropped = self.dropped();
        match self.reported {
            None => (dropped != LogDropped::default()).then(Instant::now),
            Some((reported, at)) => (reported != dropped).then(|| at + NEWS_EVERY),
        }
    }

    /// The output that was dropped, if it is to be reported now. `last` if no more output comes.
    pub(crate) fn news(&mut self, last: bool) -> Option<LogDropped> {
        let at = self.news_at()?;
        let now = Instant::now();
        (last || at <= now).then(|| {
            let dropped = self.dropped();
            self.reported = Some((dropped, now));
            dropped
        })
    }

    /// Has it reported again, to a new daemon.
    pub(crate) fn reset_reported(&mut self) {
        self.reported = None;
    }
}

/// The number of bytes.
fn length(of: &[u8]) -> u64 {
    u64::try_from(of.len()).unwrap_or(u64::MAX)
}
