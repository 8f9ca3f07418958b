// SPDX-License-Identifier: Apache-2.0
//! Which lines of a container go into its log, where that is limited. Pure.
//!
//! ```text
//! Passing ── over the rate, file full ─▶ Dropping ── half of the burst free, a new file ─▶ Passing
//!                                            └ counts                                └ after a line that says how much
//! ```
//!
//! The rule: only whole lines are dropped, and readers of the log see where. A line whose first pieces are in the
//! log already is ended there, with words that say so. Lines of ours have the time of the line that they stand before.

use crate::log_buffer::HEAD;
use crate::log_rate::Rate;
use crate::log_stream::Stream;
use hull_sys::time::{RFC3339_BYTES, rfc3339};
use std::time::Instant;

/// Where the tag of a line is.
const TAG: usize = HEAD - 2;
/// Room that is left for a notice, in bytes.
const NOTICE_BYTES: usize = 200;

/// The end of a line of which only the first pieces are in the log.
const CUT: &str = "[hull: the rest of this line is dropped]";

/// The decision about a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// After lines of ours.
    KeepAfter(Vec<u8>),
    Drop,
    /// With lines of ours in its place.
    Replace(Vec<u8>),
}

/// Output that was dropped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) bytes: u64,
    pub(crate) lines: u64,
}

/// Why output is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Rate { bytes_per_s: u64 },
    Size { max: u64 },
}

#[derive(Debug)]
enum State {
    Passing,
    Dropping { since: Dropped, reason: Reason },
}

/// How far the log has the current line of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The last one has its end.
    Whole,
    /// Pieces of it are in the log.
    Begun,
    /// Its rest is dropped.
    Dropped,
}

/// A rate of which the excess is dropped.
#[derive(Debug)]
pub(crate) struct Excess {
    pub(crate) rate: Rate,
    pub(crate) bytes_per_s: u64,
}

/// Decides line by line.
#[derive(Debug)]
pub(crate) struct Gate {
    excess: Option<Excess>,
    size_max: Option<u64>,
    state: State,
    lines: [Line; 2],
    total: Dropped,
}

impl Gate {
    /// A gate for these limits; `None` without any.
    pub(crate) fn new(excess: Option<Excess>, size_max: Option<u64>) -> Option<Self> {
        if excess.is_none() && size_max.is_none() {
            return None;
        }
        let lines = [Line::Whole; 2];
        let total = Dropped::default();
        Some(Self { excess, size_max, state: State::Passing, lines, total })
    }

    /// Drops what exceeds a rate from now on.
    pub(crate) fn set_excess(&mut self, excess: Excess) {
        self.excess = Some(excess);
    }

    /// All that was dropped so far.
    pub(crate) fn total(&self) -> Dropped {
        self.total
    }

    /// Decides about a line with its end, for a file of `size` bytes.
    pub(crate) fn decide(&mut self, line: &[u8], size: u64, now: Instant) -> Verdict {
        let time = line.get(..RFC3339_BYTES).unwrap_or_default();
        let stream = Stream::of_line(line);
        let is_last = line.get(TAG) == Some(&b'F');
        let was = self.lines[stream as usize];
        if was == Line::Dropped {
            self.count(line, is_last);
            self.set(stream, if is_last { Line::Whole } else { Line::Dropped });
            return Verdict::Drop;
        }
        match self.excess_of(line.len(), size, now) {
            None => {
                let notice = self.resume(time);
                if let Some(excess) = &mut self.excess {
                    excess.rate.charge(line.len() + notice.len(), now);
                }
                self.set(stream, if is_last { Line::Whole } else { Line::Begun });
                if notice.is_empty() { Verdict::Keep } else { Verdict::KeepAfter(notice) }
            }
            Some(reason) => {
                let begins = self.begin(reason);
                self.count(line, is_last);
                self.set(stream, if is_last { Line::Whole } else { Line::Dropped });
                let mut ours = Vec::new();
                if was == Line::Begun {
                    append(&mut ours, stream, time, CUT);
                }
                if let Reason::Size { max } = reason
                    && begins
                {
                    append(&mut ours, self.free_stream(), time, &full(max));
                }
                if ours.is_empty() { Verdict::Drop } else { Verdict::Replace(ours) }
            }
        }
    }

