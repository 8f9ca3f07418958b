// SPDX-License-Identifier: Apache-2.0
//! Reading and writing the small files of cgroup directories.

use crate::Error;
use crate::error::{is, libc_errno};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// Largest counter file that is read, in bytes. `memory.stat` has about 2 KiB.
const BYTES_MAX: u64 = 64 << 10;

pub(crate) fn write(dir: &Path, file: &str, value: &str) -> Result<(), Error> {
    let path = dir.join(file);
    File::options()
        .write(true)
        .open(&path)
        .and_then(|mut opened| opened.write_all(value.as_bytes()))
        .map_err(|source| Error::Write { path, value: value.to_owned(), source })
}

/// As [`write`], but says whether the file is there at all.
pub(crate) fn write_if_there(dir: &Path, file: &str, value: &str) -> Result<bool, Error> {
    match write(dir, file, value) {
        Ok(()) => Ok(true),
        Err(Error::Write { source, .. }) if is(&source, libc_errno::ENOENT) => Ok(false),
        Err(err) => Err(err),
    }
}

pub(crate) fn read(dir: &Path, file: &str) -> Result<String, Error> {
    let path = dir.join(file);
    read_path(&path).map_err(|source| Error::Read { path, source })
}

/// `None` where the kernel has no such file.
pub(crate) fn read_if_there(dir: &Path, file: &str) -> Result<Option<String>, Error> {
    let path = dir.join(file);
    match read_path(&path) {
        Ok(text) => Ok(Some(text)),
        Err(err) if is(&err, libc_errno::ENOENT) || is(&err, libc_errno::EOPNOTSUPP) => Ok(None),
        Err(source) => Err(Error::Read { path, source }),
    }
}

fn read_path(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// A number, or `None` for `max`.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of `key` in lines of `key value`.
pub(crate) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

pub(crate) fn mkdir(path: &Path) -> Result<bool, Error> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(Error::Make { path: path.to_owned(), source }),
    }
}
