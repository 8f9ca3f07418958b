// SPDX-License-Identifier: Apache-2.0
//! Walks trees of containers and images, of any depth and width.
//!
//! The rule: memory grows with the depth alone, by some bytes for each directory above the current one,
//! and a bounded number of them is open. A closed one is reopened by `..`, accepted only if it is the
//! same directory, and read from where it was left (`telldir(3)`). Links are not followed.

use super::files;
use crate::limits::Work;
use rustix::fs::{AtFlags, Dir, FileType, Mode, Stat, fstat, openat, statat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories that stay open from the top, and those that do above the current one.
const OPEN_TOP: usize = 32;
const OPEN_BELOW: usize = 32;
/// `PATH_MAX` of limits.h, with its NUL.
const PATH_BYTES_MAX: usize = 4096;

/// A file that a walk visits.
pub(crate) struct Visited<'a> {
    pub(crate) parent: BorrowedFd<'a>,
    pub(crate) inode_of_parent: u64,
    pub(crate) name: &'a CStr,
    /// Empty where the tree is [`Live`](TreeState::Live).
    pub(crate) path: &'a [u8],
}

/// Whether a tree changes during a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreeState {
    /// It does not change: an unreadable directory is an error, and so is a path longer than
    /// `PATH_MAX`.
    Frozen,
    /// A container may be changing it: files that disappear during the walk are skipped.
    Live,
}

struct Level {
    /// None while it is closed.
    dir: Option<Dir>,
    id: (u64, u64),
    /// The position to continue at.
    at: i64,
    path_bytes: usize,
}

