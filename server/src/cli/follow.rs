// SPDX-License-Identifier: Apache-2.0
//! Follows a log file while it grows and is rotated.
//!
//! In a rotation, the kubelet renames the file and requests a reopen; a new file appears under the old
//! name, and the monitor continues there. In between, the old file may still grow. So the old file stays
//! open until the new one has content, and is read to its end first: nothing is lost or out of order. A
//! file that is truncated in place is read again from its start.
//!
//! Where the monitor itself rotates, `0.log` becomes `0.log.1`, and so on, and that may happen more than once between
//! two reads. So the file that follows is searched by the place of the one before: it is one number below. All of these
//! files are one log, from the oldest on.

use super::error::{Error, Result};
use super::logline::{Printer, parse};
use hull_sys::time::rfc3339;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use tokio::sync::watch;

/// Size of one read, in bytes.
const CHUNK: usize = 64 << 10;
/// Longest line of a log, in bytes; a longer one is not from a monitor, and is printed in pieces.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Most rotated files that are looked for.
const ROTATED_MAX: usize = 1000;
/// The operation of an error of our own output.
const PRINT: &str = "print the log";
/// Said where a file is gone before it was read.
const GAP: &str = "output of the log was rotated away before it was read; lines before the next one are missing";

/// An open log and the position in it.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    /// `None` until the file exists.
    file: Option<File>,
    /// An incomplete line at the end of the file.
    pending: Vec<u8>,
    /// How often files were rotated away before they were read.
    gaps: usize,
}

/// What comes after a file.
#[derive(Debug)]
enum Successor {
    /// Nothing, so far.
    None,
    Next(File),
    /// The file is gone, and so may be others that followed it: this is the oldest that is there.
    AfterGap(File),
}

/// The last lines of a log, or of what is in it before a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Last {
    pub(crate) count: usize,
    pub(crate) before_ns: Option<i64>,
}

impl Tail {
    /// Opens a log at its beginning, or at its last lines. The file need not exist yet.
    pub(crate) fn open(path: &Path, last: Option<Last>) -> Result<Self> {
        let mut tail = Self { path: path.to_owned(), file: None, pending: Vec::new(), gaps: 0 };
        let failed = || Error::io(format!("read {}", path.display()));
        let mut wanted = last;
        for number in 0..=ROTATED_MAX {
            let mut file = match tail.open_numbered(number) {
                Ok(Some(file)) => file,
                // In the midst of a rotation.
                Ok(None) if number == 0 => continue,
                Err(err) if number == 0 => return Err(err),
                // Only a regular file is a part of the log.
                Ok(None) | Err(_) => break,
            };
            if let Some(last) = &mut wanted {
                let (at, found) = start_of_last(&mut file, *last).map_err(failed())?;
                file.seek(SeekFrom::Start(at)).map_err(failed())?;
                last.count = last.count.saturating_sub(found);
            }
            tail.file = Some(file);
            if wanted.is_some_and(|last| last.count == 0) {
                break;
            }
        }
        Ok(tail)
    }

    /// Prints new lines since the last call, across rotations.
    pub(crate) fn pump<O: Write, E: Write>(&mut self, to: &mut Printer<O, E>) -> Result<()> {
        loop {
            // Before what may take long, where our output is a pipe: an open file stays when it is rotated away.
            let held = self.replaced()?;
            self.read_on(to)?;
            let next = match held {
                Successor::Next(next) => Successor::Next(next),
                Successor::None | Successor::AfterGap(_) => self.replaced()?,
            };
            let (next, has_gap) = match next {
                Successor::None => break,
                Successor::Next(next) => (next, false),
                Successor::AfterGap(next) => (next, true),
            };
            // The monitor may have written to the old file until it opened the new one.
            self.read_on(to)?;
            self.file = Some(next);
            if has_gap {
                self.tell_gap(to)?;
            }
        }
        to.flush().map_err(Error::io(PRINT))
    }

