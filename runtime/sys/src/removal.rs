// SPDX-License-Identifier: Apache-2.0
//! Removes files and whole directory trees.
//!
//! The rule: no link is followed, and nothing outside of the given directory is touched, also in a tree that a
//! container made, of any depth. What is mounted in it is outside: the removal ends there with `EXDEV`.

use crate::text::shown;
use crate::{Error, Result, random};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, openat, openat2, renameat, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// The number of directories that are open at once. Directories that are deeper are moved up first.
const OPEN_DIRECTORIES_MAX: usize = 64;
/// The longest name in a message, in bytes.
const NAME_BYTES_MAX: usize = 512;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a file, a link itself, or a directory with its content. A missing path counts as removed.
///
/// # Errors
/// The error of the first system call that failed; the tree may be removed in part.
pub fn remove_tree(path: &Path) -> Result<()> {
    let invalid = || Error::new(Errno::INVAL, format!("unlink({})", path.display()));
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match openat(rustix::fs::CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(Error::of(|| format!("open({}, DIRECTORY)", parent.display())))?,
    };
    let name = CString::new(name.as_encoded_bytes()).map_err(|_| invalid())?;
    remove_tree_at(parent.as_fd(), &name)
}

/// Removes `name` in the directory `parent`, as [`remove_tree`] does.
///
/// # Errors
/// The error of the first system call that failed; the tree may be removed in part.
pub fn remove_tree_at(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let mut removal = Removal { top: parent, prefix: None, moved: 0 };
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
    prefix: Option<u64>,
    moved: u64,
}

impl Removal<'_> {
    fn name_of(&mut self, number: u64) -> Result<CString> {
        let prefix = *self.prefix.get_or_insert_with(|| {
            let mut bytes = [0; 8];
            random(&mut bytes);
            u64::from_ne_bytes(bytes)
        });
        CString::new(format!("removed-tree-{prefix:016x}-{number}"))
            .map_err(|_| Error::new(Errno::INVAL, "renameat(a name with NUL)"))
    }

    fn remove(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
        let refused = match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // A directory: EISDIR on Linux, EPERM by POSIX.
            Err(errno @ (Errno::ISDIR | Errno::PERM)) => errno,
            Err(errno) => return Err(failed("unlinkat", name)(errno)),
        };
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
        let dir = match open_any_mode(parent, name) {
            Err(err) if err.errno() == Errno::NOTDIR => {
                return Err(failed("unlinkat", name)(refused));
            }
            other => other?,
        };
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

/// Opens a directory to empty it, even one that overlayfs left without permissions. Not one that something is mounted
/// on: that is somebody else's.
fn open_any_mode(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let open = || openat2(parent, name, DIRECTORY, Mode::empty(), ResolveFlags::NO_XDEV);
    let failed_to_open = |errno| match errno {
        Errno::XDEV => {
            let name = shown(name.to_bytes(), NAME_BYTES_MAX);
            Error::new(errno, format!("openat2({name}, NO_XDEV): something is mounted there"))
        }
        errno => failed("openat2", name)(errno),
    };
    match open() {
        Err(Errno::ACCESS) => {
            // The name was a directory a moment ago, and nobody else uses the tree.
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())
                .map_err(failed("chmodat", name))?;
            open().map_err(failed_to_open)
        }
        other => other.map_err(failed_to_open),
    }
}

fn failed<'a>(call: &'a str, name: &'a CStr) -> impl Fn(Errno) -> Error + 'a {
    move |errno| Error::new(errno, format!("{call}({})", shown(name.to_bytes(), NAME_BYTES_MAX)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_tree_deeper_than_any_path_is_removed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::write(&kept, "x").unwrap();
        let top = dir.path().join("tree");
        fs::create_dir(&top).unwrap();
        std::os::unix::fs::symlink(dir.path(), top.join("link")).unwrap();
        let mut at = openat(rustix::fs::CWD, &top, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).unwrap();
            at = openat(&at, "deep", DIRECTORY, Mode::empty()).unwrap();
        }
        rustix::fs::fchmod(&at, Mode::empty()).unwrap();
        remove_tree(&top).unwrap();
        remove_tree(&top).unwrap();
        remove_tree(&dir.path().join("no directory").join("name")).unwrap();
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [kept]);
    }

    #[test]
    fn what_is_mounted_is_not_entered() {
        let root = openat(rustix::fs::CWD, "/", DIRECTORY, Mode::empty()).unwrap();
        let err = open_any_mode(root.as_fd(), c"proc").unwrap_err();
        assert!(err.errno() == Errno::XDEV && err.to_string().contains("mounted there"), "{err}");
    }
}
