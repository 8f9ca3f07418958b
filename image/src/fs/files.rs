// SPDX-License-Identifier: Apache-2.0
//! Files and directories of the store, with errors that name the path.
//!
//! The rule: removing never follows a link and never leaves the directory it was given, however the
//! tree in it was made.

use crate::error::{NAME_MAX, shown};
use data_encoding::HEXLOWER;
use hull_sys::{Error, Result};
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, Stat, Timespec, Timestamps, fsync, open, openat, renameat, syncfs,
    unlinkat,
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

/// Replaces a file atomically: written as `scratch`, synced, renamed, and the directory synced.
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

/// Syncs a file.
pub(crate) fn sync(file: &File, path: &Path) -> Result<()> {
    fsync(file).map_err(Error::of(|| format!("fsync({})", path.display())))
}

/// Syncs the whole file system of `on`.
pub(crate) fn sync_all(on: impl AsFd, path: &Path) -> Result<()> {
    syncfs(on).map_err(Error::of(|| format!("syncfs({})", path.display())))
}

/// Syncs a directory. Without this a power cut can lose a new name, until the file system writes its
/// journal some seconds later.
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

/// Removes a file. A missing file is a success.
pub(crate) fn unlink(path: &Path) -> Result<()> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::new(errno, format!("unlink({})", path.display()))),
    }
}

/// Removes a file or a whole tree. A missing path is a success.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(Errno::INVAL, format!("unlink({})", path.display())));
    };
    let parent = open_dir(parent)?;
    let name = CString::new(name.as_encoded_bytes())
        .map_err(|_| Error::new(Errno::INVAL, "unlink(a name with NUL)"))?;
    remove_at(parent.as_fd(), &name)
}

/// The same for `name` in `parent`.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let mut removal = Removal { top: parent, aside: unique("tree"), moved: 0 };
    removal.remove(parent, name, 0)?;
    let mut removed = 0;
    while removed < removal.moved {
        removed += 1;
        let name = removal.name_of(removed)?;
        removal.remove(parent, &name, 0)?;
    }
    Ok(())
}

struct Removal<'a> {
    /// The directory that deep directories are moved up to.
    top: BorrowedFd<'a>,
    /// The prefix of their names. A number follows, so that no list of them is needed.
    aside: String,
    moved: u64,
}

impl Removal<'_> {
    fn name_of(&self, number: u64) -> Result<CString> {
        CString::new(format!("removed-{}-{number}", self.aside))
            .map_err(|_| Error::new(Errno::INVAL, "renameat(a name with NUL)"))
    }

    fn remove(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(failed("unlinkat", name)(errno)),
        }
        if depth >= OPEN_DIRECTORIES_MAX {
            if unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok() {
                return Ok(());
            }
            // A container may nest directories deeper than we have descriptors or stack.
            let up = self.name_of(self.moved + 1)?;
            renameat(parent, name, self.top, &up).map_err(failed("renameat", name))?;
            self.moved += 1;
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

/// Opens a directory to empty it, even one that overlayfs left without permissions.
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

/// The modification time of a file, to restore it.
pub(crate) fn modified(stat: &Stat) -> Timestamps {
    let nothing = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let tv_nsec = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let last_modification = Timespec { tv_sec: stat.st_mtime, tv_nsec };
    Timestamps { last_access: nothing, last_modification }
}

/// A unique name.
pub(crate) fn unique(kind: &str) -> String {
    let mut bytes = [0; 8];
    hull_sys::random(&mut bytes);
    format!("{kind}-{}", HEXLOWER.encode(&bytes))
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
