// SPDX-License-Identifier: Apache-2.0
//! Masked and read-only paths, and the look at the end whether they are.

use crate::mount::{Done, Failed, attach, clone_at, clone_fd, new_mount, of};
use crate::places::Places;
use crate::plan::Attrs;
use crate::rootfs::{Root, kind, mount_id};
use hull_sys::Attr;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// A mount that must be what is seen at its path when all is mounted.
#[derive(Debug)]
struct Check {
    path: String,
    mount_id: u64,
    op: usize,
}

/// What covers masked paths, and what is to be checked at the end.
#[derive(Debug, Default)]
pub(crate) struct Covers {
    /// What covers the first masked directory, and the first masked file.
    empty: Option<OwnedFd>,
    null: Option<OwnedFd>,
    checks: Vec<Check>,
}

impl Covers {
    /// `mount`, of the operation `op`, must be what is seen at `path`. A later one there takes its place.
    pub(crate) fn expect(&mut self, path: &str, mount: &OwnedFd, op: usize) -> Done {
        let mount_id = mount_id(mount.as_fd()).map_err(of(format!("statx({path})")))?;
        self.checks.retain(|of| of.path != path);
        self.checks.push(Check { path: path.to_owned(), mount_id, op });
        Ok(())
    }

    /// Nothing is expected at `path` any more: the plan mounts something else there.
    pub(crate) fn covered(&mut self, path: &str) {
        let below = format!("{path}/");
        self.checks.retain(|of| of.path != path && !of.path.starts_with(&below));
    }

    /// Hides what is at `path`.
    pub(crate) fn mask(&mut self, root: &Root, places: &Places, path: &str, op: usize) -> Done {
        let Some(found) = places.find(root, path)? else { return Ok(()) };
        let (of_what, ..) = kind(found.as_fd()).map_err(of(format!("statx({path})")))?;
        let is_directory = of_what == FileType::Directory;
        let cover = match if is_directory { &self.empty } else { &self.null } {
            // A further view of the first one costs a tenth of a new file system.
            Some(first) => clone_fd(first.as_fd(), false)?,
            None if is_directory => empty_directory()?,
            None => null_device(root, places)?,
        };
        attach(&cover, found.as_fd()).map_err(of(format!("move_mount({path})")))?;
        self.expect(path, &cover, op)?;
        let first = if is_directory { &mut self.empty } else { &mut self.null };
        first.get_or_insert(cover);
        Ok(())
    }

    /// Makes what is at `path` read-only, with all below.
    pub(crate) fn readonly(&mut self, root: &Root, places: &Places, path: &str, op: usize) -> Done {
        let Some(found) = places.find(root, path)? else { return Ok(()) };
        let tree = clone_fd(found.as_fd(), true)?;
        let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
        hull_sys::mount_setattr(tree.as_fd(), true, &attr)?;
        attach(&tree, found.as_fd()).map_err(of(format!("move_mount({path})")))?;
        self.expect(path, &tree, op)
    }

    /// Looks from inside, with the container's root as ours, whether each mount is what is seen at its
    /// path; gives the operation whose is not.
    pub(crate) fn verify(&self) -> Result<(), (usize, Failed)> {
        for Check { path, mount_id, op } in &self.checks {
            let flags = AtFlags::NO_AUTOMOUNT;
            let seen = rustix::fs::statx(CWD, path.as_str(), flags, StatxFlags::MNT_ID);
            match seen {
                Ok(seen) if seen.stx_mnt_id == *mount_id => {}
                Ok(_) => {
                    let call = format!("statx({path}): another mount is seen there");
                    return Err((*op, of(call)(Errno::XDEV)));
                }
                Err(errno) => return Err((*op, of(format!("statx({path})"))(errno))),
            }
        }
        Ok(())
    }
}

/// A view of the container's own null device, which must be one; of an empty file where there is none, or
/// where it is a volume's.
fn null_device(root: &Root, places: &Places) -> Done<OwnedFd> {
    match root.find("/dev/null") {
        Ok(null) if places.owns(null.as_fd())? => {
            let found = kind(null.as_fd()).map_err(of("statx(/dev/null)"))?;
            if found != (FileType::CharacterDevice, 1, 3) {
                return Err(of("statx(/dev/null) is not the null device")(Errno::NODEV));
            }
            clone_fd(null.as_fd(), false)
        }
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => empty_file(root),
        Err(errno) => Err(of("openat2(/dev/null)")(errno)),
    }
}

fn empty_file(root: &Root) -> Done<OwnedFd> {
    let options = [("mode".to_owned(), Some("755".to_owned()))];
    let tmpfs = new_mount("tmpfs", "tmpfs", &Attrs::default(), &options)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC;
    let made = rustix::fs::openat(&tmpfs, "empty", flags, Mode::from_raw_mode(0o444));
    drop(made.map_err(of("open(empty file)"))?);
    let file = match clone_at(&tmpfs, "empty") {
        // Before Linux 6.15 only what is attached can be cloned: for that moment, on top of the root.
        Err(failed) if failed.errno == Errno::INVAL => {
            attach(&tmpfs, root.fd()).map_err(of("move_mount(empty file)"))?;
            let file = clone_at(&tmpfs, "empty");
            let place = format!("/proc/self/fd/{}", tmpfs.as_raw_fd());
            unmount(place.as_str(), UnmountFlags::DETACH).map_err(of("umount2(empty file)"))?;
            file?
        }
        other => other?,
    };
    let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
    hull_sys::mount_setattr(file.as_fd(), false, &attr)?;
    Ok(file)
}

/// An empty directory that stays empty.
fn empty_directory() -> Done<OwnedFd> {
    let attrs = Attrs { rdonly: true, ..Attrs::default() };
    let options = [("size", "0k"), ("nr_blocks", "1")];
    let options = options.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    new_mount("tmpfs", "tmpfs", &attrs, &options)
}
