// SPDX-License-Identifier: Apache-2.0
//! A tmpfs gets from the image what its mount point has: the mode, and with `tmpcopyup` the files.

use crate::copy_up;
use crate::mount::{Result, errno_context};
use crate::rootfs::Root;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// The options of a file system; a tmpfs without a mode has that of the directory it is mounted on.
pub(crate) fn with_mode(
    root: &Root,
    fstype: &str,
    target: &str,
    options: &[(String, Option<String>)],
) -> Result<Vec<(String, Option<String>)>> {
    let mut options = options.to_vec();
    let has_mode = options.iter().any(|(key, _)| key == "mode");
    if fstype == "tmpfs"
        && !has_mode
        && let Ok(found) = root.open(target, OFlags::PATH | OFlags::DIRECTORY)
    {
        let stat = rustix::fs::fstat(&found);
        let mode = stat.map_err(errno_context(format!("fstat({target})")))?.st_mode & 0o7777;
        options.push(("mode".to_owned(), Some(format!("{mode:o}"))));
    }
    Ok(options)
}

/// Fills a new file system with the content of the directory `target`, if there is one.
pub(crate) fn fill(root: &Root, target: &str, mount: &OwnedFd) -> Result {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let found = match root.open(target, flags) {
        Err(Errno::NOENT) => return Ok(()),
        found => found.map_err(errno_context(format!("openat2({target})")))?,
    };
    let top = rustix::fs::openat(mount, ".", flags | OFlags::CLOEXEC, Mode::empty());
    let top = top.map_err(errno_context(format!("open(the file system of {target})")))?;
    copy_up::copy(&found, &top).map_err(errno_context(format!("tmpcopyup({target})")))
}
