// SPDX-License-Identifier: Apache-2.0
//! Where an archive waits that is to be imported: a file without a name, on the disk of the layers.
//!
//! The rule: it takes no more than an archive may inflate to (`archive_bytes_max`), and is gone when
//! nobody has it open.

use super::{Error, Inner, Store};
use hull_sys as sys;
use std::fs::File;
use std::io::{self, Write};

/// An archive on its way in.
#[derive(Debug)]
pub struct Spool {
    file: File,
    max: u64,
    taken: u64,
}

impl Store {
    /// A nameless file beside the layers, for an archive that is to be imported.
    pub fn spool(&self) -> Result<Spool, Error> {
        self.check_writable()?;
        let root = &self.inner.config.root;
        let file =
            self.inner.spool().map_err(|source| Error::Open { path: root.clone(), source })?;
        Ok(Spool { file, max: self.inner.config.limits.archive_bytes, taken: 0 })
    }
}

impl Inner {
    pub(super) fn spool(&self) -> sys::Result<File> {
        use rustix::fs::{Mode, OFlags, open};
        let path = self.path("tmp");
        open(&path, OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(sys::Error::of(|| format!("open({}, TMPFILE)", path.display())))
    }
}

impl Write for Spool {
    /// What would be more than the limit fails with [`io::ErrorKind::FileTooLarge`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { max, taken, .. } = self;
        if *taken + bytes.len() as u64 > *max {
            let why = format!(
                "the archive has more than the {max} bytes that are allowed: `archive_bytes_max` under `[image]`"
            );
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        let written = self.file.write(bytes)?;
        self.taken += written as u64;
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
