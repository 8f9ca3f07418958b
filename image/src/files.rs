// SPDX-License-Identifier: Apache-2.0
//! Files and directories of the store, with errors that name the path.
//!
//! The rule: removing never follows a link and never leaves the directory it was given, however the
//! tree in it was made.

use crate::error::{NAME_MAX, shown};
use hull_sys::{Error, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, fsync, open, openat, renameat, syncfs, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories that stay open while a tree is removed; what lies deeper is moved up first.
const OPEN_DIRECTORIES_MAX: usize = 64;

/// Flags to open a directory with.
pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Opens a directory of the store.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    open(path, DIRECTORY, Mode::empty())
        .map_err(Error::of(|| format!("open({}, DIRECTORY)", path.display())))
}

/// Makes a directory if it is not there. Its mode is `mode` whatever the umask.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) => rustix::fs::chmod(path, Mode::from_raw_mode(mode))
            .map_err(Error::of(|| format!("chmod({}, {mode:o})", path.display()))),
        Err(Errno::EXIST) => open_dir(path).map(drop),
        Err(errno) => Err(Error::new(errno, format!("mkdir({})", path.display()))),
    }
}

/// Makes an empty file, unless there is one.
pub(crate) fn make_empty(path: &Path, mode: u32) -> Result<()> {
    let failed = || format!("open({}, CREATE)", path.display());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::from_raw_mode(mode)).map_err(Error::of(failed))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(Error::of(failed))
}

/// The names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let failed = || format!("getdents64({})", path.display());
    let mut names = Vec::new();
    for entry in Dir::new(open_dir(path)?).map_err(Error::of(failed))? {
        let entry = entry.map_err(Error::of(failed))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Opens a file of the store for reading.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .map(File::from)
        .map_err(Error::of(|| format!("open({})", path.display())))
}

/// Reads a file of at most `max` bytes.
pub(crate) fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    let failed = || format!("read({})", path.display());
    let mut bytes = Vec::new();
    open_file(path)?.take(max + 1).read_to_end(&mut bytes).map_err(Error::of_io(failed))?;
    if bytes.len() as u64 > max {
        return Err(Error::new(Errno::FBIG, failed()));
    }
    Ok(bytes)
}

/// Reads a file of the operator's, which may be a link, of at most `max` bytes.
pub(crate) fn read_following(path: &Path, max: u64) -> Result<Vec<u8>> {
    let failed = || format!("read({})", path.display());
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::of(|| format!("open({})", path.display())))?;
    let mut bytes = Vec::new();
    File::from(file).take(max + 1).read_to_end(&mut bytes).map_err(Error::of_io(failed))?;
    if bytes.len() as u64 > max {
        return Err(Error::new(Errno::FBIG, failed()));
    }
    Ok(bytes)
}

/// Makes a file that is not there yet.
pub(crate) fn create(path: &Path) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    open(path, flags, Mode::from_raw_mode(0o600))
        .map(File::from)
        .map_err(Error::of(|| format!("open({}, CREATE)", path.display())))
}

/// Puts a file in place whole: written as `scratch`, made durable, renamed, and the name made durable.
pub(crate) fn write_whole(path: &Path, scratch: &Path, bytes: &[u8]) -> Result<()> {
    let file = write_new(scratch, bytes)?;
    sync(&file, scratch)?;
    rename(scratch, path)?;
    path.parent().map_or(Ok(()), sync_names)
}

/// Writes a file that is not there yet.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<File> {
    let mut file = create(path)?;
    file.write_all(bytes).map_err(Error::of_io(|| format!("write({})", path.display())))?;
    Ok(file)
}

/// Makes a file durable.
pub(crate) fn sync(file: &File, path: &Path) -> Result<()> {
    fsync(file).map_err(Error::of(|| format!("fsync({})", path.display())))
}

/// Makes everything durable on the filesystem that `on` is of.
pub(crate) fn sync_all(on: impl AsFd, path: &Path) -> Result<()> {
    syncfs(on).map_err(Error::of(|| format!("syncfs({})", path.display())))
}

/// Makes the names in a directory durable. Without this a name is lost with the power, for the seconds until
/// the filesystem's journal is written: what was acknowledged would not be there.
pub(crate) fn sync_names(directory: &Path) -> Result<()> {
    let shown = directory.display();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd =
        open(directory, flags, Mode::empty()).map_err(Error::of(|| format!("open({shown})")))?;
    fsync(&fd).map_err(Error::of(|| format!("fsync({shown})")))
}

/// Renames within the store.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    rustix::fs::rename(from, to)
        .map_err(Error::of(|| format!("rename({}, {})", from.display(), to.display())))
}

/// Removes a file; one that is not there counts as removed.
pub(crate) fn unlink(path: &Path) -> Result<()> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::new(errno, format!("unlink({})", path.display()))),
    }
}

