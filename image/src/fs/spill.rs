// SPDX-License-Identifier: Apache-2.0
//! A list of names that is too long for memory, in an unnamed file that is freed when it is closed.

use super::files;
use hull_sys::{Error, Result};
use rustix::fs::{AtFlags, Mode, OFlags, fstat, futimens, openat, unlinkat};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

/// Byte strings, each found by its offset.
#[derive(Debug)]
pub(crate) struct Spill {
    file: File,
    end: u64,
}

impl Spill {
    /// An empty list, on the file system of `dir`, whose times do not change.
    pub(crate) fn new(dir: BorrowedFd<'_>) -> Result<Self> {
        let failed = |call: &'static str| Error::of(move || format!("{call}(a list of names)"));
        let name = CString::new(format!(".{}", files::unique("names")))
            .map_err(|_| Error::new(rustix::io::Errno::INVAL, "openat(a name with NUL)"))?;
        let before = fstat(dir).map_err(failed("fstat"))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(dir, &name, flags, Mode::RUSR | Mode::WUSR).map_err(failed("openat"))?;
        unlinkat(dir, &name, AtFlags::empty()).map_err(failed("unlinkat"))?;
        futimens(dir, &files::modified(&before)).map_err(failed("futimens"))?;
        Ok(Self { file: File::from(file), end: 0 })
    }

    /// The offset of the next string.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Appends strings, and returns the offset of the first.
    pub(crate) fn push(&mut self, all: &[&[u8]]) -> io::Result<u64> {
        let mut bytes = Vec::new();
        for one in all {
            let length = u32::try_from(one.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(one);
        }
        self.file.write_all_at(&bytes, self.end)?;
        let at = self.end;
        self.end += bytes.len() as u64;
        Ok(at)
    }

    /// The string at an offset, and the offset of the next.
    pub(crate) fn get(&self, at: u64) -> io::Result<(Vec<u8>, u64)> {
        const LENGTH_BYTES: u64 = 4;
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, at)?;
        let length = u32::from_le_bytes(length);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, at + LENGTH_BYTES)?;
        Ok((bytes, at + LENGTH_BYTES + u64::from(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn what_was_added_is_found_at_its_place_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let open = files::open_dir(dir.path()).unwrap();
        let before = std::fs::metadata(dir.path()).unwrap().modified().unwrap();
        let mut spill = Spill::new(open.as_fd()).unwrap();
        let first = spill.push(&[b"one", b""]).unwrap();
        let second = spill.push(&[&[7; 5000]]).unwrap();
        let (one, next) = spill.get(first).unwrap();
        assert_eq!((one.as_slice(), spill.get(next).unwrap()), (&b"one"[..], (vec![], second)));
        assert_eq!(spill.get(second).unwrap(), (vec![7; 5000], spill.end()));
        assert!(spill.get(spill.end()).is_err());
        assert!(files::names(dir.path()).unwrap().is_empty());
        assert_eq!(std::fs::metadata(dir.path()).unwrap().modified().unwrap(), before);
    }
}
