// SPDX-License-Identifier: Apache-2.0
//! Copies the content of an entry.

use super::entry::Entry;
use super::error::{Error, shown};
use crate::digest::Hasher;
use hull_sys as sys;
use std::fs::File;
use std::io::{Read, Write as _};

/// Copies `size` bytes of an entry into its file, and hashes them.
pub(super) fn copy(
    buffer: &mut [u8],
    entry: &Entry,
    file: &mut File,
    data: &mut impl Read,
    size: u64,
    hasher: &mut Hasher,
) -> Result<u64, Error> {
    let mut left = size;
    while left > 0 {
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = data.read(&mut buffer[..want]).map_err(Error::of_read)?;
        if got == 0 {
            let at = entry.offset.saturating_add(size - left);
            let why = format!("it ends within entry `{}`", shown(&entry.path));
            return Err(Error::Malformed { at, why });
        }
        hasher.update(&buffer[..got]);
        file.write_all(&buffer[..got])
            .map_err(sys::Error::of_io(|| format!("write({got} bytes)")))
            .map_err(|source| Error::Make { entry: shown(&entry.path), source })?;
        left -= got as u64;
    }
    Ok(size)
}