    /// The last line of ours, when no more output comes; empty if nothing is dropped now.
    pub(crate) fn finish(&mut self, at_ns: i64) -> Vec<u8> {
        let time = rfc3339(at_ns);
        let mut ours = Vec::new();
        let free = self.free_stream();
        if matches!(self.state, State::Dropping { .. }) && self.is_begun(free) {
            append(&mut ours, free, &time, CUT);
            self.set(free, Line::Whole);
        }
        ours.extend(self.resume(&time));
        ours
    }

    /// Why a line is not to be written, if it is not.
    fn excess_of(&self, bytes: usize, size: u64, now: Instant) -> Option<Reason> {
        let is_passing = matches!(self.state, State::Passing);
        let with_notice = if is_passing { bytes } else { bytes + NOTICE_BYTES };
        if let Some(max) = self.size_max
            && size.saturating_add(u64::try_from(with_notice).unwrap_or(u64::MAX)) > max
        {
            return Some(Reason::Size { max });
        }
        let excess = self.excess.as_ref()?;
        let rate = &excess.rate;
        let passes = rate.admits(with_notice, now) && (is_passing || rate.has_recovered(now));
        (!passes).then_some(Reason::Rate { bytes_per_s: excess.bytes_per_s })
    }

    /// Begins to drop, or goes on for this reason. True if this reason is new.
    fn begin(&mut self, now: Reason) -> bool {
        match &mut self.state {
            State::Passing => {
                self.state = State::Dropping { since: self.total, reason: now };
                true
            }
            State::Dropping { reason, .. } => std::mem::replace(reason, now) != now,
        }
    }

    /// Ends the dropping. Returns the line that says what is missing; empty if nothing is.
    fn resume(&mut self, time: &[u8]) -> Vec<u8> {
        let State::Dropping { since, reason } = std::mem::replace(&mut self.state, State::Passing)
        else {
            return Vec::new();
        };
        let missing = Dropped {
            bytes: self.total.bytes - since.bytes,
            lines: self.total.lines - since.lines,
        };
        let mut ours = Vec::new();
        append(&mut ours, self.free_stream(), time, &gap(missing, reason));
        ours
    }

    fn count(&mut self, line: &[u8], is_last: bool) {
        // Of a piece, the line end is not the container's.
        let output = line.len().saturating_sub(HEAD + usize::from(!is_last));
        self.total.bytes += u64::try_from(output).unwrap_or(0);
        self.total.lines += u64::from(is_last);
    }

    fn set(&mut self, stream: Stream, line: Line) {
        self.lines[stream as usize] = line;
    }

    fn is_begun(&self, stream: Stream) -> bool {
        self.lines[stream as usize] == Line::Begun
    }

    /// A stream in which no line is begun: a reader would take ours for its rest.
    fn free_stream(&self) -> Stream {
        if self.is_begun(Stream::Stderr) { Stream::Stdout } else { Stream::Stderr }
    }
}

fn append(to: &mut Vec<u8>, stream: Stream, time: &[u8], text: &str) {
    let name = match stream {
        Stream::Stdout => " stdout F ",
        Stream::Stderr => " stderr F ",
    };
    to.extend_from_slice(time);
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(text.as_bytes());
    to.push(b'\n');
}

fn full(max: u64) -> String {
    format!("[hull: the log has reached its limit of {max} bytes; what follows is dropped]")
}

