// SPDX-License-Identifier: Apache-2.0
//! Reads files of an image without a container: its layers as one read-only tree behind a descriptor.
//!
//! The rule: the tree is never attached to the host's mounts, so it is gone when the descriptor is,
//! even if hull is killed; and no path inside can lead outside of it.

use crate::error::{Error, NAME_MAX, shown};
use crate::fs::files;
use hull_sys as sys;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Longest string that `fsconfig(2)` takes.
const OPTION_BYTES_MAX: usize = 255;

/// Stacks `layers`, topmost first, read-only. One layer is opened as it is.
///
/// `fsopen(2)` and `fsmount(2)`, Linux 5.2, of overlay. Many layers need `lowerdir+`, Linux 6.5.
pub fn view(layers: &[PathBuf]) -> Result<OwnedFd, Error> {
    stack(layers).map_err(|source| Error::View { layers: layers.len(), source })
}

pub(crate) fn stack(layers: &[PathBuf]) -> sys::Result<OwnedFd> {
    match layers {
        [] => Err(sys::Error::new(Errno::INVAL, "fsmount(overlay of no layers)")),
        [layer] => files::open_dir(layer),
        _ => match with_each(layers) {
            // Older kernels do not know `lowerdir+`.
            Err(err) if err.errno() == Errno::INVAL => with_one_option(layers).map_err(|_| err),
            other => other,
        },
    }
}

fn with_each(layers: &[PathBuf]) -> sys::Result<OwnedFd> {
    let overlay = new_overlay()?;
    for layer in layers {
        fsconfig_set_string(&overlay, "lowerdir+", layer.as_path()).map_err(sys::Error::of(
            || format!("fsconfig(overlay, lowerdir+, {})", layer.display()),
        ))?;
    }
    finish(&overlay)
}

/// All layers in one option, under short names so that they fit.
fn with_one_option(layers: &[PathBuf]) -> sys::Result<OwnedFd> {
    let open: sys::Result<Vec<OwnedFd>> =
        layers.iter().map(|layer| files::open_dir(layer)).collect();
    let open = open?;
    let names: Vec<String> =
        open.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let option = names.join(":");
    if option.len() > OPTION_BYTES_MAX {
        return Err(sys::Error::new(Errno::NAMETOOLONG, "fsconfig(overlay, lowerdir)"));
    }
    let overlay = new_overlay()?;
    fsconfig_set_string(&overlay, "lowerdir", option.as_str())
        .map_err(sys::Error::of(|| format!("fsconfig(overlay, lowerdir, {option})")))?;
    finish(&overlay)
}

fn new_overlay() -> sys::Result<OwnedFd> {
    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(sys::Error::of(|| "fsopen(overlay)"))
}

fn finish(overlay: &OwnedFd) -> sys::Result<OwnedFd> {
    fsconfig_create(overlay).map_err(sys::Error::of(|| "fsconfig(overlay, CMD_CREATE)"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(overlay, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(sys::Error::of(|| "fsmount(overlay, RDONLY|NODEV|NOSUID|NOEXEC)"))
}

/// The type of a file in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The path is a directory.
    Directory,
    /// A regular file.
    File,
    /// A device, fifo or socket.
    Other,
}

/// The type of `path` in a view, with links resolved inside. `None` if it does not exist.
pub fn kind_inside(view: BorrowedFd<'_>, path: &str) -> Result<Option<Kind>, Error> {
    let kind = || -> sys::Result<Option<Kind>> {
        let Some(found) = find(view, path)? else { return Ok(None) };
        let stat = fstat(&found)
            .map_err(sys::Error::of(|| format!("fstat({})", shown(path, NAME_MAX))))?;
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Kind::Other,
        }))
    };
    kind().map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Opened without any effect: opening a device or a fifo for reading may have one.
fn find(view: BorrowedFd<'_>, path: &str) -> sys::Result<Option<OwnedFd>> {
    match sys::open_in_root(view, path, OFlags::PATH, ResolveFlags::empty()) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(None),
        Err(errno) => {
            Err(sys::Error::new(errno, format!("openat2({}, IN_ROOT)", shown(path, NAME_MAX))))
        }
    }
}

/// Reads at most `max_bytes` of the file `path` of a view, links resolved inside. `None` if there is
/// no such file, or it is something else than a regular one.
pub fn read_inside(
    view: BorrowedFd<'_>,
    path: &str,
    max_bytes: usize,
) -> Result<Option<Vec<u8>>, Error> {
    read(view, path, max_bytes).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn read(view: BorrowedFd<'_>, path: &str, max_bytes: usize) -> sys::Result<Option<Vec<u8>>> {
    let Some(found) = find(view, path)? else { return Ok(None) };
    let stat =
        fstat(&found).map_err(sys::Error::of(|| format!("fstat({})", shown(path, NAME_MAX))))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let again = format!("/proc/self/fd/{}", found.as_raw_fd());
    let file = open(&again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(sys::Error::of(|| format!("open({again} of {})", shown(path, NAME_MAX))))?;
    let mut bytes = Vec::new();
    File::from(file)
        .take(max_bytes as u64)
        .read_to_end(&mut bytes)
        .map_err(sys::Error::of_io(|| format!("read({})", shown(path, NAME_MAX))))?;
    Ok(Some(bytes))
}
