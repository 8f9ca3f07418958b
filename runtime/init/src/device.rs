// SPDX-License-Identifier: Apache-2.0
//! Device nodes, links and directories in a container's root.
//!
//! The rule: a node that is there is looked at, given its owner and its mode by one descriptor that
//! follows nothing, and only on a mount that is the container's own. On a volume nothing is created and
//! nothing is changed: a node that exists there must be the requested one.

use crate::ids::{group, user};
use crate::mount::{Result, clone_tree, errno_context};
use crate::places::{Places, is_strict};
use crate::plan::Op;
use crate::rootfs::{Make, Root, kind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, OwnedFd};

/// Makes the node of an [`Op::Device`].
pub(crate) fn make(root: &Root, places: &Places, op: &Op) -> Result {
    let Op::Device { path, block, fifo, major, minor, mode, uid, gid } = op else {
        return Ok(());
    };
    let kind_asked = match (fifo, block) {
        (true, _) => FileType::Fifo,
        (false, true) => FileType::BlockDevice,
        (false, false) => FileType::CharacterDevice,
    };
    let asked = if *fifo { (kind_asked, 0, 0) } else { (kind_asked, *major, *minor) };
    let (parent, name) = parent(root, places, path)?;
    let is_own = places.owns(parent.as_fd())?;
    let mode = Mode::from_raw_mode(*mode);
    if is_own {
        let umask = rustix::process::umask(Mode::empty());
        let number = if *fifo { 0 } else { rustix::fs::makedev(*major, *minor) };
        let made = rustix::fs::mknodat(&parent, name, kind_asked, mode, number);
        rustix::process::umask(umask);
        match made {
            // The image may have it: it only has to be the requested one.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno_context(format!("mknodat({path})"))(errno)),
        }
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) if !is_own => {
            let call = format!("mknodat({path}): its directory is a volume");
            return Err(errno_context(call)(Errno::XDEV));
        }
        other => other.map_err(errno_context(format!("open({path})")))?,
    };
    let (kind_found, found_major, found_minor) =
        kind(node.as_fd()).map_err(errno_context(format!("statx({path})")))?;
    let found = if *fifo { (kind_found, 0, 0) } else { (kind_found, found_major, found_minor) };
    if found != asked {
        return Err(errno_context(format!("mknodat({path})"))(Errno::EXIST));
    }
    if !is_own || !places.owns(node.as_fd())? {
        return Ok(());
    }
    let (uid, gid) = user(*uid)
        .zip(group(*gid))
        .ok_or_else(|| errno_context(format!("fchownat({path}, {uid}, {gid})"))(Errno::INVAL))?;
    rustix::fs::chownat(&node, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        .map_err(errno_context(format!("fchownat({path})")))?;
    Ok(hull_sys::chmod_by_descriptor(node.as_fd(), mode)?)
}

/// A view of the host's node of that device, which must be at the same path there.
pub(crate) fn of_host(op: &Op) -> Result<OwnedFd> {
    let Op::Device { path, block, fifo: false, major, minor, mode, uid: 0, gid: 0 } = op else {
        return Err(errno_context("mknodat()")(Errno::PERM));
    };
    let node = clone_tree(path, false)?;
    let wanted = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let found = kind(node.as_fd()).map_err(errno_context(format!("statx({path})")))?;
    let stat = rustix::fs::fstat(&node).map_err(errno_context(format!("fstat({path})")))?;
    if found == (wanted, *major, *minor) && stat.st_mode & 0o7777 == *mode {
        return Ok(node);
    }
    Err(errno_context(format!(
        "open_tree({path}): the host has another device there, or another mode"
    ))(Errno::NODEV))
}

/// Makes a directory with its parents, where it is missing.
pub(crate) fn directory(root: &Root, path: &str, mode: u32) -> Result {
    let found = root.find_or_make(path, Make::Directory, mode);
    let found = found.map_err(errno_context(format!("mkdir({path})")))?;
    match kind(found.as_fd()).map_err(errno_context(format!("statx({path})")))? {
        (FileType::Directory, ..) => Ok(()),
        _ => Err(errno_context(format!("mkdir({path})"))(Errno::NOTDIR)),
    }
}

/// Makes a symbolic link. One that is there with the same content is fine.
pub(crate) fn symlink(root: &Root, places: &Places, content: &str, path: &str) -> Result {
    let (parent, name) = parent(root, places, path)?;
    let is_own = places.owns(parent.as_fd())?;
    let made =
        if is_own { rustix::fs::symlinkat(content, &parent, name) } else { Err(Errno::EXIST) };
    match made {
        Err(Errno::EXIST) => match rustix::fs::readlinkat(&parent, name, Vec::new()) {
            Ok(have) if have.as_bytes() == content.as_bytes() => Ok(()),
            Err(Errno::NOENT) => {
                let call = format!("symlinkat({path}): its directory is a volume");
                Err(errno_context(call)(Errno::XDEV))
            }
            _ => Err(errno_context(format!("symlinkat({path})"))(Errno::EXIST)),
        },
        other => other.map_err(errno_context(format!("symlinkat({content}, {path})"))),
    }
}

/// The directory of `path`, made where missing, and the last part's name.
fn parent<'a>(root: &Root, places: &Places, path: &'a str) -> Result<(OwnedFd, &'a str)> {
    let failed = || errno_context(format!("make(parent of {path})"));
    match path.rsplit_once('/') {
        Some((parent, name)) if is_strict(parent) && !matches!(name, "" | "." | "..") => {
            Ok((places.place(root, parent, Make::Directory, false)?, name))
        }
        _ => root.parent_of(path).map_err(failed()),
    }
}
