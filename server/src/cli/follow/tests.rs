// SPDX-License-Identifier: Apache-2.0
//! Tests of following a log over its rotations.

use super::*;
use std::fs;

/// The output of one call of `pump`.
fn pumped(tail: &mut Tail) -> String {
    let mut out = Vec::new();
    tail.pump(&mut Printer::new(&mut out, io::sink(), false)).unwrap();
    String::from_utf8(out).unwrap()
}

fn append(path: &Path, text: &str) {
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_line_is_printed_once_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let mut tail = Tail::open(&path, None).unwrap();
    assert_eq!(pumped(&mut tail), "");
    append(&path, "T stdout F one\nT stdout F tw");
    assert_eq!(pumped(&mut tail), "one\n");
    append(&path, "o\n");
    assert_eq!(pumped(&mut tail), "two\n");
}

#[test]
fn rotation_loses_nothing_and_keeps_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let old = dir.path().join("0.log.1");
    append(&path, "T stdout F 1\n");
    let mut tail = Tail::open(&path, None).unwrap();
    assert_eq!(pumped(&mut tail), "1\n");
    fs::rename(&path, &old).unwrap();
    append(&old, "T stdout F 2\n");
    assert_eq!(pumped(&mut tail), "2\n");
    // The new file exists, and the monitor still writes to the old one.
    append(&path, "");
    append(&old, "T stdout F 3\n");
    assert_eq!(pumped(&mut tail), "3\n");
    append(&old, "T stdout F 4\n");
    append(&path, "T stdout F 5\n");
    assert_eq!(pumped(&mut tail), "4\n5\n");
}

#[test]
fn a_file_cut_in_place_is_read_from_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    append(&path, "T stdout F long enough to be cut\n");
    let mut tail = Tail::open(&path, None).unwrap();
    pumped(&mut tail);
    fs::write(&path, "T stdout F 1\n").unwrap();
    assert_eq!(pumped(&mut tail), "1\n");
}

#[test]
fn the_last_lines_are_counted_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    append(&path, "T stdout F a\nT stdout P b\nT stdout F c\nT stdout F d\n");
    for (last, text) in [(0, ""), (1, "d\n"), (2, "bc\nd\n"), (3, "a\nbc\nd\n"), (9, "a\nbc\nd\n")]
    {
        let last = Last { count: last, before_ns: None };
        assert_eq!(pumped(&mut Tail::open(&path, Some(last)).unwrap()), text, "{last:?}");
    }
}

#[test]
fn the_last_lines_before_a_time_are_counted_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    for (second, text) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        append(&path, &format!("1970-01-01T00:00:0{second}.000000000Z stdout F {text}\n"));
    }
    let before_ns = Some(3_000_000_000);
    for (count, text) in [(0, "c\nd\n"), (1, "b\nc\nd\n"), (2, "a\nb\nc\nd\n")] {
        let last = Last { count, before_ns };
        assert_eq!(pumped(&mut Tail::open(&path, Some(last)).unwrap()), text, "{count}");
    }
}

/// As the monitor does it: every file one number further.
fn rotate(path: &Path, files: usize) {
    let numbered = |number: usize| format!("{}.{number}", path.display());
    for number in (1..files).rev() {
        let _missing = fs::rename(numbered(number), numbered(number + 1));
    }
    fs::rename(path, numbered(1)).unwrap();
}

#[test]
fn several_rotations_between_two_reads_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    append(&path, "T stdout F 1\n");
    let mut tail = Tail::open(&path, None).unwrap();
    assert_eq!(pumped(&mut tail), "1\n");
    append(&path, "T stdout F 2\n");
    for number in 3..6 {
        rotate(&path, 9);
        append(&path, &format!("T stdout F {number}\n"));
    }
    assert_eq!(pumped(&mut tail), "2\n3\n4\n5\n");
    rotate(&path, 9);
    assert_eq!(pumped(&mut tail), "", "the next file does not exist yet");
    append(&path, "T stdout F 6\n");
    assert_eq!(pumped(&mut tail), "6\n");
}

#[test]
fn what_was_removed_before_it_was_read_is_a_gap_and_nothing_is_printed_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    append(&path, "T stdout F 6\n");
    let mut tail = Tail::open(&path, None).unwrap();
    assert_eq!(pumped(&mut tail), "6\n");
    // Left by a run that kept more files.
    let old = dir.path().join("0.log.2");
    append(&old, "T stdout F 1\n");
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    File::options().write(true).open(&old).unwrap().set_modified(time).unwrap();
    for number in 7..10 {
        rotate(&path, 1);
        append(&path, &format!("T stdout F {number}\n"));
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    tail.pump(&mut Printer::new(&mut out, &mut err, false)).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "8\n9\n");
    assert_eq!((String::from_utf8(err).unwrap(), tail.gaps()), (format!("hull: {GAP}\n"), 1));
}

/// Rotates the file that it prints from, as a reader that is slow finds it afterwards.
struct Rotating<'p>(&'p Path, Vec<u8>, std::ops::Range<u32>);

impl Write for Rotating<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for number in std::mem::take(&mut self.2) {
            rotate(self.0, 2);
            append(self.0, &format!("T stdout F {number}\n"));
        }
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_rotated_away_while_its_reader_is_slow_is_reported() {
    for (rotations, printed, gaps) in [(2..3, "1\n2\n", 0), (2..9, "1\n6\n7\n8\n", 1)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        append(&path, "T stdout F 1\n");
        let mut tail = Tail::open(&path, None).unwrap();
        let mut err = Vec::new();
        let mut slow = Rotating(&path, Vec::new(), rotations);
        tail.pump(&mut Printer::new(&mut slow, &mut err, false)).unwrap();
        assert_eq!((String::from_utf8(slow.1).unwrap().as_str(), tail.gaps()), (printed, gaps));
        assert_eq!(!err.is_empty(), gaps > 0);
    }
}

#[test]
fn rotated_files_are_one_log_with_the_current_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    for lines in ["T stdout F a\nT stdout F b\n", "T stdout F c\n", "T stdout F d\n"] {
        if path.is_file() {
            rotate(&path, 9);
        }
        append(&path, lines);
    }
    assert_eq!(pumped(&mut Tail::open(&path, None).unwrap()), "a\nb\nc\nd\n");
    for (count, text) in [(0, ""), (1, "d\n"), (2, "c\nd\n"), (3, "b\nc\nd\n")] {
        let last = Some(Last { count, before_ns: None });
        assert_eq!(pumped(&mut Tail::open(&path, last).unwrap()), text, "{count}");
    }
}

#[test]
fn what_somebody_put_in_its_place_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    Tail::open(&path, None).unwrap_err();
    fs::remove_file(&path).unwrap();
    // A fifo would block until a writer opens it.
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    Tail::open(&path, None).unwrap_err();
}

#[tokio::test]
async fn a_watch_wakes_for_writes_and_for_new_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let mut watch = Watch::beside(&path).unwrap();
    append(&path, "");
    watch.changed().await;
    append(&path, "x");
    watch.changed().await;
}
