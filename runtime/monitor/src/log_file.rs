// SPDX-License-Identifier: Apache-2.0
//! The file of a log. What cannot be written (disk full) is dropped and counted: the container never blocks on its log.

use rustix::io::{Errno, write};
use std::os::fd::OwnedFd;

/// Output that is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Bytes of log that are lost so far.
    pub bytes: u64,
    /// The error of the last write that failed.
    pub errno: Errno,
}

/// A file for lines.
#[derive(Debug, Default)]
pub(crate) struct LogFile {
    file: Option<OwnedFd>,
    /// Output that could not be written.
    lost: Option<Lost>,
    /// The last batch was not all written.
    failing: bool,
    /// The last line in the file was cut off by an error.
    torn: bool,
}

impl LogFile {
    /// Without a file, everything is dropped and nothing counted.
    pub(crate) fn new(file: Option<OwnedFd>) -> Self {
        Self { file, ..Self::default() }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.file.is_none()
    }

    /// Goes on in another file.
    pub(crate) fn open(&mut self, file: OwnedFd) {
        self.file = Some(file);
        self.torn = false;
    }

    /// Its size in bytes; 0 if that is not known.
    pub(crate) fn size(&self) -> u64 {
        let stat = self.file.as_ref().and_then(|file| rustix::fs::fstat(file).ok());
        stat.and_then(|stat| u64::try_from(stat.st_size).ok()).unwrap_or(0)
    }

    pub(crate) fn lost(&self) -> Option<Lost> {
        self.lost
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failing
    }

    /// Writes lines. Returns how many bytes of them are in the file.
    pub(crate) fn write(&mut self, text: &[u8]) -> u64 {
        // The line that was cut off stays the only bad one.
        let repaired = if self.torn { self.append(b"\n") } else { Ok(()) };
        let written = match repaired {
            Ok(()) => {
                self.torn = false;
                self.append(text)
            }
            Err((_, errno)) => Err((0, errno)),
        };
        self.failing = false;
        let mut done = text.len();
        if let Err((written, errno)) = written {
            self.torn |= text[..written].last().is_some_and(|byte| *byte != b'\n');
            let before = self.lost.map_or(0, |lost| lost.bytes);
            let bytes = before + u64::try_from(text.len() - written).unwrap_or(0);
            self.lost = Some(Lost { bytes, errno });
            self.failing = true;
            done = written;
        }
        u64::try_from(done).unwrap_or(0)
    }

    /// Writes all bytes, or until an error: returns it with the number of bytes written.
    fn append(&self, text: &[u8]) -> Result<(), (usize, Errno)> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut done = 0;
        while done < text.len() {
            match write(file, &text[done..]) {
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(errno) => return Err((done, errno)),
            }
        }
        Ok(())
    }
}
