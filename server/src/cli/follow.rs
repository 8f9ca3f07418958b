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
/// Printed where a file is gone before it was read.
const GAP: &str =
    "output of the log was rotated away before it was read; lines before the next one are missing";

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

/// The file that comes after another.
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
                self.report_gap(to)?;
            }
        }
        to.flush().map_err(Error::io(PRINT))
    }

    /// How often output was rotated away before it was read.
    pub(crate) fn gaps(&self) -> usize {
        self.gaps
    }

    /// Prints where output is missing.
    fn report_gap<O: Write, E: Write>(&mut self, to: &mut Printer<O, E>) -> Result<()> {
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
        let mut missing = 0;
        for number in 0..=ROTATED_MAX {
            match std::fs::symlink_metadata(self.numbered(number)) {
                Ok(there) if (here.dev(), here.ino()) == (there.dev(), there.ino()) => {
                    return Ok(Some(number));
                }
                Ok(_) => missing = 0,
                // In the midst of a rotation, a number may be missing, wherever it is.
                Err(err) if err.kind() == io::ErrorKind::NotFound && missing < 2 => missing += 1,
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
            let here = file.metadata().map_err(failed())?;
            let is_gone = number.is_none() && here.nlink() == 0;
            // A kubelet gives the old file a name of its own.
            let follows = match number {
                Some(number) => number - 1,
                None if is_gone => self.oldest_since((here.mtime(), here.mtime_nsec())),
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

    /// The number of the oldest file that was written to later than at this time. Before that are those that a run with
    /// a larger `rotate_files` has left, which were printed already.
    fn oldest_since(&self, written: (i64, i64)) -> usize {
        let is_later = |number: &usize| {
            let there = std::fs::symlink_metadata(self.numbered(*number));
            there.is_ok_and(|of| (of.mtime(), of.mtime_nsec()) >= written)
        };
        (1..=ROTATED_MAX).take_while(is_later).last().unwrap_or(0)
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
mod tests;