    /// How often output was rotated away before it was read.
    pub(crate) fn gaps(&self) -> usize {
        self.gaps
    }

    /// Says where output is missing.
    fn tell_gap<O: Write, E: Write>(&mut self, to: &mut Printer<O, E>) -> Result<()> {
        self.gaps += 1;
        if !self.pending.is_empty() {
            to.line(&std::mem::take(&mut self.pending)).map_err(Error::io(PRINT))?;
        }
        to.notice(GAP).map_err(Error::io(PRINT))
    }

    /// Prints a last incomplete line.
    pub(crate) fn finish<O: Write, E: Write>(&mut self, to: &mut Printer<O, E>) -> Result<()> {
        self.pump(to)?;
        if !self.pending.is_empty() {
            to.line(&std::mem::take(&mut self.pending)).map_err(Error::io(PRINT))?;
        }
        to.flush().map_err(Error::io(PRINT))
    }

    /// The path of the current file, or of an older one by its number.
    fn numbered(&self, number: usize) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }

    fn open_numbered(&self, number: usize) -> Result<Option<File>> {
        let path = self.numbered(number);
        // Others may write to the directory: only a regular file is accepted.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        match opened.map(File::from).map_err(io::Error::from) {
            Ok(file) if file.metadata().is_ok_and(|of| of.is_file()) => Ok(Some(file)),
            Ok(_) => {
                let refused = io::Error::other("it is not a regular file");
                Err(Error::io(format!("open log {}", path.display()))(refused))
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io(format!("open log {}", path.display()))(source)),
        }
    }

    /// The number of a file, 0 if it is the current one; `None` if it has none.
    fn number_of(&self, file: &File) -> Result<Option<usize>> {
        let failed = || Error::io(format!("read the state of log {}", self.path.display()));
        let here = file.metadata().map_err(failed())?;
        for number in 0..=ROTATED_MAX {
            match std::fs::symlink_metadata(self.numbered(number)) {
                Ok(there) if (here.dev(), here.ino()) == (there.dev(), there.ino()) => {
                    return Ok(Some(number));
                }
                Ok(_) => {}
                // In the midst of a rotation, a number may be missing.
                Err(err) if err.kind() == io::ErrorKind::NotFound && number < 2 => {}
                Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(failed()(source)),
            }
        }
        Ok(None)
    }

    /// The file that follows in a rotation, as soon as it has content.
    fn replaced(&self) -> Result<Successor> {
        let Some(file) = &self.file else {
            return Ok(self.open_numbered(0)?.map_or(Successor::None, Successor::Next));
        };
        let failed = || Error::io(format!("read the state of log {}", self.path.display()));
        loop {
            let number = self.number_of(file)?;
            if number == Some(0) {
                return Ok(Successor::None);
            }
            let is_gone = number.is_none() && file.metadata().map_err(failed())?.nlink() == 0;
            // A kubelet gives the old file a name of its own.
            let follows = match number {
                Some(number) => number - 1,
                None if is_gone => self.oldest(),
                None => 0,
            };
            let Some(next) = self.open_numbered(follows)? else { return Ok(Successor::None) };
            // Rotated meanwhile, so what was opened may not be what follows.
            if self.number_of(file)? == number {
                let has_content = next.metadata().map_err(failed())?.len() > 0;
                return Ok(match (has_content, is_gone) {
                    (false, _) => Successor::None,
                    (true, false) => Successor::Next(next),
                    (true, true) => Successor::AfterGap(next),
                });
            }
        }
    }

    /// The number of the oldest file.
    fn oldest(&self) -> usize {
        let is_there = |number: &usize| std::fs::symlink_metadata(self.numbered(*number)).is_ok();
        (1..=ROTATED_MAX).take_while(is_there).last().unwrap_or(0)
    }

    fn read_on<O: Write, E: Write>(&mut self, to: &mut Printer<O, E>) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let failed = || Error::io(format!("read log {}", self.path.display()));
        let len = file.metadata().map_err(failed())?.len();
        if file.stream_position().map_err(failed())? > len {
            file.rewind().map_err(failed())?;
            self.pending.clear();
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk).map_err(failed())?;
            if read == 0 {
                return Ok(());
            }
            let mut rest = &chunk[..read];
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                if self.pending.is_empty() {
                    to.line(&rest[..end]).map_err(Error::io(PRINT))?;
                } else {
                    self.pending.extend_from_slice(&rest[..end]);
                    to.line(&self.pending).map_err(Error::io(PRINT))?;
                    self.pending.clear();
                }
                rest = &rest[end + 1..];
            }
            self.pending.extend_from_slice(rest);
            if self.pending.len() > LINE_BYTES_MAX {
                to.line(&std::mem::take(&mut self.pending)).map_err(Error::io(PRINT))?;
            }
        }
    }
}

