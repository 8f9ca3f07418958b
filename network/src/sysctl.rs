// SPDX-License-Identifier: Apache-2.0
//! Settings of the network namespace of the calling thread, below /proc/sys/net.

use crate::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A setting's file. `name` may hold a link's name, which may hold dots.
pub(crate) fn path(name: &[&str]) -> PathBuf {
    Path::new("/proc/sys/net").join(name.iter().collect::<PathBuf>())
}

/// Sets it if it is not so already; tells whether it had to.
pub(crate) fn set(name: &[&str], value: &str) -> Result<bool, Error> {
    let path = path(name);
    let changed = change(&path, value);
    changed.map_err(|source| Error::Sysctl { path, value: value.to_owned(), source })
}

/// Likewise, if the kernel has such a setting.
pub(crate) fn set_if_known(name: &[&str], value: &str) -> Result<bool, Error> {
    match set(name, value) {
        Err(Error::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other,
    }
}

fn change(path: &Path, value: &str) -> io::Result<bool> {
    // Read first: on a read-only /proc/sys it is enough that somebody else has set it.
    if fs::read_to_string(path)?.trim() == value {
        return Ok(false);
    }
    fs::write(path, value).map(|()| true)
}
