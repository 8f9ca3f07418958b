// SPDX-License-Identifier: Apache-2.0
//! Masked and read-only paths, and the check at the end that they are.

use crate::mount::{CallError, Result, attach, clone_at, clone_fd, errno_context, new_mount};
use crate::places::Places;
use crate::plan::Attrs;
use crate::rootfs::{Root, kind, mount_id};
use hull_sys::Attr;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// A mount that must be visible at its path when all is mounted.
#[derive(Debug)]
struct Check {
    path: String,
    mount_id: u64,
    op: usize,
}

/// The covers of masked paths, and the checks to make at the end.
#[derive(Debug, Default)]
pub(crate) struct Covers {
    /// The cover of the first masked directory, and that of the first masked file.
    empty: Option<OwnedFd>,
    null: Option<OwnedFd>,
    checks: Vec<Check>,
}

impl Covers {
    /// `mount`, of the operation `op`, must be visible at `path`. A later mount there replaces it.
    pub(crate) fn expect(&mut self, path: &str, mount: &OwnedFd, op: usize) -> Result {
        let mount_id = mount_id(mount.as_fd()).map_err(errno_context(format!("statx({path})")))?;
        self.checks.retain(|of| of.path != path);
        self.checks.push(Check { path: path.to_owned(), mount_id, op });
        Ok(())
    }

    /// Nothing is expected at `path` any more: the plan mounts something else there.
    pub(crate) fn covered(&mut self, path: &str) {
        let below = format!("{path}/");
        self.checks.retain(|of| of.path != path && !of.path.starts_with(&below));
    }

    /// Hides the file or directory at `path`.
    pub(crate) fn mask(&mut self, root: &Root, places: &Places, path: &str, op: usize) -> Result {
        let Some(found) = places.find(root, path)? else { return Ok(()) };
        let (of_what, ..) = kind(found.as_fd()).map_err(errno_context(format!("statx({path})")))?;
        let is_directory = of_what == FileType::Directory;
        let cover = match if is_directory { &self.empty } else { &self.null } {
            // A further view of the first one costs a tenth of a new file system.
            Some(first) => clone_fd(first.as_fd(), false)?,
            None if is_directory => empty_directory()?,
            None => null_device(root, places)?,
        };
        attach(&cover, found.as_fd()).map_err(errno_context(format!("move_mount({path})")))?;
        self.expect(path, &cover, op)?;
        let first = if is_directory { &mut self.empty } else { &mut self.null };
        first.get_or_insert(cover);
        Ok(())
    }

    /// Makes the tree at `path` read-only.
    pub(crate) fn readonly(
        &mut self,
        root: &Root,
        places: &Places,
        path: &str,
        op: usize,
    ) -> Result {
        let Some(found) = places.find(root, path)? else { return Ok(()) };
        let tree = clone_fd(found.as_fd(), true)?;
        let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
        hull_sys::mount_setattr(tree.as_fd(), true, &attr)?;
        attach(&tree, found.as_fd()).map_err(errno_context(format!("move_mount({path})")))?;
        self.expect(path, &tree, op)
    }

    /// Checks, with the container's root as ours, that each mount is visible at its path; returns the operation
    /// whose mount is not.
    pub(crate) fn verify(&self) -> Result<(), (usize, CallError)> {
        for Check { path, mount_id, op } in &self.checks {
            let flags = AtFlags::NO_AUTOMOUNT;
            let seen = rustix::fs::statx(CWD, path.as_str(), flags, StatxFlags::MNT_ID);
            match seen {
                Ok(seen) if seen.stx_mnt_id == *mount_id => {}
                Ok(_) => {
                    let call = format!("statx({path}): another mount is seen there");
                    return Err((*op, errno_context(call)(Errno::XDEV)));
                }
                Err(errno) => return Err((*op, errno_context(format!("statx({path})"))(errno))),
            }
        }
        Ok(())
    }
}

/// A view of the container's own null device, which must be one; of an empty file where there is none, or
/// where it is a volume's.
fn null_device(root: &Root, places: &Places) -> Result<OwnedFd> {
    match root.find("/dev/null") {
        Ok(null) if places.owns(null.as_fd())? => {
            let found = kind(null.as_fd()).map_err(errno_context("statx(/dev/null)"))?;
            if found != (FileType::CharacterDevice, 1, 3) {
                return Err(errno_context("statx(/dev/null) is not the null device")(Errno::NODEV));
            }
            clone_fd(null.as_fd(), false)
        }
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => empty_file(root),
        Err(errno) => Err(errno_context("openat2(/dev/null)")(errno)),
    }
}

fn empty_file(root: &Root) -> Result<OwnedFd> {
    let options = [("mode".to_owned(), Some("755".to_owned()))];
    let tmpfs = new_mount("tmpfs", "tmpfs", &Attrs::default(), &options)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC;
    let made = rustix::fs::openat(&tmpfs, "empty", flags, Mode::from_raw_mode(0o444));
    drop(made.map_err(errno_context("open(empty file)"))?);
    let file = match clone_at(&tmpfs, "empty") {
        // Before Linux 6.15 only what is attached can be cloned: for that moment, on top of the root.
        Err(failed) if failed.errno == Errno::INVAL => {
            attach(&tmpfs, root.fd()).map_err(errno_context("move_mount(empty file)"))?;
            let file = clone_at(&tmpfs, "empty");
            let place = format!("/proc/self/fd/{}", tmpfs.as_raw_fd());
            unmount(place.as_str(), UnmountFlags::DETACH)
                .map_err(errno_context("umount2(empty file)"))?;
            file?
        }
        other => other?,
    };
    let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
    hull_sys::mount_setattr(file.as_fd(), false, &attr)?;
    Ok(file)
}

/// An empty directory that stays empty.
fn empty_directory() -> Result<OwnedFd> {
    let attrs = Attrs { rdonly: true, ..Attrs::default() };
    let options = [("size", "0k"), ("nr_blocks", "1")];
    let options = options.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    new_mount("tmpfs", "tmpfs", &attrs, &options)
}
