// SPDX-License-Identifier: Apache-2.0
//! Files of the node's drivers and administrators, read with limits.

use rustix::fs::OFlags;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens a regular file.
pub(crate) fn open(path: &Path) -> Result<File, String> {
    // A FIFO without a writer would keep every container from being created.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|err| err.to_string())?;
    if !file.metadata().is_ok_and(|of| of.is_file()) {
        return Err("it is not a regular file".into());
    }
    Ok(file)
}

/// The text of a file with at most so many bytes.
pub(crate) fn read(file: File, bytes_max: u64) -> Result<String, String> {
    let mut text = String::new();
    let read = file.take(bytes_max + 1).read_to_string(&mut text);
    read.map_err(|err| err.to_string())?;
    if text.len() as u64 > bytes_max {
        return Err(format!("it has more than {} MiB", bytes_max >> 20));
    }
    Ok(text)
}
