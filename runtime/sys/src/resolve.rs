// SPDX-License-Identifier: Apache-2.0
//! Opening beneath a root, whatever the links on the way say.

use crate::Error;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::path::Arg;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

/// The same number on every architecture; musl's libc has no name for it.
const SYS_FCHMODAT2: libc::c_long = 452;
/// `PROC_SUPER_MAGIC`, include/uapi/linux/magic.h.
const PROC_MAGIC: rustix::fs::FsWord = 0x9fa0;

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

/// Changes the mode of what `fd` names, also when that is only a place (`O_PATH`): nobody can put
/// something else there meanwhile. `fchmodat2(2)`, Linux 6.6; before that by way of `/proc/self/fd`,
/// for which /proc must be a procfs.
pub fn chmod_by_descriptor(fd: BorrowedFd<'_>, mode: Mode) -> crate::Result<()> {
    // SAFETY: plain numbers, an open descriptor and a static, empty path.
    let ret = unsafe {
        libc::syscall(
            SYS_FCHMODAT2,
            fd.as_raw_fd(),
            c"".as_ptr(),
            mode.as_raw_mode(),
            libc::AT_EMPTY_PATH,
        )
    };
    let call = || format!("fchmodat2(descriptor, {:o}, EMPTY_PATH)", mode.as_raw_mode());
    match if ret == 0 { Ok(()) } else { Err(Error::last(call())) } {
        Err(err) if err.errno() == Errno::NOSYS => {
            let proc = openat2(
                rustix::fs::CWD,
                "/proc/self/fd",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::empty(),
            );
            let proc = proc.map_err(Error::of(|| "open(/proc/self/fd)"))?;
            if !rustix::fs::fstatfs(&proc).is_ok_and(|stat| stat.f_type == PROC_MAGIC) {
                return Err(Error::new(Errno::NODEV, "statfs(/proc/self/fd) is not procfs"));
            }
            let name = fd.as_raw_fd().to_string();
            rustix::fs::chmodat(&proc, name, mode, rustix::fs::AtFlags::empty())
                .map_err(Error::of(call))
        }
        other => other,
    }
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
    fn a_mode_changes_by_a_descriptor_that_is_only_a_place() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("file"), dir.path().join("other"));
        fs::write(&file, "").unwrap();
        fs::write(&other, "").unwrap();
        let mode = |of: &std::path::Path| fs::metadata(of).unwrap().permissions().mode() & 0o777;
        let before = mode(&other);
        let root = fs::File::open(dir.path()).unwrap();
        let place = open_in_root(root.as_fd(), "file", OFlags::PATH, ResolveFlags::empty());
        fs::rename(&file, dir.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(&other, &file).unwrap();
        chmod_by_descriptor(place.unwrap().as_fd(), Mode::from_raw_mode(0o604)).unwrap();
        assert_eq!(mode(&dir.path().join("moved")), 0o604);
        assert_eq!(mode(&other), before);
    }

    #[test]
    fn what_is_not_there_is_said_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        let missing = open_in_root(root.as_fd(), "../etc", OFlags::PATH, ResolveFlags::empty());
        assert_eq!(missing.unwrap_err(), Errno::NOENT);
    }
}
