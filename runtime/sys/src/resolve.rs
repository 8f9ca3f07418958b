// SPDX-License-Identifier: Apache-2.0
//! Opening beneath a root, whatever the links on the way say.

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::path::Arg;
use std::os::fd::{BorrowedFd, OwnedFd};

/// How often the kernel is asked again. Against somebody who renames in a loop it takes a few tries.
const TRIES: usize = 1000;

/// Opens `path` with `root` as its root, links resolved inside, magic ones refused.
///
/// `openat2(2)`, Linux 5.6, `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS` and `more`. With `..` on the way
/// the kernel gives up with EAGAIN when anything at all was mounted or renamed on the host meanwhile,
/// because it cannot tell any more that nothing led out; it is to be asked again then. A file that
/// cannot be opened without waiting says EAGAIN as well, and says so each time.
pub fn open_in_root(
    root: BorrowedFd<'_>,
    path: impl Arg + Copy,
    flags: OFlags,
    more: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    let open = || openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    for _ in 1..TRIES {
        match open() {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    open()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn what_others_rename_meanwhile_keeps_nothing_from_being_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        std::os::unix::fs::symlink("../../../../../../a/b/c", dir.path().join("a/b/link")).unwrap();
        fs::write(dir.path().join("one"), "").unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(dir.path().join("one"), dir.path().join("two")).unwrap();
                    fs::rename(dir.path().join("two"), dir.path().join("one")).unwrap();
                }
            });
            let found = (0..20_000).try_for_each(|_| {
                open_in_root(root.as_fd(), "a/b/link", OFlags::PATH, ResolveFlags::empty())
                    .map(drop)
            });
            done.store(true, Ordering::Relaxed);
            found.unwrap();
        });
    }

    #[test]
    fn what_is_not_there_is_said_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        let missing = open_in_root(root.as_fd(), "../etc", OFlags::PATH, ResolveFlags::empty());
        assert_eq!(missing.unwrap_err(), Errno::NOENT);
    }
}
