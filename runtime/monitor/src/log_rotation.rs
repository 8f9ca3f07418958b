// SPDX-License-Identifier: Apache-2.0
//! Rotation of a log: `0.log` becomes `0.log.1`, that becomes `0.log.2`, and so on; the oldest file is removed.
//!
//! ```text
//! 0.log.new made ─ every file one further ─ 0.log.new becomes 0.log ─▶ the log goes on there
//!      └ fails ────────────┴ fails ──────────────────▶ the log goes on in its old file
//! ```
//!
//! Everything happens beneath the directory's descriptor, and the only file that is opened is a new one: what somebody
//! else put into the directory is renamed at most. No line is lost, whatever fails.

use hull_proto::monitor::LogRotation;
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// Longest name of a file, in bytes (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;
/// Room for what is put behind the name, in bytes.
const SUFFIX_BYTES: usize = 8;
/// Most files that are kept beside the current one.
const FILES_MAX: u32 = 1000;

/// The files of a log that is rotated.
#[derive(Debug)]
pub(crate) struct Rotation {
    dir: OwnedFd,
    name: String,
    size: u64,
    files: u32,
    /// After a failure: the size of the file at which the next attempt is due.
    again_at: Option<u64>,
}

impl Rotation {
    /// The rotation of a file of `dir`; `None` if its name is not a name of a file there.
    pub(crate) fn new(rule: LogRotation, dir: OwnedFd) -> Option<Self> {
        let LogRotation { name, size, files } = rule;
        let is_name =
            !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        if !is_name || name.len() + SUFFIX_BYTES > NAME_BYTES_MAX {
            return None;
        }
        let files = files.clamp(1, FILES_MAX);
        Some(Self { dir, name, size: size.max(1), files, again_at: None })
    }

    /// Whether a file of `size` bytes is full when so many more come.
    pub(crate) fn is_due(&self, size: u64, more: u64) -> bool {
        size > 0 && size.saturating_add(more) > self.again_at.unwrap_or(self.size)
    }

    /// Moves every file one further, and opens a new one.
    pub(crate) fn rotate(&mut self, size: u64) -> Result<OwnedFd, Errno> {
        let rotated = self.moved();
        // Not at every line: the cause is likely to stay.
        self.again_at = rotated.is_err().then(|| size.saturating_add(self.size));
        rotated
    }

    fn moved(&self) -> Result<OwnedFd, Errno> {
        let (current, next) = (self.name.as_str(), format!("{}.new", self.name));
        // Of a monitor that was killed half-way.
        match unlinkat(&self.dir, next.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.dir, next.as_str(), flags, Mode::from_raw_mode(0o640))?;
        let done = self.shift().and_then(|()| renameat(&self.dir, &next, &self.dir, current));
        if let Err(errno) = done {
            let _gone = unlinkat(&self.dir, next.as_str(), AtFlags::empty());
            return Err(errno);
        }
        Ok(file)
    }

    /// Renames the files, the oldest first.
    fn shift(&self) -> Result<(), Errno> {
        for number in (1..self.files).rev() {
            let (from, to) = (self.numbered(number), self.numbered(number + 1));
            match renameat(&self.dir, &from, &self.dir, &to) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        match renameat(&self.dir, self.name.as_str(), &self.dir, self.numbered(1)) {
            // Somebody has removed it: the lines of it that are still open are gone with it.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn numbered(&self, number: u32) -> String {
        format!("{}.{number}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::path::Path;

    fn rotation(dir: &Path, files: u32) -> Rotation {
        let rule = LogRotation { name: "0.log".into(), size: 100, files };
        Rotation::new(rule, File::open(dir).unwrap().into()).unwrap()
    }

    fn names(dir: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let mut found: Vec<_> = entries
            .map(|of| {
                let text = fs::read_to_string(of.path()).unwrap();
                (of.file_name().into_string().unwrap(), text)
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn every_file_moves_one_further_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut of = rotation(dir.path(), 2);
        fs::write(dir.path().join("0.log"), "a").unwrap();
        for text in ["b", "c", "d"] {
            let file = of.rotate(100).unwrap();
            rustix::io::write(&file, text.as_bytes()).unwrap();
        }
        let pairs = [("0.log", "d"), ("0.log.1", "c"), ("0.log.2", "b")];
        assert_eq!(names(dir.path()), pairs.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn a_failure_changes_nothing_and_is_not_repeated_at_every_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut of = rotation(dir.path(), 1);
        fs::write(dir.path().join("0.log"), "a").unwrap();
        // No file replaces a directory.
        fs::create_dir(dir.path().join("0.log.1")).unwrap();
        assert!(of.is_due(90, 20));
        let _errno = of.rotate(110).unwrap_err();
        assert!(!of.is_due(110, 20) && of.is_due(200, 20));
        assert_eq!(fs::read_to_string(dir.path().join("0.log")).unwrap(), "a");
        assert!(!dir.path().join("0.log.new").try_exists().unwrap());
        fs::remove_dir(dir.path().join("0.log.1")).unwrap();
        let _file = of.rotate(210).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("0.log.1")).unwrap(), "a");
        assert!(of.is_due(90, 20));
    }

    #[test]
    fn a_path_is_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(250);
        for name in ["", ".", "..", "a/b", "/etc/motd", "a\0b", long.as_str()] {
            let rule = LogRotation { name: name.into(), size: 1, files: 1 };
            assert!(
                Rotation::new(rule, File::open(dir.path()).unwrap().into()).is_none(),
                "{name}"
            );
        }
    }
}
