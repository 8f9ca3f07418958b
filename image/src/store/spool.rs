// SPDX-License-Identifier: Apache-2.0
//! Receives an archive that is to be imported, in an unnamed file on the file system of the layers.
//!
//! The rule: it is limited to the size that an archive may have uncompressed (`archive_bytes_max`), and
//! the kernel frees it when it is closed.

use std::fs::File;
use std::io::{self, Write};

/// An archive that is being received.
#[derive(Debug)]
pub struct Spool {
    file: File,
    max: u64,
    written_bytes: u64,
}

impl Spool {
    pub(super) fn new(file: File, max: u64) -> Self {
        Self { file, max, written_bytes: 0 }
    }
}

impl Write for Spool {
    /// Writing more than the limit fails with [`io::ErrorKind::FileTooLarge`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { max, written_bytes, .. } = self;
        if *written_bytes + bytes.len() as u64 > *max {
            let why = format!(
                "the archive has more than the {max} bytes that are allowed: `archive_bytes_max` under `[image]`"
            );
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        let written = self.file.write(bytes)?;
        self.written_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl From<Spool> for File {
    fn from(spool: Spool) -> Self {
        spool.file
    }
}
