// SPDX-License-Identifier: Apache-2.0
//! Replaces a file as a whole.

use crate::location::Location;
use hull_sys::{Error, Result};
use rustix::fs::fsync;
use std::fs::File;
use std::io::Write as _;

/// The mode of files that only their owner reads.
pub const PRIVATE: u32 = 0o600;

/// The failures that a replaced file survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, at any time. For files on a tmpfs such as /run, which loses everything in a power
    /// cut anyway.
    Process,
    /// A power cut as well: the file is synced before the rename, and its directory after it.
    PowerCut,
}

/// Replaces a file as a whole: writes `scratch` with the mode `mode` minus the umask, and renames it. `scratch` must
/// be on the same file system, and used by nobody else; what lies there is removed first. After a failure the
/// file is the old one, and `scratch` is removed. If only the sync of the directory failed, the file is the new one,
/// but may be the old one after a power cut.
///
/// # Errors
/// The system call that failed.
pub fn replace(
    file: Location<'_>,
    scratch: Location<'_>,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> Result<()> {
    let written = || {
        scratch.remove()?;
        let written = write_new(scratch, bytes, mode)?;
        if durability == Durability::PowerCut {
            sync(&written, scratch)?;
        }
        scratch.rename_to(&file)
    };
    if let Err(err) = written() {
        // Half of a file only takes space that others lack. If this fails too, the next write or start removes it.
        let _left = scratch.remove();
        return Err(err);
    }
    match durability {
        Durability::Process => Ok(()),
        Durability::PowerCut => file.sync_names(),
    }
}

/// Writes a file that does not exist yet, with the mode `mode` minus the umask.
///
/// # Errors
/// The system call that failed: EEXIST if there is such a file. A part of the file may be left.
pub fn write_new(file: Location<'_>, bytes: &[u8], mode: u32) -> Result<File> {
    let mut open = File::from(file.create(mode)?);
    open.write_all(bytes).map_err(Error::of_io(|| format!("write({file})")))?;
    Ok(open)
}

/// Syncs a file that was opened at `location`.
///
/// # Errors
/// The system call that failed.
pub fn sync(file: &File, location: Location<'_>) -> Result<()> {
    fsync(file).map_err(Error::of(|| format!("fsync({location})")))
}