/// Removes whatever is at `path`; nothing there counts as removed.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(Errno::INVAL, format!("unlink({})", path.display())));
    };
    let parent = open_dir(parent)?;
    let name = CString::new(name.as_encoded_bytes())
        .map_err(|_| Error::new(Errno::INVAL, "unlink(a name with NUL)"))?;
    remove_at(parent.as_fd(), &name)
}

/// Likewise for `name` in `parent`.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let mut removal = Removal { top: parent, moved: 0, left: vec![name.to_owned()] };
    while let Some(name) = removal.left.pop() {
        removal.remove(parent, &name, 0)?;
    }
    Ok(())
}

struct Removal<'a> {
    /// Where directories that lie too deep are moved to.
    top: BorrowedFd<'a>,
    moved: u64,
    /// What is still to be removed there.
    left: Vec<CString>,
}

impl Removal<'_> {
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(failed("unlinkat", name)(errno)),
        }
        if depth >= OPEN_DIRECTORIES_MAX {
            // A container may nest directories deeper than we have descriptors or stack.
            self.moved += 1;
            let up = CString::new(format!("removed-{}-{}", unique("tree"), self.moved));
            let up = up.map_err(|_| failed("renameat", name)(Errno::INVAL))?;
            renameat(parent, name, self.top, &up).map_err(failed("renameat", name))?;
            self.left.push(up);
            return Ok(());
        }
        let dir = open_any_mode(parent, name)?;
        self.empty(dir.as_fd(), name, depth)?;
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("rmdir", name)(errno)),
        }
    }

    fn empty(&mut self, dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
        for entry in Dir::read_from(dir).map_err(failed("getdents64", name))? {
            let entry = entry.map_err(failed("getdents64", name))?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                self.remove(dir, entry.file_name(), depth + 1)?;
            }
        }
        Ok(())
    }
}

/// Opens a directory to empty it, also one that overlayfs has left without any permission.
fn open_any_mode(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // What was there was a directory a moment ago, and the tree is nobody else's.
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())
                .map_err(failed("chmodat", name))?;
            openat(parent, name, DIRECTORY, Mode::empty()).map_err(failed("openat", name))
        }
        other => other.map_err(failed("openat", name)),
    }
}

fn failed<'a>(call: &'a str, name: &'a CStr) -> impl Fn(Errno) -> Error + 'a {
    move |errno| Error::new(errno, format!("{call}({})", shown(name.to_bytes(), NAME_MAX)))
}

/// Bytes on disk and inodes of a tree. Does not follow links or leave the tree; what is deeper than
/// a path can be long is left out.
pub(crate) fn usage(root: &Path) -> Result<(u64, u64)> {
    let root_fd = open_dir(root)?;
    let (mut bytes, mut inodes) = (0, 0);
    let mut left = vec![Vec::<u8>::new()];
    while let Some(path) = left.pop() {
        let shown = if path.is_empty() { &b"."[..] } else { &path };
        let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
        let dir = match rustix::fs::openat2(&root_fd, shown, DIRECTORY, Mode::empty(), resolve) {
            Ok(dir) => dir,
            // It went, or changed, while we looked: a container may be running in it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => continue,
            Err(errno) => {
                return Err(Error::new(errno, format!("openat2({}, BENEATH)", root.display())));
            }
        };
        let failed = || format!("getdents64({})", root.display());
        for entry in Dir::read_from(&dir).map_err(Error::of(failed))? {
            let Ok(entry) = entry else { break };
            let name = entry.file_name();
            if name == c".." || (name == c"." && !path.is_empty()) {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            inodes += 1;
            bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            if name != c"." && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                left.push([&path, slash, name.to_bytes()].concat());
            }
        }
    }
    Ok((bytes, inodes))
}

/// A name that nothing else has.
pub(crate) fn unique(kind: &str) -> String {
    let mut bytes = [0; 8];
    hull_sys::random(&mut bytes);
    format!("{kind}-{}", crate::digest::hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_is_removed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::write(&kept, "x").unwrap();
        let top = dir.path().join("tree");
        make_dir(&top, 0o755).unwrap();
        std::os::unix::fs::symlink(dir.path(), top.join("link")).unwrap();
        let mut at = open_dir(&top).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).unwrap();
            at = openat(&at, "deep", DIRECTORY, Mode::empty()).unwrap();
        }
        rustix::fs::fchmod(&at, Mode::empty()).unwrap();
        remove_tree(&top).unwrap();
        remove_tree(&top).unwrap();
        assert_eq!(names(dir.path()).unwrap(), ["kept"]);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (path, scratch) = (dir.path().join("record"), dir.path().join("scratch"));
        write_whole(&path, &scratch, b"one").unwrap();
        write_whole(&path, &scratch, b"two").unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"two");
        assert_eq!(read(&path, 2).unwrap_err().errno(), Errno::FBIG);
    }
}