impl Level {
    fn new(fd: OwnedFd, path_bytes: usize) -> Result<Self, Errno> {
        let id = id(&fstat(&fd)?);
        Ok(Self { dir: Some(Dir::new(fd)?), id, at: 0, path_bytes })
    }
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Visits everything beneath `root`. Descends into a directory if `see` returns true for it.
pub(crate) fn walk(
    root: BorrowedFd<'_>,
    tree: TreeState,
    work: &Work,
    mut see: impl FnMut(&Visited<'_>) -> io::Result<bool>,
) -> io::Result<()> {
    let top = openat(root, c".", files::DIRECTORY, Mode::empty())?;
    let (mut levels, mut path) = (vec![Level::new(top, 0)?], Vec::new());
    while let Some(level) = levels.last_mut() {
        work.check()?;
        let Some(dir) = &mut level.dir else { break };
        let entry = match dir.read() {
            Some(Ok(entry)) => entry,
            Some(Err(errno)) if tree == TreeState::Frozen => return Err(errno.into()),
            Some(Err(_)) | None => {
                up(&mut levels, tree)?;
                path.truncate(levels.last().map_or(0, |level| level.path_bytes));
                continue;
            }
        };
        level.at = entry.offset();
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if tree == TreeState::Frozen {
            path.truncate(level.path_bytes);
            extend(&mut path, name)?;
        }
        let parent = dir.fd()?;
        let seen = Visited { parent, inode_of_parent: level.id.1, name, path: &path };
        if see(&seen)? {
            let opened = openat(parent, name, files::DIRECTORY, Mode::empty());
            match opened.and_then(|fd| Level::new(fd, path.len())) {
                Ok(level) => down(&mut levels, level),
                Err(errno) if tree == TreeState::Frozen => return Err(errno.into()),
                Err(_) => {}
            }
        }
    }
    Ok(())
}

/// Disk usage and inodes of a tree including its root, while a container may be changing it. Does not
/// follow links or leave the tree.
pub(crate) fn usage(root: &Path, work: &Work) -> hull_sys::Result<(u64, u64)> {
    let taken = |stat: &Stat| u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    let top = files::open_dir(root)?;
    let stat = fstat(&top).map_err(hull_sys::Error::of(|| format!("fstat({})", root.display())))?;
    let (mut bytes, mut inodes) = (taken(&stat), 1);
    walk(top.as_fd(), TreeState::Live, work, |seen| {
        let stat = statat(seen.parent, seen.name, AtFlags::SYMLINK_NOFOLLOW);
        let Ok(stat) = stat else { return Ok(false) };
        inodes += 1;
        bytes += taken(&stat);
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    })
    .map_err(hull_sys::Error::of_io(|| format!("getdents64({})", root.display())))?;
    Ok((bytes, inodes))
}

fn extend(path: &mut Vec<u8>, name: &CStr) -> io::Result<()> {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
    if path.len() >= PATH_BYTES_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    Ok(())
}

fn down(levels: &mut Vec<Level>, level: Level) {
    levels.push(level);
    if let Some(far) = levels.len().checked_sub(OPEN_BELOW + 1).filter(|far| *far >= OPEN_TOP) {
        levels[far].dir = None;
    }
}

/// Returns to the parent of the current directory; if that was moved, to the lowest directory above that
/// is open.
fn up(levels: &mut Vec<Level>, tree: TreeState) -> io::Result<()> {
    let Some(left) = levels.pop() else { return Ok(()) };
    if let (Some(level), Some(dir)) = (levels.last_mut(), &left.dir)
        && level.dir.is_none()
    {
        match again(dir, level) {
            Ok(dir) => level.dir = Some(dir),
            Err(errno) if tree == TreeState::Frozen => return Err(errno.into()),
            Err(_) => {}
        }
    }
    while levels.last().is_some_and(|level| level.dir.is_none()) {
        levels.pop();
    }
    Ok(())
}

fn again(below: &Dir, level: &Level) -> Result<Dir, Errno> {
    let fd = openat(below.fd()?, c"..", files::DIRECTORY, Mode::empty())?;
    if id(&fstat(fd.as_fd())?) != level.id {
        return Err(Errno::STALE);
    }
    let mut dir = Dir::new(fd)?;
    dir.seek(level.at)?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use std::collections::BTreeSet;

    fn walked(root: BorrowedFd<'_>, tree: TreeState) -> io::Result<(u64, u64)> {
        let (mut directories, mut files) = (0, 0);
        walk(root, tree, &Work::default(), |seen| {
            let stat =
                rustix::fs::statat(seen.parent, seen.name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_directory {
                directories += 1
            } else {
                files += 1
            }
            Ok(is_directory)
        })?;
        Ok((directories, files))
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_walked_whole_with_what_is_beside_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = files::open_dir(dir.path()).unwrap();
        let root = files::open_dir(dir.path()).unwrap();
        for depth in 0..3000 {
            for name in ["a", "z"] {
                mkdirat(&at, format!("{name}{depth}"), Mode::RWXU).unwrap();
            }
            mkdirat(&at, "deep", Mode::RWXU).unwrap();
            at = openat(&at, "deep", files::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let (before, mut most) = (open(), 0);
        assert_eq!(walked(root.as_fd(), TreeState::Live).unwrap(), (9000, 0));
        walk(root.as_fd(), TreeState::Live, &Work::default(), |seen| {
            if seen.name == c"a2999" {
                most = open();
            }
            Ok(seen.name == c"deep")
        })
        .unwrap();
        // Other tests of this process open files too, but not as many as there are levels.
        assert!(most < before + 1000, "{most} descriptors");
        let err = walked(root.as_fd(), TreeState::Frozen).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
        hull_sys::remove_tree(&dir.path().join("deep")).unwrap();
    }

    #[test]
    fn paths_are_those_of_the_tree_and_a_walk_ends_with_who_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b/c", "a/d", "e"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let root = files::open_dir(dir.path()).unwrap();
        let mut paths = BTreeSet::new();
        walk(root.as_fd(), TreeState::Frozen, &Work::default(), |seen| {
            Ok(paths.insert(String::from_utf8_lossy(seen.path).into_owned()))
        })
        .unwrap();
        assert_eq!(paths.into_iter().collect::<Vec<_>>(), ["a", "a/b", "a/b/c", "a/d", "e"]);
        let (work, guard) = Work::guarded();
        let mut guard = Some(guard);
        let mut seen = 0;
        let ended = walk(root.as_fd(), TreeState::Live, &work, |_| {
            seen += 1;
            drop(guard.take());
            Ok(true)
        });
        assert!(ended.is_err() && seen == 1, "{seen}");
    }

    #[test]
    fn a_directory_that_is_moved_away_below_a_walk_costs_no_more_than_what_is_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = files::open_dir(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        let mut at = files::open_dir(dir.path()).unwrap();
        for depth in 0..200 {
            mkdirat(&at, format!("d{depth}"), Mode::RWXU).unwrap();
            at = openat(&at, format!("d{depth}"), files::DIRECTORY, Mode::empty()).unwrap();
        }
        let above: String = (0..100).map(|depth| format!("d{depth}/")).collect();
        let mut seen = 0;
        walk(root.as_fd(), TreeState::Live, &Work::default(), |of| {
            seen += 1;
            if of.name == c"d199" {
                let from = dir.path().join(&above).join("d100");
                std::fs::rename(from, dir.path().join("elsewhere/d100")).unwrap();
            }
            Ok(of.name != c"elsewhere")
        })
        .unwrap();
        assert!(seen >= 200, "{seen}");
    }
}