/// The position of the last lines, and how many there are; the parts of a line count as one.
fn start_of_last(file: &mut File, last: Last) -> io::Result<(u64, usize)> {
    let Last { count, before_ns } = last;
    let before = before_ns.map(rfc3339);
    let mut starts: VecDeque<u64> = VecDeque::new();
    let (mut at, mut fresh) = (0_u64, true);
    let mut line = Vec::new();
    let mut reader = BufReader::with_capacity(CHUNK, &mut *file);
    loop {
        line.clear();
        // The rest of a line beyond the limit counts as another line.
        let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let read = (&mut reader).take(most).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let parsed = parse(text);
        let is_later = |before: &[u8]| parsed.is_some_and(|line| line.time >= before);
        if before.as_ref().is_some_and(|before| is_later(before)) {
            break;
        }
        if fresh {
            starts.push_back(at);
            if starts.len() > count {
                starts.pop_front();
            }
        }
        fresh = !parsed.is_some_and(|line| line.partial);
        at += u64::try_from(read).unwrap_or(0);
    }
    let found = starts.len();
    Ok(if count == 0 { (at, 0) } else { (starts.front().copied().unwrap_or(0), found) })
}

/// Notices changes in a directory, by inotify.
#[derive(Debug)]
pub(crate) struct Watch {
    changes: watch::Receiver<()>,
}

impl Watch {
    /// Watches the directory of `path`.
    pub(crate) fn beside(path: &Path) -> Result<Self> {
        let failed = |source| Error::Kernel { operation: "watch the directory of the log", source };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let fd = inotify::init(CreateFlags::CLOEXEC).map_err(failed)?;
        // Not the file itself: a rotation replaces it.
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, directory, flags).map_err(failed)?;
        let (changed, changes) = watch::channel(());
        let thread = thread::Builder::new().name("watch".into());
        thread.spawn(move || report_changes(&fd, &changed)).map_err(Error::io("start a thread"))?;
        Ok(Self { changes })
    }

    /// Resolves when a file was written, created or renamed since the last call.
    pub(crate) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The directory was removed, so no more changes follow.
            std::future::pending::<()>().await;
        }
    }
}

/// Reads events until the directory was removed or the receiver closed. Consecutive events are reported as
/// one change: the reader finds out itself what is new.
fn report_changes(fd: &OwnedFd, changed: &watch::Sender<()>) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(fd, &mut buffer);
    loop {
        match events.next() {
            Ok(event) if event.events().contains(ReadFlags::IGNORED) => return,
            Ok(_) if changed.is_closed() => return,
            Ok(_) => {
                changed.send_replace(());
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
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
        for (last, text) in
            [(0, ""), (1, "d\n"), (2, "bc\nd\n"), (3, "a\nbc\nd\n"), (9, "a\nbc\nd\n")]
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
        // The file that is read was removed meanwhile.
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
    fn what_is_rotated_away_while_its_reader_is_slow_is_told() {
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
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .unwrap();
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
}
