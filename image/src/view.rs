// SPDX-License-Identifier: Apache-2.0
//! Reads files of an image without a container: its layers as one read-only tree behind a descriptor.
//!
//! The rule: the tree is never attached to the host's mounts, so it is gone when the descriptor is,
//! even if hull is killed; and no path inside can lead outside of it.

use crate::error::{Error, NAME_MAX, shown};
use crate::fs::files;
use hull_sys as sys;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_change, open_tree,
};
use rustix::process::chdir;
use std::ffi::CString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

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

/// All layers in one option of `mount(2)`, which takes a page: they are named by their descriptors, from the
/// directory of descriptors, so that as many fit as overlayfs stacks. The mount is made in a namespace of its own,
/// which ends with its thread, and leaves it as a detached one.
fn with_one_option(layers: &[PathBuf]) -> sys::Result<OwnedFd> {
    let failed = sys::Error::of_io(|| "clone(a thread for an overlay)");
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("overlay".into());
        let mounting = thread.spawn_scoped(scope, || mounted_alone(layers)).map_err(failed)?;
        let panicked = || sys::Error::new(Errno::INVAL, "mount(overlay): its thread panicked");
        mounting.join().unwrap_or_else(|_| Err(panicked()))
    })
}

/// The same, for a thread that ends then: it has its own mounts and its own working directory from here on.
fn mounted_alone(layers: &[PathBuf]) -> sys::Result<OwnedFd> {
    let Some(place) = layers.first() else {
        return Err(sys::Error::new(Errno::INVAL, "mount(overlay of no layers)"));
    };
    sys::unshare(sys::flags::NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(sys::Error::of(|| "mount(/, PRIVATE|REC)"))?;
    chdir("/proc/self/fd").map_err(sys::Error::of(|| "chdir(/proc/self/fd)"))?;
    // Opened here: overlayfs takes layers of the caller's own namespace only.
    let open: sys::Result<Vec<OwnedFd>> =
        layers.iter().map(|layer| files::open_dir(layer)).collect();
    let open = open?;
    let names: Vec<String> = open.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let option = format!("lowerdir={}", names.join(":"));
    let option = CString::new(option).map_err(|_| sys::Error::new(Errno::INVAL, "mount(NUL)"))?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("overlay", place, "overlay", flags, option.as_c_str())
        .map_err(sys::Error::of(|| format!("mount(overlay, {} layers)", layers.len())))?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, place, clone)
        .map_err(sys::Error::of(|| format!("open_tree({}, CLONE)", place.display())))
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

/// Reads the file `path` of a view, links resolved inside. `None` if there is no such file, or it is something else
/// than a regular one. A file of more than `max_bytes` is an error (`EFBIG`): its end may be what matters.
pub fn read_inside(
    view: BorrowedFd<'_>,
    path: &str,
    max_bytes: usize,
) -> Result<Option<Vec<u8>>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let bytes = read(view, path, max_bytes.saturating_add(1)).map_err(failed)?;
    if bytes.as_ref().is_some_and(|bytes| bytes.len() > max_bytes) {
        let call = format!("read({}, at most {max_bytes} bytes)", shown(path, NAME_MAX));
        return Err(failed(sys::Error::new(Errno::FBIG, call)));
    }
    Ok(bytes)
}

/// Reads the first `bytes` bytes of the file `path` of a view, like [`read_inside`].
pub fn read_start_inside(
    view: BorrowedFd<'_>,
    path: &str,
    bytes: usize,
) -> Result<Option<Vec<u8>>, Error> {
    read(view, path, bytes).map_err(|source| Error::Read { path: path.to_owned(), source })
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

#[cfg(test)]
mod tests {
    use super::*;
    use hull_tests::paths::cannot_run;
    use std::fs;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/group"), "root:x:0:").unwrap();
        let view = view(&[dir.path().to_owned()]).unwrap();
        let read = |max| read_inside(view.as_fd(), "/etc/group", max);
        assert_eq!(read(9).unwrap().unwrap(), b"root:x:0:");
        let err = read(8).unwrap_err();
        let start = read_start_inside(view.as_fd(), "/etc/group", 4).unwrap();
        assert_eq!(start.unwrap(), b"root");
        assert!(
            matches!(&err, Error::Read { source, .. } if source.errno() == Errno::FBIG),
            "{err}"
        );
    }

    /// Older kernels take the layers in one option; this one takes both forms.
    #[test]
    fn as_many_layers_as_overlayfs_stacks_are_mounted_in_either_form() {
        const NAME: &str = "as_many_layers_as_overlayfs_stacks_are_mounted_in_either_form";
        if !rustix::process::geteuid().is_root() {
            return cannot_run(NAME, "root, to mount");
        }
        let dir = tempfile::tempdir().unwrap();
        let layer = |number: usize| {
            let path = dir.path().join(format!("a layer, with: any name {number}"));
            fs::create_dir(&path).unwrap();
            fs::write(path.join(number.to_string()), "").unwrap();
            path
        };
        let layers: Vec<PathBuf> = (0..500).map(layer).collect();
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        let before = mounts();
        for stack in [with_each, with_one_option] {
            let view = stack(&layers).unwrap();
            let names = fs::read_dir(format!("/proc/self/fd/{}", view.as_raw_fd())).unwrap();
            assert_eq!(names.count(), layers.len());
            assert_eq!(read(view.as_fd(), "499", 1).unwrap(), Some(Vec::new()));
            let written = fs::write(format!("/proc/self/fd/{}/new", view.as_raw_fd()), "");
            assert!(written.is_err());
        }
        assert_eq!(mounts(), before);
    }
}