fn gap(missing: Dropped, reason: Reason) -> String {
    let Dropped { bytes, lines } = missing;
    let limit = match reason {
        Reason::Rate { bytes_per_s } => {
            format!("the log's limit is {bytes_per_s} bytes per second")
        }
        Reason::Size { max } => format!("the log's limit is {max} bytes"),
    };
    format!("[hull: dropped {bytes} bytes of output in {lines} lines; {limit}]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_proto::monitor::{LogPolicy, LogRate};
    use std::time::Duration;

    fn line(stream: &str, tag: char, text: &str) -> Vec<u8> {
        format!("2016-10-06T00:17:09.669794202Z {stream} {tag} {text}\n").into_bytes()
    }

    fn gate(bytes_per_s: u64, burst_bytes: u64, size_max: Option<u64>, now: Instant) -> Gate {
        let of = LogRate { bytes_per_s, burst_bytes, policy: LogPolicy::Drop };
        Gate::new(Some(Excess { rate: Rate::new(of, now), bytes_per_s }), size_max).unwrap()
    }

    fn text(ours: &[u8]) -> String {
        String::from_utf8(ours.to_vec()).unwrap()
    }

    #[test]
    fn what_is_over_the_rate_is_dropped_and_told_in_its_place() {
        let start = Instant::now();
        let mut gate = gate(1000, 2000, None, start);
        let one = line("stdout", 'F', &"x".repeat(959));
        assert_eq!(one.len(), 1000);
        for _ in 0..2 {
            assert_eq!(gate.decide(&one, 0, start), Verdict::Keep);
        }
        for _ in 0..3 {
            assert_eq!(gate.decide(&one, 0, start), Verdict::Drop);
        }
        // A quarter of the burst is free: not yet.
        let early = start + Duration::from_millis(500);
        let short = line("stdout", 'F', "short");
        assert_eq!(gate.decide(&short, 0, early), Verdict::Drop);
        let late = start + Duration::from_millis(1400);
        let Verdict::KeepAfter(notice) = gate.decide(&short, 0, late) else { panic!() };
        let notice = text(&notice);
        assert!(
            notice.starts_with("2016-10-06T00:17:09.669794202Z stderr F [hull: dropped 2886 bytes of output in 4 lines;"),
            "{notice}"
        );
        assert!(notice.ends_with("1000 bytes per second]\n"), "{notice}");
        assert_eq!(gate.total(), Dropped { bytes: 2886, lines: 4 });
        assert_eq!(gate.decide(&short, 0, late), Verdict::Keep);
        assert_eq!(gate.finish(0), b"");
    }

    #[test]
    fn a_line_is_dropped_with_all_of_its_pieces_or_ended() {
        let start = Instant::now();
        let mut gate = gate(1000, 1000, None, start);
        let piece = line("stderr", 'P', &"x".repeat(600));
        let end = line("stderr", 'F', "end");
        assert_eq!(gate.decide(&piece, 0, start), Verdict::Keep);
        // It has begun, and has to end before anything else of its stream.
        let Verdict::Replace(ours) = gate.decide(&piece, 0, start) else { panic!() };
        let cut = "stderr F [hull: the rest of this line is dropped]\n";
        // At the time of the lines around it.
        assert_eq!(text(&ours), format!("2016-10-06T00:17:09.669794202Z {cut}"));
        // There would be room by now, but not for half a line.
        let late = start + Duration::from_secs(60);
        assert_eq!(gate.decide(&end, 0, late), Verdict::Drop);
        assert_eq!(gate.total(), Dropped { bytes: 604, lines: 1 });
        assert!(matches!(gate.decide(&end, 0, late), Verdict::KeepAfter(_)));
    }

    #[test]
    fn a_notice_never_becomes_the_rest_of_a_line() {
        let start = Instant::now();
        let mut gate = gate(1000, 1000, None, start);
        assert_eq!(gate.decide(&line("stderr", 'P', "begun"), 0, start), Verdict::Keep);
        let long = line("stdout", 'F', &"x".repeat(2000));
        assert_eq!(gate.decide(&long, 0, start), Verdict::Drop);
        let ours = text(&gate.finish(0));
        assert!(ours.contains(" stdout F [hull: dropped 2001 bytes"), "{ours}");
    }

    #[test]
    fn a_full_file_is_told_of_at_once_and_a_new_one_goes_on() {
        let now = Instant::now();
        let mut gate = Gate::new(None, Some(500)).unwrap();
        let one = line("stdout", 'F', "one");
        assert_eq!(gate.decide(&one, 456, now), Verdict::Keep);
        let Verdict::Replace(ours) = gate.decide(&one, 457, now) else { panic!() };
        assert!(text(&ours).contains("limit of 500 bytes; what follows is dropped]"));
        assert_eq!(gate.decide(&one, 600, now), Verdict::Drop);
        let Verdict::KeepAfter(ours) = gate.decide(&one, 0, now) else { panic!() };
        assert!(text(&ours).contains("dropped 8 bytes of output in 2 lines"), "{}", text(&ours));
    }
}
