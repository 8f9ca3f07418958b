// SPDX-License-Identifier: Apache-2.0
//! The log of a container: what its monitor writes the command line prints as it was said, and what
//! is not a log is passed on.

use crate::input::Input;
use hull_monitor::log::{Log, Stream, buffer};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

#[path = "../../../server/src/cli/logline.rs"]
#[allow(dead_code, unreachable_pub, reason = "the file is the command line's")]
mod logline;

use logline::{Printer, parse};

/// How much longer a run of bytes is made, so that lines get longer than a piece.
const LONGER: usize = 700;

/// Runs one case: any lines are read, or output is logged and read back.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    if input.byte() % 2 == 0 { read(input.0) } else { round(&mut input) }
}

fn read(text: &[u8]) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut printer = Printer::new(&mut out, &mut err, true);
    for line in text.split(|byte| *byte == b'\n') {
        // Writing to memory does not fail.
        let _fine = printer.line(line);
        let Some(found) = parse(line) else { continue };
        let stream = match found.stream {
            logline::Stream::Stdout => "stdout",
            logline::Stream::Stderr => "stderr",
        };
        let head = [found.time, b" ", stream.as_bytes(), b" "].concat();
        assert!(line.starts_with(&head) && line.ends_with(found.text));
    }
}

#[allow(clippy::expect_used, reason = "memory files and reading them do not fail here")]
fn round(input: &mut Input<'_>) {
    let fd: OwnedFd = memfd_create("log", MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(fd.try_clone().expect("a second descriptor"));
    let (mut log, mut text) = (Log::new(Some(fd)), buffer());
    let mut said = [Vec::new(), Vec::new()];
    while !input.is_empty() {
        let choice = input.byte();
        let stream = if choice & 1 == 0 { Stream::Stdout } else { Stream::Stderr };
        let times = if choice & 2 == 0 { 1 } else { usize::from(input.byte()) * LONGER / 64 + 1 };
        let chunk = input.run().repeat(times);
        log.take(stream, &chunk, &mut text);
        said[stream as usize].extend(chunk);
    }
    for stream in [Stream::Stdout, Stream::Stderr] {
        log.end(stream);
    }
    assert_eq!(log.dropped(), 0);
    file.write_all_at(b"", 0).expect("nothing written");
    std::io::Seek::rewind(&mut file).expect("back to its beginning");
    let mut written = Vec::new();
    file.read_to_end(&mut written).expect("the log");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut printer = Printer::new(&mut out, &mut err, false);
    assert!(written.is_empty() || written.ends_with(b"\n"));
    for line in written.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        assert!(parse(line).is_some(), "no log line: {line:?}");
        let _fine = printer.line(line);
    }
    assert!(out == said[0] && err == said[1], "the log says something else");
}
